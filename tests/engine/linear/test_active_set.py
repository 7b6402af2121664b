from __future__ import annotations

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear.active_set import UNSEEN_SHARE, choose_active_set


def gamma(rows, chosen):
    return np.abs(np.asarray(rows) @ chosen.inverse).max(axis=1)


@pytest.fixture
def rows():
    return np.random.default_rng(1).normal(size=(200, 8)) * np.logspace(0, -4, 8)


def test_no_environment_is_outside_of_its_own_set(rows):
    chosen = choose_active_set(rows, tol=1.001)
    assert (chosen.rank, chosen.n_environments) == (8, 200)
    assert gamma(rows, chosen).max() <= 1.001
    assert gamma(3.0 * rows, chosen).max() == pytest.approx(3.0, rel=1e-2)


def test_the_set_is_the_one_of_all_rows_where_they_span_everything(rows):
    """Eight of the rows are unit vectors in terms of the set: they are the set."""
    coordinates = np.abs(rows @ choose_active_set(rows).inverse)
    units = np.isclose(coordinates.max(axis=1), 1.0) & np.isclose(coordinates.sum(axis=1), 1.0)
    assert units.sum() == 8


@pytest.mark.parametrize('n_rows', [5, 40])
def test_what_the_environments_do_not_span_is_unknown_not_unseen(rows, n_rows):
    """Rows in a plane of three dimensions: along it gamma is at most 1, and off it gamma grows."""
    plane = rows[:3]
    inside = np.random.default_rng(2).normal(size=(n_rows, 3)) @ plane
    chosen = choose_active_set(inside, rank_tolerance=1e-10)
    assert chosen.rank == 3
    assert chosen.inverse.shape == (8, 8)
    assert gamma(inside, chosen).max() <= 1.001 + 1e-6
    size = np.sqrt(np.mean(inside**2, axis=0))
    off = np.linalg.svd(inside / size)[2][3:] * size
    assert np.all(gamma(off, chosen) > 0.99 / UNSEEN_SHARE / np.sqrt(8))


def test_functions_that_are_zero_everywhere_are_not_blind(rows):
    rows[:, 5] = 0.0
    chosen = choose_active_set(rows)
    assert chosen.rank == 7
    typical = np.median(np.sqrt(np.mean(np.delete(rows, 5, axis=1) ** 2, axis=0)))
    new = np.zeros(8)
    new[5] = UNSEEN_SHARE * typical
    assert gamma([new], chosen) == pytest.approx(1.0)


def test_environments_without_neighbours_are_no_set():
    with pytest.raises(OodalError, match='none of 4 environments has a neighbour within the cutoff'):
        choose_active_set(np.zeros((4, 3)))
    with pytest.raises(OodalError, match='none of 0 environments'):
        choose_active_set(np.zeros((0, 3)))
