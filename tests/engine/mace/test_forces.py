"""A MACE ensemble drives LAMMPS: the forces are MACE's own, gamma is the calibrated disagreement, and it halts."""

import contextlib
import json
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from ase.neighborlist import neighbor_list
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.ensemble_settings import EnsembleSettings
from aiida_oodal.engine.mace.forces import MaceForces, Watchdog, load_reference, open_forces
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.models import MaceModel, open_model
from aiida_oodal.engine.md import EXIT_HALT
from aiida_oodal.engine.md.driver import LammpsDriver, open_lammps
from aiida_oodal.engine.md.embedded import run_job
from aiida_oodal.engine.md.log import read_log
from aiida_oodal.engine.md.run import read_run
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.start.box import LammpsBox
from aiida_oodal.engine.md.verdict import Outcome
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.thresholds import NOT_PHYSICAL
from aiida_oodal.templates import get_template

require('lammps', 'mace')

DATA = Path(__file__).parents[2] / 'data' / 'mace_alcu'
MODELS = {f'w{seed}': DATA / f'w{seed}.model' for seed in (1, 2, 3, 4)}
JOB = {
    'input': 'md.in',
    'potential': {
        'kind': 'mace',
        'models': {label: f'{label}.model' for label in MODELS},
        'reference': 'reference.npz',
        'elements': ['Al', 'Cu'],
        'settings': {'precision': 'float64', 'device': 'cpu'},
    },
}


def text_of(atoms, elements):
    """Return the data file that LAMMPS would read."""
    with NamedTemporaryFile('r') as file:
        write_structure(file.name, atoms, elements)
        return file.read()


def latents_of(structures, labels=tuple(MODELS)):
    """Evaluate the ensemble on structures by the engine of screening."""
    models = [open_model(MODELS[label], label=label, precision='float64', device='cpu') for label in labels]
    batch = merge_graphs([build_graph(atoms, models[0].info.cutoff) for atoms in structures])
    return EnsembleLatents.from_arrays(
        labels,
        batch.numbers,
        np.concatenate([[0], np.cumsum(batch.sizes)]),
        [model.evaluate(batch).latents for model in models],
    )


@pytest.fixture(scope='module')
def reference():
    latents, heldout = (latents_of(read(DATA / f'{name}.extxyz', ':')) for name in ('train', 'heldout'))
    return OodReference.fit(latents, heldout, settings={'metrics': ['aligned_variance']})


@pytest.fixture(scope='module')
def reference_of_one():
    latents, heldout = (latents_of(read(DATA / f'{name}.extxyz', ':'), ('w2',)) for name in ('train', 'heldout'))
    return OodReference.fit(latents, heldout)


@pytest.fixture(scope='module')
def evaluator(reference):
    # many structures, one after the other: their densities have nothing to do with each other
    return MaceForces(MODELS, reference, ['Al', 'Cu'], precision='float64', device='cpu', density=None)


def alloy(cells=2, rattle=0.1):
    atoms = bulk('Al', a=3.9, cubic=True).repeat(cells)
    atoms.symbols[::3] = 'Cu'
    atoms.rattle(rattle, seed=4)
    return atoms


def skewed():
    atoms = bulk('Al', a=3.9).repeat((2, 2, 3))
    atoms.symbols[::3] = 'Cu'
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.random.default_rng(1).normal(0, 0.08, (3, 3))), scale_atoms=True)
    atoms.rotate(50, (1, 2, 3), rotate_cell=True)
    atoms.rattle(0.1, seed=4)
    return atoms


def primitive():
    atoms = bulk('Al', a=3.9).repeat((2, 1, 1))
    atoms.rattle(0.1, seed=4)
    return atoms


def molecule():
    atoms = alloy(cells=1)
    atoms.pbc = False
    atoms.center(vacuum=4.0)
    return atoms


def prepare(folder, atoms, reference=None, **values):
    """Write structure and script, and what an ensemble needs if there is a reference."""
    settings = MdSettings.load({'temperature': 300, **values})
    structure = text_of(atoms, ['Al', 'Cu'])
    script = render_input(
        get_template('lammps/md.in.j2'),
        settings,
        forces='embedded',
        elements=['Al', 'Cu'],
        has_velocities=atoms.has('momenta'),
        pbc=atoms.pbc,
    )
    (folder / 'structure.data').write_text(structure)
    (folder / 'md.in').write_text(script)
    if reference is not None:
        np.savez(folder / 'reference.npz', **reference.to_arrays())
        for label, path in MODELS.items():
            (folder / f'{label}.model').symlink_to(path)
    return settings


@contextlib.contextmanager
def driven(folder, atoms, evaluator):
    """Give LAMMPS after step 0 of these atoms."""
    prepare(folder, atoms, ensemble='nve', gamma_break=1e8, gamma_ceiling=1e9)
    script = (folder / 'md.in').read_text()
    with contextlib.chdir(folder):
        (folder / 'start.in').write_text(script[: script.index('\nrun ')] + '\n')
        lammps = open_lammps('-log', 'log.lammps')
        try:
            driver = LammpsDriver(lammps, evaluator)
            driver.command(f'variable cutoff string {evaluator.cutoff}')
            driver.run_script(folder / 'start.in')
            driver.command('run 0')
            yield lammps
        finally:
            lammps.close()


def by_id(lammps, name, n_atoms, dim=1):
    values = np.array(lammps.numpy.extract_atom(name, nelem=n_atoms, dim=dim))
    return values[np.argsort(lammps.numpy.extract_atom('id', nelem=n_atoms))]


def calculator(label='w1', dtype='float64'):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=[str(MODELS[label])], device='cpu', default_dtype=dtype)


@pytest.mark.parametrize('make', [alloy, skewed, primitive, molecule])
@pytest.mark.filterwarnings('ignore')  # of MACECalculator, the judge here
def test_energy_forces_and_virial_are_those_of_mace(tmp_path, evaluator, make):
    atoms = make()
    expected = atoms.copy()
    expected.calc = calculator()
    rotation = LammpsBox(atoms.cell.array).rotation
    with driven(tmp_path, atoms, evaluator) as lammps:
        forces = by_id(lammps, 'f', len(atoms), 3) @ rotation.T
        np.testing.assert_allclose(forces, expected.get_forces(), rtol=0, atol=1e-10)
        assert np.abs(forces).max() > 0.05
        assert lammps.get_thermo('pe') == pytest.approx(expected.get_potential_energy(), abs=1e-8)
        if not atoms.pbc.all():
            return
        lammps.command('velocity all set 0 0 0')
        lammps.command('run 0')
        pressure = np.array([[lammps.get_thermo(f'p{"".join(sorted(a + b))}') for b in 'xyz'] for a in 'xyz'])
    stress = -rotation @ pressure @ rotation.T / 1.6021765e6  # eV/angstrom^3 in bar, as LAMMPS has it (nktv2p)
    np.testing.assert_allclose(stress, expected.get_stress(voigt=False), rtol=0, atol=1e-9)


@pytest.mark.filterwarnings('ignore')
def test_forces_in_float32_and_of_the_mean(tmp_path, reference):
    atoms = alloy()
    expected = atoms.copy()
    expected.calc = calculator(dtype='float32')
    single = MaceForces(MODELS, reference, ['Al', 'Cu'], precision='float32', device='cpu')
    with driven(tmp_path, atoms, single) as lammps:
        np.testing.assert_allclose(by_id(lammps, 'f', len(atoms), 3), expected.get_forces(), rtol=0, atol=1e-5)
    forces = []
    for label in MODELS:
        expected.calc = calculator(label)
        forces.append(expected.get_forces())
    mean = MaceForces(MODELS, reference, ['Al', 'Cu'], forces='mean', precision='float64', device='cpu')
    with driven(tmp_path, atoms, mean) as lammps:
        np.testing.assert_allclose(by_id(lammps, 'f', len(atoms), 3), np.mean(forces, axis=0), rtol=0, atol=1e-10)
    assert np.std(forces, axis=0).max() > 1e-3


def test_the_mean_says_what_it_costs(tmp_path, reference, capsys):
    prepare(tmp_path, alloy(), reference)
    open_forces(JOB['potential'] | {'settings': {'forces': 'mean', 'device': 'cpu'}}, tmp_path)
    assert 'mean of 4 models: every step takes about 4 times' in capsys.readouterr().out


def test_gamma_is_that_of_screening(tmp_path, evaluator, reference):
    atoms = alloy(rattle=0.3)
    latents = latents_of([atoms])
    expected = reference.gamma(latents.numbers, latents.latents)
    with driven(tmp_path, atoms, evaluator) as lammps:
        np.testing.assert_allclose(by_id(lammps, 'd_gamma', len(atoms)), expected, rtol=1e-8)
    known = latents_of(read(DATA / 'heldout.extxyz', ':'))
    assert np.median(reference.gamma(known.numbers, known.latents)) < 1.0 < expected.max()


def test_steps_without_gamma_run_one_model_only(evaluator, tmp_path, monkeypatch):
    ran = []
    forward = MaceModel.forward
    monkeypatch.setattr(MaceModel, 'forward', lambda model, data: ran.append(model.info.label) or forward(model, data))
    with driven(tmp_path, alloy(), evaluator) as lammps:
        assert ran == ['w1', 'w2', 'w3', 'w4']
        ran.clear()
        lammps.command('run 10')
    assert sorted(ran) == ['w1'] * 11 + ['w2'] * 2 + ['w3'] * 2 + ['w4'] * 2  # set-up and step 10 have gamma


def run(folder, atoms, reference, changes=None, **values):
    """Run a whole job and give its exit status and verdict; ``changes`` are those of its potential."""
    settings = prepare(folder, atoms, reference, **values)
    job = JOB | {'potential': JOB['potential'] | (changes or {})}
    (folder / 'job.json').write_text(json.dumps(job))
    try:
        run_job(job, folder)
    except SystemExit as error:
        status = error.code
    else:
        status = 0
    return status, read_run(folder, target_step=settings.steps, thresholds=settings.thresholds).verdict


def test_a_cold_run_conserves_energy_and_ends(tmp_path, reference):
    atoms = bulk('Al', a=3.995, cubic=True).repeat(2)
    status, verdict = run(
        tmp_path, atoms, reference, ensemble='nve', temperature=100, initial_temperature=200, steps=200, thermo_every=10
    )
    assert (status, verdict.outcome) == (0, Outcome.COMPLETED), verdict.message
    series = read_log(tmp_path / 'log.lammps').series()
    energy = series['TotEng'][1:] / len(atoms)
    assert np.ptp(energy) < 2e-5
    assert np.ptp(series['PotEng'][1:] / len(atoms)) > 50 * np.ptp(energy)
    assert verdict.max_gamma < 2.0


def test_a_hot_run_halts(tmp_path, reference):
    atoms = alloy(rattle=0.01)
    status, verdict = run(tmp_path, atoms, reference, temperature=4000, timestep_ps=0.002, steps=2000)
    assert (status, verdict.outcome) == (EXIT_HALT, Outcome.UNCERTAIN), verdict.message
    assert 0 < verdict.trigger_step < 2000
    assert verdict.worst_atoms[0][1] == pytest.approx(verdict.max_gamma, rel=1e-3)


def test_an_atom_alone_is_not_physical_whatever_its_gamma(tmp_path, evaluator, reference, capsys):
    atoms = molecule()
    atoms.cell[2, 2] += 20.0
    atoms.positions[3, 2] += 20.0
    latents = latents_of([atoms])
    assert reference.gamma(latents.numbers, latents.latents)[3] < 100.0
    with driven(tmp_path, atoms, evaluator) as lammps:
        gamma = by_id(lammps, 'd_gamma', len(atoms))
    assert gamma[3] == NOT_PHYSICAL
    assert (np.delete(gamma, 3) < NOT_PHYSICAL).all()
    assert '1 of 4 atoms have no neighbour within the cutoff' in capsys.readouterr().out
    (tmp_path / 'allowed').mkdir()
    tolerant = MaceForces(MODELS, reference, ['Al', 'Cu'], precision='float64', device='cpu', lonely_atoms='allow')
    with driven(tmp_path / 'allowed', atoms, tolerant) as lammps:
        assert by_id(lammps, 'd_gamma', len(atoms)).max() < NOT_PHYSICAL


def test_a_crystal_that_is_torn_apart_is_caught(tmp_path, reference):
    """No threshold of gamma is in reach here: the watchdog alone ends the run, and it does not count as finished."""
    blind = {'gamma_select': 1e7, 'gamma_break': 1e8, 'gamma_ceiling': 1e9}
    values = {'ensemble': 'npt', 'temperature': 300, 'pressure': -3e5, 'pressure_damping_ps': 0.5, 'steps': 4000}
    status, verdict = run(tmp_path, alloy(), reference, **blind, **values)
    assert (status, verdict.outcome) == (EXIT_HALT, Outcome.EXPLODED), verdict.message
    assert 0 < verdict.last_step < 4000
    assert 'gamma passed gamma_ceiling' in verdict.message
    assert 'The ensemble found matter evaporated or collapsed there' in verdict.message


def test_what_the_watchdog_calls_physical():
    watch = Watchdog(5.0, (0.65, 1.5), 'refuse')
    crystal = bulk('Al', a=4.0, cubic=True) * 3
    far = crystal.copy()
    far.positions[0] += 40.0
    far.cell *= 20
    for atoms, problem in (
        (crystal, None),
        (stretch(crystal, 1.03), None),  # beyond the cutoff are 24 of the 42 neighbours
        (stretch(crystal, 1.08), None),
        (stretch(crystal, 1.16), 'atoms have 0.6'),
        (stretch(crystal, 0.87), 'atoms have 1.6'),
        (far, '1 of 108 atoms have no neighbour'),
    ):
        gamma = np.ones(len(atoms))
        found = watch(*neighbor_list('id', atoms, 5.0), gamma)
        assert (found is None) == (problem is None), found
        assert problem is None or found.startswith(problem), found
        assert (gamma.max() == NOT_PHYSICAL) == (problem is not None)
    alone = np.empty(0, int), np.empty(0), np.ones(4)
    assert Watchdog(5.0, None, 'allow')(*alone) is None


def stretch(atoms, factor):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)
    return atoms


def test_settings_of_the_watchdog_are_checked():
    assert EnsembleSettings.check({'density': [0.5, 3.0], 'lonely_atoms': 'allow'}) is None
    assert EnsembleSettings.check({'density': None}) is None
    assert 'the first below 1 and the second above' in EnsembleSettings.check({'density': [1.2, 3.0]})


@pytest.mark.filterwarnings('ignore')
def test_one_model_drives_grades_and_halts(tmp_path, reference_of_one):
    alone = MaceForces({'w2': MODELS['w2']}, reference_of_one, ['Al', 'Cu'], precision='float64', device='cpu')
    atoms = alloy(rattle=0.1)
    latents = latents_of([atoms], ('w2',))
    expected = atoms.copy()
    expected.calc = calculator('w2')
    with driven(tmp_path, atoms, alone) as lammps:
        gamma = by_id(lammps, 'd_gamma', len(atoms))
        np.testing.assert_allclose(gamma, reference_of_one.gamma(latents.numbers, latents.latents), rtol=1e-8)
        np.testing.assert_allclose(by_id(lammps, 'f', len(atoms), 3), expected.get_forces(), rtol=0, atol=1e-10)
    folder = tmp_path / 'hot'
    folder.mkdir()
    settings = {'temperature': 4000, 'timestep_ps': 0.002, 'steps': 2000}
    only = {'models': {'w2': 'w2.model'}}
    status, verdict = run(folder, alloy(rattle=0.01), reference_of_one, only, **settings)
    assert (status, verdict.outcome) == (EXIT_HALT, Outcome.UNCERTAIN), verdict.message
    assert 0 < verdict.trigger_step < 2000


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'models': {'w1': 'w1.model'}}, 'the models are w1, but the reference was made of w1, w2, w3, w4'),
        ({'elements': ['Al', 'Ag']}, 'the models know Al, Cu, not Ag'),
        ({'settings': {'forces': 'w9'}}, "forces = 'w9': there are w1, w2, w3, w4, mean"),
        ({'reference': 'md.in'}, 'md.in cannot be read as a reference'),
        ({'settings': {'layers': 'last'}}, "layers = 'last' gives 16 latents, but the reference was made of 32"),
        ({'models': {}}, 'job: models must name a file for each label'),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, reference, changes, message):
    prepare(tmp_path, alloy(), reference)
    with pytest.raises(OodalError, match=message):
        run_job({**JOB, 'potential': {**JOB['potential'], **changes}}, tmp_path)


def test_a_reference_survives_its_file(tmp_path, reference):
    np.savez(tmp_path / 'r.npz', **reference.to_arrays())
    latents = latents_of([alloy()])
    again = load_reference(tmp_path / 'r.npz')
    np.testing.assert_array_equal(
        again.gamma(latents.numbers, latents.latents), reference.gamma(latents.numbers, latents.latents)
    )
