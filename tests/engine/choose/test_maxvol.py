"""MaxVol against its definition, and against pyace."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import require

from aiida_oodal.engine.choose.maxvol import maxvol_select
from aiida_oodal.engine.errors import OodalError


def volume(rows: np.ndarray) -> float:
    return float(np.linalg.slogdet(rows)[1])


def new_set(active: np.ndarray, candidates: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    """Return the largest set of all chosen candidates and of active rows, by brute force over those left out."""
    best = [
        np.vstack([np.delete(active, out, axis=0), candidates[list(chosen)]])
        for out in itertools.combinations(range(len(active)), len(chosen))
    ]
    return max(best, key=volume)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 12), st.floats(0.2, 4.0))
def test_nothing_is_left_that_would_enlarge_the_volume(seed: int, n: int, m: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    active, candidates = rng.normal(size=(n, n)), size * rng.normal(size=(m, n))
    choice = maxvol_select(np.linalg.inv(active), candidates, tol=1.001)
    rows = new_set(active, candidates, choice.indices)
    np.testing.assert_allclose(
        choice.gamma_before, np.abs(candidates @ np.linalg.inv(active)).max(axis=1, initial=0), rtol=1e-6
    )
    np.testing.assert_allclose(
        choice.gamma_after, np.abs(candidates @ np.linalg.inv(rows)).max(axis=1, initial=0), rtol=1e-6
    )
    assert choice.gamma_after.max(initial=0.0) <= 1.001 + 1e-9
    assert np.abs(active @ np.linalg.inv(rows)).max() <= 1.001 + 1e-9
    assert (choice.gamma > 1.001).all()
    assert volume(rows) >= volume(active) - 1e-9


def test_the_first_taken_is_the_one_with_the_largest_gamma() -> None:
    choice = maxvol_select(np.eye(3), np.array([[2.0, 0, 0], [0, 9.0, 0], [0.5, 0.5, 0.5], [0, 8.0, 1.5]]))
    assert choice.indices[0] == 1
    assert choice.gamma[0] == 9.0
    assert set(choice.indices) == {0, 1, 3}
    assert choice.gamma_after[2] <= 1.0


def test_a_candidate_that_a_later_one_makes_needless_leaves_again() -> None:
    # 0 enters first; 1 and 2 together span more without it
    candidates = np.array([[3.0, 2.9], [2.9, -2.9], [-2.0, 8.0]])
    rows = np.vstack([np.eye(2), candidates])
    best = max(itertools.combinations(range(5), 2), key=lambda pair: volume(rows[list(pair)]))
    assert set(maxvol_select(np.eye(2), candidates).indices) == {k - 2 for k in best}


@pytest.mark.parametrize('cap', [0, 1, 2, 5, 10])
def test_the_cap_holds_and_the_best_remain(cap: int) -> None:
    rng = np.random.default_rng(cap)
    active, candidates = rng.normal(size=(8, 8)), 3 * rng.normal(size=(40, 8))
    full = maxvol_select(np.linalg.inv(active), candidates)
    capped = maxvol_select(np.linalg.inv(active), candidates, max_select=cap)
    assert len(capped.indices) == min(cap, len(full.indices))
    rows = new_set(active, candidates, capped.indices)
    assert volume(rows) <= volume(new_set(active, candidates, full.indices)) + 1e-9
    if 0 < cap <= 2:  # at least as large as by the same number of random candidates
        random = [new_set(active, candidates, tuple(rng.choice(40, cap, replace=False))) for _ in range(200)]
        assert volume(rows) > np.quantile([volume(r) for r in random], 0.95)


def test_agrees_with_pyace_on_the_volume_and_on_clear_cases() -> None:
    require('pyace')
    from pyace.maxvol import maxvol

    for seed in range(10):
        rng = np.random.default_rng(seed)
        n, m = 30, 200
        active, candidates = rng.normal(size=(n, n)), rng.normal(size=(m, n)) * rng.choice([0.1, 5.0], (m, 1))
        rows = np.vstack([active, candidates])
        theirs = np.asarray(maxvol(rows, tol=1.001, max_iters=1000)[0])
        choice = maxvol_select(np.linalg.inv(active), candidates, tol=1.001)
        # Both end in a local maximum: no single swap helps. The volumes are alike, and no candidate is outside either.
        assert np.abs(rows @ np.linalg.inv(rows[theirs])).max() <= 1.001 + 1e-6
        assert choice.gamma_after.max() <= 1.001 + 1e-6
        assert len(choice.indices) == n == np.count_nonzero(theirs >= n)
        assert abs(volume(candidates[list(choice.indices)]) - volume(rows[theirs])) < 0.1 * n
    # One candidate far out in each of some directions: there is one answer.
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    candidates = np.vstack(
        [20.0 * basis[:7] + 0.01 * rng.normal(size=(7, 30)), 0.5 * rng.normal(size=(50, 30)) / 30**0.5]
    )
    rows = np.vstack([basis, candidates])
    theirs = np.asarray(maxvol(rows, tol=1.001, max_iters=1000)[0])
    choice = maxvol_select(np.linalg.inv(basis), candidates, tol=1.001)
    assert set(choice.indices) == set(range(7)) == set((theirs[theirs >= 30] - 30).tolist())


@pytest.mark.parametrize(
    ('inverse', 'candidates', 'options', 'message'),
    [
        (np.eye(3), np.ones((2, 4)), {}, r'shape \(3, 3\) and the candidates \(2, 4\)'),
        (np.ones((3, 2)), np.ones((2, 3)), {}, r'shape \(3, 2\)'),
        (np.eye(3), np.full((2, 3), np.nan), {}, 'not finite'),
        (np.eye(3), np.ones((2, 3)), {'tol': 0.9}, 'tol is 0.9'),
    ],
)
def test_bad_input_is_a_clear_error(inverse: np.ndarray, candidates: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(OodalError, match=message):
        maxvol_select(inverse, candidates, **options)
