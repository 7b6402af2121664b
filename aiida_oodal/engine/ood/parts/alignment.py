"""Bring the latents of independently trained models to one basis.

A rotation of one model's latents changes nothing that it predicts, so the seeds of an ensemble have unrelated bases.
Each model's latents are whitened on a reference set, and the whitened latents are rotated onto each other by
generalized orthogonal Procrustes (Gower, Psychometrika 40, 33 (1975)). Both follow from the joint covariance of all
models' latents, so the reference set is read once, in chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

FloatArray = NDArray[np.float64]

#: Rounds of generalized Procrustes, and the relative change of the consensus at which it has converged.
MAX_ROUNDS, TOLERANCE = 20, 1e-6
#: Directions whose agreement over the models is below this share of the largest are those in which the reference set
#: does not vary (dead channels, fewer environments than latents). Nothing says how to turn them: they are left out.
NULL_SHARE = 1e-9


class Moments:
    """Mean and scatter of rows that come in chunks (Chan, Golub and LeVeque, Am. Stat. 37, 242 (1983))."""

    def __init__(self, n_features: int) -> None:
        self.n = 0
        self.mean = np.zeros(n_features)
        self.scatter = np.zeros((n_features, n_features))

    def add(self, rows: FloatArray) -> None:
        """Take in rows, shape (n, n_features)."""
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centred = rows - mean
        step = mean - self.mean
        total = self.n + len(rows)
        self.scatter += centred.T @ centred + np.outer(step, step) * (self.n * len(rows) / total)
        self.mean += step * (len(rows) / total)
        self.n = total

    @property
    def covariance(self) -> FloatArray:
        """Covariance, divided by the number of rows, shape (n_features, n_features)."""
        return self.scatter / max(self.n, 1)


def shared_basis(moments: Moments, n_models: int) -> FloatArray:
    """Return how alike the raw latents of each pair of models are, shape (n_models, n_models).

    The correlation of all latents of two models, channel by channel. Models that were trained from different seeds have
    unrelated channels: below 0.25 on 3BPA and silicon. Files of one training, and models that were fine-tuned from the
    same weights, share their channels: near 1.

    :param moments: of rows of n_models * n_features numbers, model after model.
    """
    joint = moments.covariance.reshape(n_models, len(moments.mean) // n_models, n_models, -1)
    traces = np.einsum('kaja->kj', joint)
    norms = np.sqrt(np.maximum(np.diagonal(traces), np.finfo(float).tiny))
    result: FloatArray = traces / np.outer(norms, norms)
    return result


@dataclass(frozen=True, eq=False)
class Alignment:
    """Affine map of each model's latents to the common, whitened basis.

    :param means: of each model on the reference set, shape (n_models, n_features).
    :param maps: whitening times rotation, shape (n_models, n_features, n_features).
    """

    means: FloatArray
    maps: FloatArray

    @classmethod
    def fit(cls, moments: Moments, n_models: int, epsilon: float = 1e-2) -> Alignment:
        """Fit to the moments of all models' latents side by side.

        :param moments: of rows of n_models * n_features numbers, model after model.
        :param epsilon: added to the eigenvalues of each covariance, as a share of their mean, so that directions in
            which the reference set hardly varies are not blown up.
        :raises OodalError: if a model's latents do not vary.
        """
        means = moments.mean.reshape(n_models, -1)
        n_features = means.shape[1]
        joint = moments.covariance.reshape(n_models, n_features, n_models, n_features).transpose(0, 2, 1, 3)
        whitenings = np.stack([_whitening(joint[k, k], epsilon) for k in range(n_models)])
        # T_k^T T_j of the whitened latents T, over the number of atoms
        crosses = np.einsum('kab,kjbc,jcd->kjad', whitenings, joint, whitenings, optimize=True)
        return cls(means, whitenings @ _rotations(crosses))

    def apply(self, latents: FloatArray) -> FloatArray:
        """Return aligned latents.

        :param latents: shape (n_models, n, n_features).
        :return: same shape; each model's reference latents have mean 0 and variance of about 1 along every direction.
        """
        aligned: FloatArray = latents @ self.maps
        # Shifted afterwards and in place: one large copy less.
        aligned -= np.einsum('ka,kab->kb', self.means, self.maps)[:, None, :]
        return aligned


def mean_and_variance(latents: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean over models, and the variance over models averaged over latents.

    :param latents: x, shape (n_models, n, n_features); of aligned latents the mean is called the consensus.
    :return: shapes (n, n_features) and (n,): ``sum_k |x_k - mean|^2 / ((n_models - 1) n_features)``; NaN for one model.
    """
    n_models, n_atoms, n_features = latents.shape
    if n_models == 1:
        return latents[0], np.full(n_atoms, np.nan)
    mean: FloatArray = latents.mean(axis=0)
    squares = np.zeros(n_atoms)
    step = np.empty_like(mean)
    for rows in latents:  # one by one: the difference stays in the cache
        np.subtract(rows, mean, out=step)
        squares += np.einsum('na,na->n', step, step)
    return mean, squares / ((n_models - 1) * n_features)


def disagreement(aligned: FloatArray) -> FloatArray:
    """Return the standard deviation over models of aligned latents, in units of their spread over the reference set.

    :param aligned: shape (n_models, n, n_features).
    :return: shape (n,).
    :raises OodalError: if there is one model only.
    """
    if len(aligned) == 1:
        raise OodalError(
            'one model alone gives no disagreement: give two models or more, or take the score mahalanobis'
        )
    result: FloatArray = np.sqrt(mean_and_variance(aligned)[1])
    return result


def _whitening(covariance: FloatArray, epsilon: float) -> FloatArray:
    """Return the symmetric inverse square root of a covariance whose eigenvalues are raised a little."""
    values, vectors = np.linalg.eigh(covariance)
    floor = epsilon * values.mean()
    if not floor > 0.0:
        raise OodalError(
            'the latents of the reference set are the same for all atoms: take a reference set that varies'
        )
    result: FloatArray = (vectors / np.sqrt(np.maximum(values, 0.0) + floor)) @ vectors.T
    return result


def _rotations(crosses: FloatArray) -> FloatArray:
    """Rotate all models onto their mean.

    :param crosses: T_k^T T_j over the number of atoms, shape (n_models, n_models, n_features, n_features).
    :return: shape (n_models, n_features, n_features); not of full rank where the reference set does not vary.
    """
    n_models, n_features = len(crosses), crosses.shape[-1]
    towards = crosses[:, 0]  # T_k^T M, where M starts as the first model
    previous = np.zeros((n_models, n_features, n_features))
    for _ in range(MAX_ROUNDS):
        rotations = np.stack([_polar(target) for target in towards])
        # |M_new - M_old| from the covariances alone
        step = rotations - previous
        change = np.einsum('kab,kjac,jcb->', step, crosses, step, optimize=True)
        size = np.einsum('kab,kjac,jcb->', rotations, crosses, rotations, optimize=True)
        if change <= TOLERANCE**2 * size:
            break
        previous = rotations
        towards = np.einsum('kjab,jbc->kac', crosses, rotations, optimize=True) / n_models
    return rotations


def _polar(matrix: FloatArray) -> FloatArray:
    """Return the rotation nearest to a matrix, without the directions in which the matrix vanishes."""
    left, values, right = np.linalg.svd(matrix)
    kept = values > NULL_SHARE * values[0]
    result: FloatArray = left[:, kept] @ right[kept]
    return result
