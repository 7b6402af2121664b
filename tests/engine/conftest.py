"""Real data, small labelled data, LAMMPS as a library, MACE models: what the tests of the engine share."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read

from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.mace.latents_job import run_job
from aiida_oodal.engine.mace.latents_settings import LatentsSettings
from aiida_oodal.engine.md.driver import LammpsDriver, open_lammps, read_commands
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.scores import OodScores
from aiida_oodal.templates import get_template

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'


@pytest.fixture
def hot_al() -> Atoms:
    """Return 500 atoms of Al after MD at 3000 K, with the gamma that LAMMPS with ML-PACE gave for this frame."""
    frame = read(ACE_AL / 'native_snapshot' / 'snap.dump', format='lammps-dump-text')
    atoms = Atoms('Al500', positions=frame.positions, cell=frame.cell, pbc=True, info={'step': 300})
    atoms.arrays['gamma'] = frame.arrays['f_pg'].ravel()
    return atoms


@pytest.fixture(scope='session')
def _labelled() -> list[Atoms]:
    crystals = strained_crystals(count=4, rattle=(0.05, 0.15), seed=3)
    return [label_structure(atoms, EMT()) for atoms in crystals]


@pytest.fixture
def aluminium(_labelled: list[Atoms]) -> list[Atoms]:
    """Four labelled cells of 32 atoms; a fresh copy for each test."""
    return [atoms.copy() for atoms in _labelled]


@pytest.fixture
def values() -> Callable[..., Any]:
    """Settings of a basis small enough for tests, with changes."""

    def make(**changes: Any) -> Any:
        small = {
            'number_of_functions': 12,
            'cutoff': 4.5,
            'spline_spacing': 0.01,
            # pyace makes all functions up to these orders and then drops most: for alloys that takes seconds
            'radial_functions_by_order': (6, 3, 1),
            'angular_momentum_by_order': (0, 2, 1),
            # every label as it is, so that tests can say what a fit must give
            'robust_force': None,
            'buffer_weight': 1.0,
            'cluster_weight': 1.0,
            'fit_atom_energies': False,
        }
        return AceFitSettings(**(small | changes))

    return make


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lammps(in_folder):
    instance = open_lammps('-log', 'log.lammps')
    yield instance
    instance.close()


@pytest.fixture
def prepare():
    return _prepare


@pytest.fixture
def drive(lammps):
    """Return what runs a script up to its first step."""

    def run(atoms, evaluator, **values):
        _prepare(atoms, **values)
        driver = LammpsDriver(lammps, evaluator)
        driver.run_script(Path('start.in'))
        return driver

    return run


@pytest.fixture
def by_id(lammps):
    """Return what reads values of atoms in the order of their ids."""

    def read(name, n_atoms, dim=1, of=lammps):
        values = np.array(of.numpy.extract_atom(name, nelem=n_atoms, dim=dim))
        return values[np.argsort(of.numpy.extract_atom('id', nelem=n_atoms))]

    return read


def _prepare(atoms, forces='embedded', **values):
    """Write structure and script into the current folder, and give the commands before the run."""
    settings = MdSettings.load({'temperature': 300, 'gamma_break': 1e8, 'gamma_ceiling': 1e9, **values})
    lines = ['pair_style lj/cut 6.0', 'pair_coeff * * 0.2 2.6'] if forces == 'lines' else []
    write_structure(Path('structure.data'), atoms, ['Al'])
    script = render_input(
        get_template('lammps/md.in.j2'),
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


MACE_ALCU = Path(__file__).parents[1] / 'data' / 'mace_alcu'
LABELS = ('w1', 'w2', 'w3', 'w4')
#: Atoms of 3BPA without hydrogen.
HEAVY_ATOMS = 15


@pytest.fixture(scope='session')
def alcu_models() -> dict[str, Path]:
    """Files of four models of Al and Cu that differ in their seed."""
    return {label: MACE_ALCU / f'{label}.model' for label in ('w1', 'w2', 'w3', 'w4')}


@pytest.fixture(scope='session')
def _alcu_crystals() -> list[Atoms]:
    return list(read(MACE_ALCU / 'heldout.extxyz', ':'))


@pytest.fixture
def alcu_crystals(_alcu_crystals: list[Atoms]) -> list[Atoms]:
    """Sixteen labelled cells of 32 atoms of Al, Cu and their alloys that no model was trained on."""
    return [atoms.copy() for atoms in _alcu_crystals]


@pytest.fixture
def ethanol() -> Atoms:
    return molecule('CH3CH2OH')


@pytest.fixture
def ice() -> Atoms:
    """A dense periodic cell of H, C and O, thinner than twice the cutoff of the models below and not orthogonal."""
    atoms = bulk('C', 'diamond', a=4.6, cubic=True)
    atoms.symbols[[1, 4]] = 'O'
    atoms.symbols[[2]] = 'H'
    atoms.set_cell(atoms.cell.array + np.array([[0, 0, 0], [0.7, 0, 0], [0, 0.4, 0]]), scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.fixture(scope='session')
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes an untrained model of H, C and O with random weights, each shape once."""
    folder = tmp_path_factory.mktemp('untrained')

    def make(irreps: str = '4x0e', kind: str = 'ScaleShiftMACE', heads: tuple[str, ...] = ('Default',)) -> Path:
        path = folder / f'{kind}_{irreps}_{"_".join(heads)}.model'
        if not path.exists():
            save_untrained(path, irreps, kind, heads)
        return path

    return make


def save_untrained(path: Path, irreps: str, kind: str, heads: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # deprecations within mace-torch and e3nn
        import mace.modules as mm
        import torch
        from e3nn import o3

        interaction = mm.interaction_classes['RealAgnosticResidualInteractionBlock']
        values: dict[str, Any] = {
            'r_max': 3.0,
            'num_bessel': 4,
            'num_polynomial_cutoff': 5,
            'max_ell': 2,
            'interaction_cls': interaction,
            'interaction_cls_first': interaction,
            'num_interactions': 2,
            'num_elements': 3,
            'hidden_irreps': o3.Irreps(irreps),
            'MLP_irreps': o3.Irreps('4x0e'),
            'atomic_energies': np.array([[-13.6, -1029.0, -2042.0]] * len(heads)),
            'avg_num_neighbors': 8.0,
            'atomic_numbers': [1, 6, 8],
            'correlation': 2,
            'gate': torch.nn.functional.silu,
            'radial_MLP': [8],
            'heads': list(heads),
        }
        if kind == 'ScaleShiftMACE':
            values |= {'atomic_inter_scale': [1.3] * len(heads), 'atomic_inter_shift': [0.2] * len(heads)}
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            torch.save(getattr(mm, kind)(**values), path)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.fixture
def calculator() -> Callable[..., Any]:
    """Return a function that makes MACE's own calculator, the reference for everything here."""

    def make(path: Path, dtype: str, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            from mace.calculators import MACECalculator

            return MACECalculator(model_paths=str(path), device='cpu', default_dtype=dtype, **options)

    return make


@pytest.fixture
def run_latents(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs a latents job and returns its folder."""

    def run(structures: Path, models: Mapping[str, Path], *, name: str = 'job', **values: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        job = {key: values.pop(key) for key in ('start', 'stop') if key in values}
        job |= {'structures': str(structures), 'models': {label: str(path) for label, path in models.items()}}
        run_job(job | {'settings': LatentsSettings(**values).plain()}, folder)
        return folder

    return run


@pytest.fixture(scope='session')
def real_arrays() -> dict[str, np.ndarray]:
    """Return latents of 3BPA as they are on disk."""
    with np.load(Path(__file__).parents[1] / 'data' / 'ood' / '3bpa_heavy_latents.npz') as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope='session')
def real_atoms(real_arrays: dict[str, np.ndarray]) -> Callable[[str], np.ndarray]:
    """Return a function that gives the atoms of a set of 3BPA."""
    return lambda name: np.flatnonzero(np.repeat(real_arrays['split'] == name, HEAVY_ATOMS))


@pytest.fixture(scope='session')
def real_set(real_arrays: dict[str, np.ndarray]) -> Callable[..., EnsembleLatents]:
    """Return a function that gives the latents of a set of 3BPA, changed as asked for, with made-up energies."""

    def make(name: str, change: Callable[[np.ndarray], np.ndarray] = lambda latents: latents) -> EnsembleLatents:
        n = len(real_arrays['split'])
        whole = EnsembleLatents.from_arrays(
            LABELS,
            real_arrays['numbers'],
            np.arange(n + 1) * HEAVY_ATOMS,
            list(change(real_arrays['latents'].astype(np.float64))),
            energies=np.random.default_rng(3).normal(size=(4, n)),
            forces=list(real_arrays['forces'].astype(np.float64)),
        )
        return whole.select(np.flatnonzero(real_arrays['split'] == name))

    return make


@pytest.fixture(scope='session')
def reference(
    real_set: Callable[..., EnsembleLatents],
    real_arrays: dict[str, np.ndarray],
    real_atoms: Callable[[str], np.ndarray],
) -> OodReference:
    """Return the reference of 3BPA at 300 K, calibrated by labelled held-out structures."""
    labels = real_arrays['ref_forces'][real_atoms('valid')]
    return OodReference.fit(real_set('train'), real_set('valid'), reference_forces=labels)


@pytest.fixture(scope='session')
def real_scores(reference: OodReference, real_set: Callable[..., EnsembleLatents]) -> Callable[[str], OodScores]:
    """Return a function that scores a set of 3BPA."""
    return functools.cache(lambda name: reference.score(real_set(name)))


@pytest.fixture(scope='session')
def made_up() -> Callable[..., EnsembleLatents]:
    """Return a function that makes latents of molecules with 3 to 8 atoms of two elements.

    Every model sees the same hidden environment, in a basis of its own and with some noise; ``shift`` moves the
    environments away from those of other seeds.
    """

    def make(n_structures: int, seed: int = 0, *, shift: float = 0.0, noise: float = 0.1) -> EnsembleLatents:
        rng, basis = np.random.default_rng(seed), np.random.default_rng(1234)
        offsets = np.concatenate([[0], np.cumsum(rng.integers(3, 9, n_structures))])
        numbers = rng.choice([6, 8], offsets[-1])
        hidden = rng.normal(size=(offsets[-1], 12)) * np.linspace(1.0, 0.2, 12) + shift
        hidden[numbers == 8] += 2.0 * (-1.0) ** np.arange(12)
        latents = []
        for _ in LABELS:
            rotation = np.linalg.qr(basis.normal(size=(12, 12)))[0]
            latents.append((hidden + noise * rng.normal(size=hidden.shape)) @ rotation + basis.normal(size=12))
        return EnsembleLatents.from_arrays(
            LABELS,
            numbers,
            offsets,
            latents,
            energies=rng.normal(size=(4, n_structures)),
            forces=[rng.normal(size=(offsets[-1], 3)) for _ in LABELS],
        )

    return make
