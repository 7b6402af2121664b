"""A training small enough for tests: cells of four atoms of Al, labelled by EMT, and a MACE of eight channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from aiida_oodal.engine.files import RESULTS_FILE
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.mace.train.settings import MaceTrainSettings
from aiida_oodal.engine.structures import StructureSet

TINY = {'num_channels': 8, 'max_ell': 2, 'correlation': 2, 'r_max': 4.0, 'num_radial_basis': 4, 'radial_MLP': [8]}
#: Energy of an isolated atom of Al in EMT [eV].
E0 = 3.28


def label(atoms: Atoms) -> Atoms:
    return label_structure(atoms, EMT(asap_cutoff=False))


@pytest.fixture(scope='session')
def _cells() -> list[Atoms]:
    cells = strained_crystals(count=24, repeat=(1, 1, 1), strain=0.03, rattle=(0.05, 0.2), seed=5)
    return [label(atoms) for atoms in cells]


@pytest.fixture
def cells(_cells: list[Atoms]) -> list[Atoms]:
    """Twenty-four labelled cells; a fresh copy for each test."""
    return [atoms.copy() for atoms in _cells]


@pytest.fixture
def values() -> Callable[..., dict[str, Any]]:
    """Plain settings of a tiny model, with changes."""

    def make(overrides: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        small = {
            'protocol': 'quick',
            'updates': 50,
            'evaluations': 5,
            'batch_size': 4,
            'learning_rate': 0.1,
            'E0s': {'Al': E0},
            'device': 'cpu',
        }
        return MaceTrainSettings.load(small | changes | {'overrides': TINY | (overrides or {})}).to_values()

    return make


@pytest.fixture
def make_job(tmp_path: Path, cells: list[Atoms], values: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Return a function that writes a job of two training sets and a validation set into a folder of its own."""

    def make(name: str = 'job', structures: list[Atoms] | None = None, **changes: Any) -> tuple[dict[str, Any], Path]:
        folder = tmp_path / name
        folder.mkdir()
        structures = cells if structures is None else structures
        parts = {
            'training_a.npz': structures[:12],
            'training_b.npz': structures[12:20],
            'validation.npz': structures[20:],
        }
        for file, frames in parts.items():
            StructureSet.from_atoms(frames).save(folder / file)
        job = {
            'training': ['training_a.npz', 'training_b.npz'],
            'validation': 'validation.npz',
            'seed': 1,
            'settings': values(),
        }
        return json.loads(json.dumps(job | changes)), folder

    return make


@pytest.fixture
def results() -> Callable[[Path], dict[str, Any]]:
    """Return a function that reads the results of a job."""
    return lambda folder: json.loads((folder / RESULTS_FILE).read_text())
