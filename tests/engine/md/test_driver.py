"""The driver against LAMMPS: a pair potential in Python must do what LAMMPS's own does."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from machine import MPIRUN, require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Evaluation
from aiida_oodal.engine.md.driver import LammpsDriver, open_lammps, read_commands
from aiida_oodal.engine.md.log import read_log

require('lammps')


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


def hot(cells=2, seed=3, temperature=1500.0):
    atoms = bulk('Al', a=4.05, cubic=True) * (cells, cells, cells)
    rng = np.random.default_rng(seed)
    atoms.set_momenta(rng.normal(0, np.sqrt(8.617e-5 * temperature * 26.98), (len(atoms), 3)))
    return atoms


def test_commands_are_joined_and_comments_dropped(tmp_path):
    script = tmp_path / 'x.in'
    script.write_text('# nothing\nunits metal\n\nfix a all &\n   nve\nrun 0\n')
    assert read_commands(script) == ['units metal', 'fix a all nve', 'run 0']


@pytest.mark.parametrize('ensemble', ['nve', 'npt'])
def test_the_trajectory_is_that_of_the_same_potential_in_lammps(in_folder, ensemble, by_id, prepare):
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
        positions[forces] = by_id('x', len(atoms), 3, of=instance)
        logs[forces] = [instance.get_thermo(name) for name in ('pe', 'press', 'pxy', 'vol')]
        builds = driver.n_builds
        instance.close()
    assert builds > 3
    np.testing.assert_allclose(positions['embedded'], positions['lines'], atol=1e-7)
    np.testing.assert_allclose(logs['embedded'], logs['lines'], rtol=1e-7, atol=1e-4)


def test_gamma_is_asked_for_at_its_interval_and_at_the_start_of_each_run(drive, by_id):
    evaluator = LennardJones()
    driver = drive(hot(), evaluator, gamma_every=10)
    driver.command('run 25')
    assert [step for step, asked in enumerate(evaluator.asked) if asked] == [0, 10, 20]
    assert driver.max_gamma == 20.0
    assert by_id('d_gamma', 32) == pytest.approx(20.0)
    evaluator.asked.clear()
    driver.command('run 5')  # setup at step 25 asks again, out of turn
    assert evaluator.asked == [True, False, False, False, False, True]


def test_gamma_stays_with_its_atom_when_lammps_reorders(lammps, drive):
    class ByAtom(LennardJones):
        def compute(self, positions, *, gamma):
            result = super().compute(positions, gamma=gamma)
            tags = lammps.numpy.extract_atom('id', nelem=len(result.forces))
            return Evaluation(result.energy, result.forces, result.virial, tags.astype(float) if gamma else None)

    driver = drive(hot(temperature=8000.0), ByAtom(), gamma_every=1000, sample_every=1000, ensemble='nve')
    driver.command('atom_modify sort 1 2.0')
    driver.command('run 200')
    order = np.array(lammps.numpy.extract_atom('id', nelem=32))
    assert (order != np.arange(1, 33)).any()
    np.testing.assert_array_equal(lammps.numpy.extract_atom('d_gamma', nelem=32), order)


def test_lists_are_kept_between_rebuilds(drive):
    driver = drive(hot(temperature=300.0), LennardJones(), ensemble='nve')
    driver.command('run 20')
    assert driver.n_calls == 21
    assert driver.n_builds < 5


def test_an_exception_stops_the_run_and_is_raised(lammps, in_folder, drive):
    class Broken(LennardJones):
        def compute(self, positions, *, gamma):
            if len(self.asked) == 7:
                raise ZeroDivisionError('the model\'s "broken" at $7')
            return super().compute(positions, gamma=gamma)

    evaluator = Broken()
    driver = drive(hot(), evaluator, gamma_every=1, sample_every=1, gamma_select=0.5)
    with pytest.raises(ZeroDivisionError, match='broken'):
        driver.run_script(Path('rest.in'))
    assert driver.last_step == 7
    assert len(evaluator.asked) == 7  # and never again
    lammps.close()
    log = Path('log.lammps').read_text()
    assert '\nERROR: the model`s `broken` at 7\n' in log
    assert 'write_restart' not in log
    # the step that failed left no frame
    assert steps_of('snapshots.dump')[-1] == 6
    assert not Path('final.dump').exists()


def steps_of(path):
    lines = Path(path).read_text().splitlines()
    return [int(after) for line, after in itertools.pairwise(lines) if line == 'ITEM: TIMESTEP']


@pytest.mark.parametrize('part', ['energy', 'forces', 'gamma'])
def test_nan_stops_the_run(part, drive):
    class Nan(LennardJones):
        def compute(self, positions, *, gamma):
            result = super().compute(positions, gamma=gamma)
            values = {name: getattr(result, name) for name in ('energy', 'forces', 'virial', 'gamma')}
            if len(self.asked) == 11:
                values[part] = values[part] * np.nan
            return Evaluation(**values)

    driver = drive(hot(), Nan(), gamma_every=10)
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
    require('mpirun')
    program = (
        'from aiida_oodal.engine.md.driver import LammpsDriver, open_lammps\n'
        "lammps = open_lammps('-log', 'none')\n"
        'try:\n    LammpsDriver(lammps, None)\n'
        'except ValueError as error:\n    print(error, flush=True)\n'
        'lammps.close()\nlammps.finalize()\n'
    )
    done = subprocess.run(
        [MPIRUN, '-np', '2', sys.executable, '-c', program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 'runs on 1 MPI process, not 2' in done.stdout, done.stderr


def test_lost_atoms_are_told_at_once(lammps, drive):
    driver = drive(hot(), LennardJones(), ensemble='nve', sample_every=1000)
    driver.command('run 5')
    driver.command('change_box all boundary f f f')
    driver.command('group some id 1:30')
    driver.command('displace_atoms some move 1000 0 0')
    # LAMMPS itself would look at its next line of thermo output only
    with pytest.raises(OodalError, match=r'Lost atoms: original 32 current 2 at step 5'):
        driver.command('run 10')


def test_a_box_without_atoms_is_no_bare_error_of_numpy(lammps, drive):
    driver = drive(hot(), LennardJones(), ensemble='nve', sample_every=1000)
    driver.command('change_box all boundary f f f')
    driver.command('displace_atoms all move 1000 0 0')
    with pytest.raises(OodalError, match=r'Lost atoms: original 32 current 0'):
        driver.command('run 10')
    lammps.close()
    assert read_log(Path('log.lammps')).lost_atoms == (32, 0)
