"""The choice of centres in one snapshot."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_oodal.engine.carve.centres import worst_centres
from aiida_oodal.engine.errors import OodalError


def test_worst_first_and_apart_across_the_boundary(hot_al: Atoms) -> None:
    separation = 6.0
    chosen = worst_centres(hot_al, gamma_min=1.0, max_centres=50, min_separation=separation)
    gamma = hot_al.arrays['gamma']
    distances = hot_al.get_all_distances(mic=True)
    assert chosen[0] == int(np.argmax(gamma))
    assert np.all(np.diff(gamma[chosen]) <= 0)
    assert np.all(gamma[chosen] > 1.0)
    between = distances[np.ix_(chosen, chosen)] + 99 * np.eye(len(chosen))
    assert between.min() >= separation
    # and nobody was left out without a worse one nearby
    others = np.setdiff1d(np.flatnonzero(gamma > 1.0), chosen)
    assert len(others) > len(chosen)
    for atom in others:
        near = np.array(chosen)[distances[atom, chosen] < separation]
        assert gamma[near].max() >= gamma[atom]


def test_same_as_greedy_by_all_distances_in_a_skewed_cell() -> None:
    rng = np.random.default_rng(2)
    atoms = Atoms('Al60', positions=rng.normal(0, 20, (60, 3)), cell=[[9, 0, 0], [7, 8, 0], [-6, 3, 10]], pbc=[1, 1, 0])
    gamma = rng.random(60)
    expected: list[int] = []
    for atom in np.argsort(-gamma):
        if gamma[atom] > 0.2 and all(atoms.get_distance(atom, other, mic=True) >= 4.0 for other in expected):
            expected.append(int(atom))
    assert worst_centres(atoms, gamma, gamma_min=0.2, max_centres=99, min_separation=4.0) == expected


def test_thresholds_caps_and_ties() -> None:
    atoms = bulk('Al', cubic=True)
    options = {'max_centres': 9, 'min_separation': 0.0}
    assert worst_centres(atoms, [1, 5, 5, 9], gamma_min=1, **options) == [3, 1, 2]
    assert worst_centres(atoms, [[1], [5], [5], [9]], gamma_min=1, gamma_ceiling=8, **options) == [1, 2]
    assert worst_centres(atoms, [1, 5, 5, 9], gamma_min=10, **options) == []
    assert worst_centres(atoms, [1, 5, 5, 9], gamma_min=0, max_centres=2, min_separation=0.0) == [3, 1]
    assert worst_centres(atoms, [1, 5, 5, 9], gamma_min=0, max_centres=9, min_separation=50.0) == [3]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'gamma': None}, r"no per-atom array 'gamma'"),
        ({'gamma': [1, 2, 3]}, r'shape \(3,\) for a snapshot of 4 atoms'),
        ({'gamma': [1, 2, np.nan, 3]}, r'gamma of atom 2 is not a number'),
        ({'max_centres': 0}, r'max_centres is 0'),
        ({'min_separation': -1.0}, r'min_separation is -1'),
        ({'min_separation': np.nan}, r'min_separation is nan'),
    ],
)
def test_bad_input_is_a_clear_error(change: dict, message: str) -> None:
    arguments = {'gamma': [1, 2, 3, 4], 'gamma_min': 0, 'max_centres': 3, 'min_separation': 1.0} | change
    with pytest.raises(OodalError, match=message):
        worst_centres(bulk('Al', cubic=True), **arguments)
