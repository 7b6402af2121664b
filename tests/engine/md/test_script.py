import subprocess
from io import StringIO
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from machine import LMP, needs

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.run import read_run
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.start.box import LammpsBox
from aiida_oodal.engine.md.verdict import Outcome
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.templates import get_template

needs_lmp = needs('lmp')


def text_of(atoms, elements):
    """Return the data file that LAMMPS would read."""
    with NamedTemporaryFile('r') as file:
        write_structure(file.name, atoms, elements)
        return file.read()


def render(*, forces='embedded', restart=False, has_velocities=False, lines=(), run_to=None, pbc=(True,) * 3, **values):
    return render_input(
        get_template('lammps/md.in.j2'),
        MdSettings.load({'temperature': 300, **values}),
        forces=forces,
        elements=['Al', 'Cu'],
        cutoff=6.0,
        restart=restart,
        has_velocities=has_velocities,
        lines=lines,
        run_to=run_to,
        pbc=pbc,
    )


def commands(script):
    return [' '.join(line.split()) for line in script.splitlines() if line and not line.startswith('#')]


def command(script, start):
    found = [line for line in commands(script) if line.startswith(start)]
    assert len(found) == 1, f'{start}: {found}'
    return found[0]


def test_embedded_forces_take_the_neighbour_list_of_a_pair_style_without_forces():
    script = commands(render())
    for line in (
        'pair_style zero 6.0 full',
        'fix gamma all property/atom d_gamma',
        'fix forces all external pf/callback 1 1',
        'fix_modify forces energy yes virial yes',
    ):
        assert line in script
    assert not any('quit' in line or 'pace' in line for line in script)


def test_native_forces_come_from_ml_pace_and_end_with_the_verdict():
    script = commands(render(forces='native', gamma_every=20))
    assert 'pair_style pace/extrapolation' in script
    assert 'pair_coeff * * potential.yaml active_set.asi Al Cu' in script
    assert 'fix gamma all pair 20 pace/extrapolation gamma 1' in script
    assert script[-1] == 'if "$(v_max_gamma) > ${gamma_break}" then "quit 3"'
    assert not any('external' in line for line in script)


def test_other_pair_styles_have_no_gamma():
    script = render(forces='lines', lines=['pair_style eam/alloy', 'pair_coeff * * X.alloy Al Cu'], run_to=500)
    assert 'gamma' not in '\n'.join(commands(script))
    assert 'pair_coeff * * X.alloy Al Cu' in commands(script)
    assert command(script, 'run ') == 'run 500 upto start 0 stop 10000'
    assert command(script, 'dump ').startswith('dump snapshots all custom 100 snapshots.dump id type element x y z')


@pytest.mark.parametrize('forces', ['native', 'embedded'])
def test_the_run_is_watched(forces):
    script = render(forces=forces, gamma_every=20, gamma_select=3, gamma_break=7, sample_every=200, thermo_every=40)
    assert command(script, 'fix watch') == 'fix watch all halt 20 v_max_gamma > ${gamma_break} error soft message yes'
    assert command(script, 'variable gamma_break') == 'variable gamma_break equal 7.0'
    assert command(script, 'variable gamma_select') == 'variable gamma_select equal 3.0'
    assert command(script, 'dump ').startswith('dump snapshots all custom 20 snapshots.dump id type element')
    modify = command(script, 'dump_modify')
    gamma = {'native': 'f_gamma', 'embedded': 'd_gamma'}[forces]
    for part in ('sort id', 'element Al Cu', f'colname {gamma} gamma', 'skip v_skip', 'flush yes'):
        assert part in modify
    assert command(script, 'thermo_style').endswith('step time temp pe ke etotal press vol v_max_gamma')
    assert command(script, 'thermo 40') == 'thermo 40'


@pytest.mark.parametrize(
    ('values', 'motion'),
    [
        ({'ensemble': 'nve'}, 'fix motion all nve'),
        ({'temperature': (300, 900)}, 'fix motion all nvt temp 300.0 900.0 0.1'),
        ({'ensemble': 'npt', 'pressure': 50}, 'fix motion all npt temp 300.0 300.0 0.1 iso 50.0 50.0 1.0'),
        ({'ensemble': 'npt', 'coupling': 'tri'}, 'fix motion all npt temp 300.0 300.0 0.1 tri 0.0 0.0 1.0'),
    ],
)
def test_ensembles(values, motion):
    script = render(**values)
    assert command(script, 'fix motion') == motion
    assert ('change_box all triclinic' in commands(script)) == (values.get('coupling') == 'tri')


@pytest.mark.parametrize(
    ('arguments', 'created'),
    [
        ({}, 'velocity all create 300.0 7 mom yes rot no dist gaussian'),
        ({'temperature': (200, 900)}, 'velocity all create 200.0 7 mom yes rot no dist gaussian'),
        ({'initial_temperature': 600}, 'velocity all create 600.0 7 mom yes rot no dist gaussian'),
        ({'has_velocities': True}, None),
        (
            {'has_velocities': True, 'initial_temperature': 600},
            'velocity all create 600.0 7 mom yes rot no dist gaussian',
        ),
        ({'pbc': (False,) * 3}, 'velocity all create 300.0 7 mom yes rot yes dist gaussian'),
        ({'restart': True, 'initial_temperature': 600}, None),
    ],
)
def test_velocities_are_kept_unless_there_are_none_or_others_are_asked_for(arguments, created):
    script = commands(render(velocity_seed=7, **arguments))
    assert [line for line in script if line.startswith('velocity')] == ([created] if created else [])


def test_a_restart_says_again_what_restart_files_do_not_hold():
    first, second = commands(render()), commands(render(restart=True))
    only_first = {'units metal', 'atom_style atomic', 'atom_modify map array', 'boundary p p p'}
    assert set(first) - set(second) == {
        *only_first,
        'read_data structure.data',
        'velocity all create 300.0 1 mom yes rot no dist gaussian',
    }
    assert set(second) - set(first) == {'read_restart initial.restart'}


def test_restart_files_take_turns_or_are_left_out():
    assert command(render(), 'restart') == 'restart 1000 periodic.restart.1 periodic.restart.2'
    assert not any(line.startswith('restart') for line in commands(render(restart_every=None)))


def test_walltime_is_looked_at_where_gamma_is():
    assert 'timer timeout 90 every 10' in commands(render(walltime_s=90))


def test_open_directions_are_shrink_wrapped():
    assert command(render(pbc=(True, False, True)), 'boundary') == 'boundary p s p'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'units': 'real'}, "embedded forces need 'metal'"),
        ({'forces': 'native', 'units': 'real'}, "native forces need 'metal'"),
        ({'forces': 'lines'}, 'lines of a pair style'),
        ({'lines': ['pair_style lj/cut 5']}, 'lines of a pair style'),
        ({'run_to': 20_000}, 'run_to = 20000'),
    ],
)
def test_what_forces_cannot_do_is_refused(arguments, message):
    with pytest.raises(OodalError, match=message):
        render(**arguments)


def run_lmp(folder, script, atoms, units='metal'):
    (folder / 'md.in').write_text(script)
    write_structure(folder / 'structure.data', atoms, ['Al', 'Cu'], units)
    return subprocess.run([LMP, '-in', 'md.in', '-screen', 'none'], cwd=folder, check=False).returncode


def last_positions(folder):
    rows = (folder / 'final.dump').read_text().splitlines()[9:]
    return np.array([row.split()[3:6] for row in rows], dtype=float)


@needs_lmp
def test_metal_and_real_units_are_the_same_md(tmp_path):
    atoms = bulk('Al', a=4.05, cubic=True) * (2, 2, 2)
    rng = np.random.default_rng(5)
    atoms.set_momenta(rng.normal(0.0, 1.0, (len(atoms), 3)))
    positions = {}
    for units, epsilon in (('metal', 0.2), ('real', 0.2 * 23.060549)):  # eV, kcal/mol
        folder = tmp_path / units
        folder.mkdir()
        script = render(
            forces='lines',
            lines=['pair_style lj/cut 6.0', f'pair_coeff * * {epsilon} 2.6'],
            units=units,
            ensemble='npt',
            pressure=20_000,
            temperature=(300, 600),
            steps=100,
            timestep_ps=0.002,
            has_velocities=True,
        )
        assert run_lmp(folder, script, atoms, units) == 0
        positions[units] = last_positions(folder)
    assert np.abs(positions['metal'] - atoms.get_positions(wrap=True)).max() > 0.1
    # LAMMPS's constants of the two systems of units agree to about 1e-6
    np.testing.assert_allclose(positions['metal'], positions['real'], atol=1e-4)


@needs_lmp
@pytest.mark.parametrize(
    ('gamma_break', 'speed', 'status', 'outcome'),
    [
        (5.0, 'sqrt(vx^2+vy^2+vz^2)', 3, Outcome.UNCERTAIN),
        (90.0, 'sqrt(vx^2+vy^2+vz^2)', 0, Outcome.COMPLETED),
        (5.0, '0*vx', 0, Outcome.FAILED),
    ],
)
def test_native_script_runs_and_its_exit_status_tells_of_the_halt(tmp_path, gamma_break, speed, status, outcome):
    # The wheel has no ML-PACE. All but the commands that need it is run for real: a pair style of the wheel gives the
    # forces, and an average over one step, which like `fix pair` is fresh on multiples of its interval only, gives
    # "gamma": the speed of each atom, which passes 5 angstrom/ps soon. Or 0, as from builds that never compute it.
    script = render(forces='native', steps=200, temperature=2000, gamma_break=gamma_break, ensemble='nve')
    for old, new in (
        ('pair_style      pace/extrapolation', 'pair_style lj/cut 6.0'),
        (
            'pair_coeff      * * potential.yaml active_set.asi Al Cu',
            f'pair_coeff * * 0.2 2.6\nvariable v atom {speed}',
        ),
        ('fix             gamma all pair 10 pace/extrapolation gamma 1', 'fix gamma all ave/atom 1 1 10 v_v'),
        ('fix             gamma all pair 1 pace/extrapolation gamma 1', 'fix gamma all ave/atom 1 1 1 v_v'),
    ):
        assert script.count(old) == 1
        script = script.replace(old, new)
    atoms = bulk('Al', a=4.05, cubic=True) * (3, 3, 3)
    assert run_lmp(tmp_path, script, atoms) == status
    frame = (tmp_path / 'final.dump').read_text().splitlines()
    assert frame[8].split()[-1] == 'gamma'
    assert all((tmp_path / name).stat().st_size > 0 for name in ('final.restart', 'final.data'))
    thresholds = Thresholds(gamma_select=2.0, gamma_break=gamma_break, gamma_ceiling=100.0)
    verdict = read_run(tmp_path, target_step=200, thresholds=thresholds, restart_every=1000).verdict
    assert verdict.outcome is outcome, verdict.message
    if outcome is Outcome.FAILED:
        assert int(frame[1]) == verdict.last_step == 10  # and not after a night
        assert 'Gamma is exactly 0' in verdict.message
        return
    speeds = np.array([row.split()[6:] for row in frame[9:]], dtype=float)
    np.testing.assert_allclose(speeds[:, 3], np.linalg.norm(speeds[:, :3], axis=1))
    assert (int(frame[1]) == 200) == (status == 0)
    assert (speeds[:, 3].max() > gamma_break) == (status == 3)


def parse(text):
    return read(StringIO(text), format='lammps-data', units='metal', atom_style='atomic')


@hypothesis_settings(deadline=None, max_examples=50)
@given(
    # hundredths of an angstrom: numbers like 1e-300 make LAPACK warn, and are no cell
    cell=arrays(int, (3, 3), elements=st.integers(-800, 800))
    .map(lambda hundredths: hundredths / 100.0)
    .filter(lambda cell: abs(np.linalg.det(cell)) > 20),
    seed=st.integers(0, 1000),
)
def test_structures_come_back_after_rotation(cell, seed):
    rng = np.random.default_rng(seed)
    atoms = Atoms('CuAlCu', positions=rng.random((3, 3)) @ cell, cell=cell, pbc=True)
    atoms.set_momenta(rng.normal(size=(3, 3)))
    rotation = LammpsBox(atoms.cell.array).rotation
    written = parse(text_of(atoms, ['Al', 'Cu']))
    assert written.get_chemical_symbols() == ['Cu', 'Al', 'Cu']
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(written.cell.array @ rotation.T, cell, atol=1e-8)
    difference = np.linalg.solve(cell.T, (written.positions @ rotation.T - atoms.positions).T)
    np.testing.assert_allclose(difference - np.round(difference), 0.0, atol=1e-8)
    np.testing.assert_allclose(written.get_velocities() @ rotation.T, atoms.get_velocities(), atol=1e-9)


def test_masses_are_those_of_the_structure_and_absent_elements_have_some():
    atoms = Atoms('Cu', cell=[9, 9, 9], pbc=True, masses=[65.0])
    lines = text_of(atoms, ['Al', 'Cu']).splitlines()
    masses = lines[lines.index('Masses') + 2 :][:2]
    assert [float(line.split()[1]) for line in masses] == pytest.approx([26.9815, 65.0], abs=1e-3)


def test_types_left_by_another_reader_are_not_taken():
    atoms = Atoms('CuAl', positions=[[0, 0, 0], [2, 2, 2]], cell=[9, 9, 9], pbc=True)
    atoms.set_array('type', np.array([7, 8]))
    assert parse(text_of(atoms, ['Al', 'Cu'])).get_chemical_symbols() == ['Cu', 'Al']


def test_a_structure_at_rest_has_no_velocities():
    assert 'Velocities' not in text_of(bulk('Al'), ['Al'])


def test_unknown_elements_are_refused():
    with pytest.raises(OodalError, match='the structure has Au, but the potential knows Al only'):
        text_of(bulk('Au'), ['Al'])
