"""Mixture and neighbours in the subspace of each element."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from aiida_oodal.engine.ood.parts.alignment import Moments
from aiida_oodal.engine.ood.parts.density import Mixture, Neighbours, Subspace

NUMBERS = np.repeat([6, 8], [300, 200])


@pytest.fixture
def consensus() -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = (
        rng.normal(size=(500, 6)) @ np.diag([3.0, 2.0, 1.0, 0.1, 0.1, 0.1]) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    )
    rows[NUMBERS == 8] += 4.0
    return rows


@pytest.fixture
def subspace(consensus: np.ndarray) -> Subspace:
    moments = {}
    for z in (6, 8):
        moments[z] = Moments(6)
        moments[z].add(consensus[z == NUMBERS])
    return Subspace.fit(moments, 3)


def samples(subspace: Subspace, consensus: np.ndarray) -> list[np.ndarray]:
    return [subspace.project(i, consensus[z == NUMBERS])[0] for i, z in enumerate((6, 8))]


def test_subspace_holds_the_leading_variance(subspace: Subspace, consensus: np.ndarray) -> None:
    for i, z in enumerate((6, 8)):
        rows = consensus[z == NUMBERS]
        coordinates, outside = subspace.project(i, rows)
        assert np.allclose(coordinates.std(axis=0), subspace.spreads[i])
        assert np.mean(outside) / 3 == pytest.approx(subspace.rests[i])
        whole = np.sum((rows - rows.mean(axis=0)) ** 2, axis=1)
        assert np.allclose(np.sum(coordinates**2, axis=1) + outside, whole)


def test_one_gaussian_is_the_density_of_a_gaussian(subspace: Subspace, consensus: np.ndarray) -> None:
    """With one component the mixture is the whole covariance, but for the ridge and the round part outside."""
    scaled = [s / spread for s, spread in zip(samples(subspace, consensus), subspace.spreads, strict=True)]
    found = Mixture.fit(scaled, 1, seed=0)(subspace, NUMBERS, consensus)
    for i, z in enumerate((6, 8)):
        rows = consensus[z == NUMBERS]
        axes = subspace.axes[i]
        inside = axes @ np.diag(1.001 * subspace.spreads[i] ** 2) @ axes.T
        covariance = inside + subspace.rests[i] * (np.eye(6) - axes @ axes.T)
        expected = -multivariate_normal(rows.mean(axis=0), covariance).logpdf(rows) / 6
        assert np.allclose(found[z == NUMBERS], expected, rtol=1e-9)


def test_a_mixture_sees_groups(subspace: Subspace, consensus: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    groups = [np.concatenate([rng.normal(size=(200, 3)) * 0.1 - 1, rng.normal(size=(200, 3)) * 0.1 + 1])] * 2
    fitted = Mixture.fit(groups, 8, seed=0)
    assert np.allclose(np.exp(fitted.log_weights).sum(axis=1), 1.0)
    middle = subspace.means[[0]]
    inside = middle + (subspace.axes[0] @ subspace.spreads[0])[None]
    low, high = (fitted(subspace, np.array([6]), rows)[0] for rows in (inside, middle))
    assert high > low + 1.0
    # few atoms: fewer Gaussians, the others have no weight
    few = Mixture.fit([groups[0][:40], groups[0]], 8, seed=0)
    assert np.isfinite(few.log_weights).sum(axis=1).tolist() == [2, 8]


def test_neighbours_are_those_of_all_pairs(subspace: Subspace, consensus: np.ndarray) -> None:
    fitted = Neighbours.fit(samples(subspace, consensus), 4)
    rng = np.random.default_rng(2)
    points = consensus[::50] + rng.normal(size=(10, 6))
    numbers = NUMBERS[::50]
    found = fitted(subspace, numbers, points)
    for i, z in enumerate((6, 8)):
        coordinates, outside = subspace.project(i, points[numbers == z])
        pairs = np.sum((coordinates[:, None] - samples(subspace, consensus)[i][None]) ** 2, axis=2)
        expected = np.sqrt((np.sort(pairs, axis=1)[:, :4].mean(axis=1) + outside) / 6)
        assert np.allclose(found[numbers == z], expected)


def test_leaving_the_subspace_is_being_far(subspace: Subspace, consensus: np.ndarray) -> None:
    fitted = Neighbours.fit(samples(subspace, consensus), 4)
    away = np.linalg.svd(subspace.axes[0].T)[2][-1]  # normal to the subspace
    distances = [fitted(subspace, np.array([6]), consensus[:1] + step * away)[0] for step in (0.0, 1.0, 10.0)]
    assert np.all(np.diff(distances) > 0.1)
    assert distances[2] == pytest.approx(10 / np.sqrt(6), rel=0.05)


def test_elements_without_reference_are_infinitely_far(subspace: Subspace, consensus: np.ndarray) -> None:
    fitted = Neighbours.fit([s[:2] for s in samples(subspace, consensus)], 5)  # fewer points than neighbours
    found = fitted(subspace, np.array([14, 6]), consensus[:2])
    assert found[0] == np.inf
    assert np.isfinite(found[1])
