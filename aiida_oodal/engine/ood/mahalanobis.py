"""Distance from the reference set in the metric of its own covariance, element by element and model by model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.ood.alignment import Moments

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Smallest variance along any direction, as a share of the mean variance of the model's latents: a perfect crystal has
#: no spread within an element, and rounding would be far away.
FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """Gaussian of each element under each model, with the covariance of Ledoit and Wolf.

    O. Ledoit and M. Wolf, J. Multivar. Anal. 88, 365 (2004).

    :param elements: atomic numbers, ascending, shape (n_elements,).
    :param means: shape (n_elements, n_models, n_features).
    :param factors: F with F F^T the inverse covariance, shape (n_elements, n_models, n_features, n_features).
    """

    elements: IntArray
    means: FloatArray
    factors: FloatArray

    @classmethod
    def fit(
        cls, moments: Mapping[int, list[Moments]], fourth: Mapping[int, FloatArray], variances: FloatArray
    ) -> Mahalanobis:
        """Fit to moments of the reference set.

        :param moments: for each element, those of each model's latents.
        :param fourth: for each element, mean of |z - mean|^4 under each model, shape (n_models,).
        :param variances: mean variance of each model's latents over all elements, shape (n_models,).
        """
        elements = sorted(moments)
        factors = [
            [
                _inverse_root(ledoit_wolf(m.covariance, q, m.n), FLOOR * v)
                for m, q, v in zip(moments[z], fourth[z], variances, strict=True)
            ]
            for z in elements
        ]
        means = [[m.mean for m in moments[z]] for z in elements]
        return cls(np.array(elements, dtype=np.int64), np.array(means), np.array(factors))

    def __call__(self, numbers: IntArray, latents: FloatArray) -> FloatArray:
        """Return the distance, mean over models, shape (n,); infinite for elements that the reference set lacks.

        :param numbers: shape (n,).
        :param latents: not aligned, shape (n_models, n, n_features).
        """
        result = np.full(len(numbers), np.inf)
        for i, z in enumerate(self.elements):
            atoms = np.flatnonzero(numbers == z)
            if not len(atoms):
                continue
            total = np.zeros(len(atoms))
            for values, mean, factor in zip(latents, self.means[i], self.factors[i], strict=True):
                scaled = values[atoms] @ factor
                scaled -= mean @ factor
                total += np.sqrt(np.einsum('na,na->n', scaled, scaled))
            result[atoms] = total / len(latents)
        return result


def ledoit_wolf(covariance: FloatArray, fourth: float, n: int) -> FloatArray:
    """Shrink a covariance towards a multiple of the identity, by as much as its estimated error.

    :param covariance: divided by n, shape (n_features, n_features).
    :param fourth: mean of |x|^4 of the n centred rows.
    :param n: number of rows.
    :return: same shape.
    """
    width = len(covariance)
    scale = np.trace(covariance) / width
    spread = float(np.sum((covariance - scale * np.eye(width)) ** 2))
    error = max((fourth - float(np.sum(covariance**2))) / n, 0.0)
    shrinkage = min(error / spread, 1.0) if spread > 0.0 else 1.0
    result: FloatArray = (1.0 - shrinkage) * covariance + shrinkage * scale * np.eye(width)
    return result


def _inverse_root(covariance: FloatArray, floor: float) -> FloatArray:
    values, vectors = np.linalg.eigh(covariance)
    result: FloatArray = vectors / np.sqrt(np.maximum(values, floor))
    return result
