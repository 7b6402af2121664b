"""Whitening and Procrustes: against a plain computation on the rows, and what they must not depend on."""

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.parts.alignment import Alignment, Moments, disagreement


def fit(latents: np.ndarray, epsilon: float = 1e-2) -> Alignment:
    moments = Moments(latents.shape[0] * latents.shape[2])
    for part in np.array_split(np.concatenate(latents, axis=1), 7):
        moments.add(part)
    return Alignment.fit(moments, len(latents), epsilon)


def plain_consensus(latents: np.ndarray, epsilon: float) -> np.ndarray:
    """Whiten and align the rows themselves; return aligned rows."""
    whitened = []
    for rows in latents:
        centred = rows - rows.mean(axis=0)
        values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
        whitened.append(centred @ vectors / np.sqrt(values + epsilon * values.mean()) @ vectors.T)
    target = whitened[0]
    for _ in range(20):
        aligned = []
        for rows in whitened:
            left, _, right = np.linalg.svd(rows.T @ target)
            aligned.append(rows @ left @ right)
        mean = np.mean(aligned, axis=0)
        if np.linalg.norm(mean - target) < 1e-6 * np.linalg.norm(target):
            break
        target = mean
    return np.stack(aligned)


def rotations(n: int, n_features: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.linalg.qr(rng.normal(size=(n_features, n_features)))[0] for _ in range(n)])


@pytest.fixture
def latents(real_arrays, real_atoms) -> np.ndarray:
    return real_arrays['latents'][:, real_atoms('train')].astype(np.float64)


def test_moments_of_chunks_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4)) + 1e6
    moments = Moments(4)
    for part in (rows[:1], rows[1:1], rows[1:30], rows[30:]):
        moments.add(part)
    assert moments.n == 50
    assert np.allclose(moments.mean, rows.mean(axis=0), rtol=1e-15)
    assert np.allclose(moments.covariance, np.cov(rows.T, bias=True), rtol=1e-8, atol=1e-9)


def test_covariances_are_enough_for_procrustes(latents: np.ndarray) -> None:
    aligned = fit(latents).apply(latents)
    plain = plain_consensus(latents, 1e-2)
    assert np.allclose(aligned, plain, atol=1e-8)
    expected = np.sqrt(np.var(plain, axis=0, ddof=1).mean(axis=1))
    assert np.allclose(disagreement(aligned), expected, rtol=1e-8)


def test_whitened_latents_have_unit_variance(latents: np.ndarray) -> None:
    aligned = fit(latents, 1e-8).apply(latents)
    assert np.abs(aligned.mean(axis=1)).max() < 1e-9
    for rows in aligned:
        assert np.allclose(np.linalg.eigvalsh(np.cov(rows.T, bias=True)), 1.0, atol=1e-3)


def test_rotating_models_changes_nothing(latents: np.ndarray) -> None:
    turned = latents @ rotations(4, latents.shape[2])
    before, after = fit(latents), fit(turned)
    assert np.abs(disagreement(before.apply(latents)) - disagreement(after.apply(turned))).max() < 1e-9


def test_copies_of_one_model_agree_however_they_are_turned(latents: np.ndarray) -> None:
    copies = np.stack([latents[0]] * 4)
    far = copies[:, :5] + 10.0
    assert disagreement(fit(copies).apply(far)).max() < 1e-10
    turned = rotations(4, latents.shape[2])
    assert disagreement(fit(copies @ turned).apply(far @ turned)).max() < 1e-8


def test_directions_without_variance_are_left_out(latents: np.ndarray) -> None:
    """Dead channels say nothing about how to turn models onto each other, in whatever basis they come."""
    dead = np.concatenate([latents[:, :, :20], np.ones((4, latents.shape[1], 3))], axis=2)
    turn = rotations(4, 23, seed=2)
    test = dead[:, :40].copy()
    test[:, :, 20:] += np.arange(4)[:, None, None]
    one = disagreement(fit(dead).apply(test))
    other = disagreement(fit(dead @ turn).apply(test @ turn))
    assert np.allclose(one, other, atol=1e-6)
    alive = disagreement(fit(latents[:, :, :20], 1e-2 * 20 / 23).apply(latents[:, :40, :20]))
    assert np.allclose(one, alive * np.sqrt(20 / 23), atol=1e-6)


def test_latents_that_do_not_vary_are_refused() -> None:
    with pytest.raises(OodalError, match='the same for all atoms'):
        fit(np.ones((2, 30, 4)))
