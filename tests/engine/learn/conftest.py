"""Small labelled data: EMT is cheap enough to label anew in every session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from aiida_oodal.engine.learn.ace_settings import AceFitSettings
from aiida_oodal.engine.learn.crystals import strained_crystals
from aiida_oodal.engine.learn.reference import label_structure


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
    """Plain settings of a basis small enough for tests, with changes."""

    def make(**changes: Any) -> Any:
        small = {
            'number_of_functions': 12,
            'cutoff': 4.5,
            'spline_spacing': 0.01,
            # pyace makes all functions up to these orders and then drops most: for alloys that takes seconds
            'radial_functions_by_order': (6, 3, 1),
            'angular_momentum_by_order': (0, 2, 1),
        }
        return AceFitSettings(**(small | changes)).model_dump(mode='json')

    return make
