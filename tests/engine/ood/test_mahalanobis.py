"""Mahalanobis distance: the covariance of Ledoit and Wolf, and its use."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from aiida_oodal.engine.ood.parts.alignment import Moments
from aiida_oodal.engine.ood.parts.mahalanobis import Mahalanobis, ledoit_wolf


def moments_of(rows: np.ndarray) -> tuple[Moments, float]:
    moments = Moments(rows.shape[1])
    moments.add(rows)
    return moments, float(np.mean(np.sum((rows - rows.mean(axis=0)) ** 2, axis=1) ** 2))


@pytest.mark.parametrize('n', [8, 40, 1000])
def test_shrinkage_is_that_of_sklearn(n: int) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 6)) @ np.diag([3, 1, 1, 0.5, 0.1, 0.1]) + 5.0
    moments, fourth = moments_of(rows)
    ours = ledoit_wolf(moments.covariance, fourth, n)
    theirs = LedoitWolf().fit(rows)
    assert np.allclose(ours, theirs.covariance_, rtol=1e-10, atol=1e-12)


def test_distance_is_the_mean_over_models_within_the_element() -> None:
    rng = np.random.default_rng(0)
    rows = {z: [rng.normal(size=(200, 3)) * (z + k) for k in range(2)] for z in (1, 8)}
    moments = {z: [moments_of(r)[0] for r in models] for z, models in rows.items()}
    fourth = {z: np.array([moments_of(r)[1] for r in models]) for z, models in rows.items()}
    fitted = Mahalanobis.fit(moments, fourth, np.ones(2))
    numbers, latents = np.array([8, 1, 8, 6]), rng.normal(size=(2, 4, 3)) * 5
    found = fitted(numbers, latents)
    for i, z in enumerate(numbers[:3]):
        expected = []
        for k in range(2):
            step = latents[k, i] - rows[z][k].mean(axis=0)
            matrix = ledoit_wolf(moments[z][k].covariance, fourth[z][k], 200)
            expected.append(np.sqrt(step @ np.linalg.solve(matrix, step)))
        assert found[i] == pytest.approx(np.mean(expected), rel=1e-10)
    assert found[3] == np.inf


def test_a_perfect_crystal_has_a_finite_distance() -> None:
    same = np.tile([1.0, 2.0, 3.0], (20, 1))
    moments, fourth = moments_of(same)
    fitted = Mahalanobis.fit({14: [moments, moments]}, {14: np.full(2, fourth)}, np.ones(2))
    found = fitted(np.array([14, 14]), np.stack([same[:2], same[:2]]) + np.array([[0.0], [0.1]]))
    assert np.allclose(found, [0.0, np.sqrt(0.03) / 1e-3])
