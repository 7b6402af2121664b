"""Distance from the reference set in the metric of its own covariance, element by element and model by model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.ood.ensemble import Chunk, EnsembleLatents

from .alignment import Moments

if TYPE_CHECKING:
    from aiida_oodal.engine.ood.fitting import FitOptions

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
        :param fourth: for each element, mean of ``|z - mean|^4`` under each model, shape (n_models,).
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


class MahalanobisFit:
    """Fit :class:`Mahalanobis` in two passes: means and covariances first, then fourth moments about the means."""

    LOOKS = 2

    def __init__(self, latents: EnsembleLatents, options: FitOptions) -> None:
        elements = np.unique(latents.numbers).tolist()
        self._moments = {z: [Moments(latents.n_features) for _ in range(latents.n_models)] for z in elements}
        self._fourth = {z: np.zeros(latents.n_models) for z in elements}

    def look(self, chunk: Chunk) -> None:
        """Take in the moments of each element under each model."""
        for z, moments in self._moments.items():
            atoms = np.flatnonzero(chunk.numbers == z)
            for own, latents in zip(moments, chunk.latents, strict=True):
                own.add(latents[atoms])

    def look_again(self, chunk: Chunk, consensus: FloatArray) -> None:
        """Take in the mean of ``|z - mean|^4`` of each element under each model."""
        for z, moments in self._moments.items():
            atoms = np.flatnonzero(chunk.numbers == z)
            for k, (own, latents) in enumerate(zip(moments, chunk.latents, strict=True)):
                centred = latents[atoms] - own.mean
                self._fourth[z][k] += np.sum(np.einsum('na,na->n', centred, centred) ** 2) / own.n

    def finish(self) -> dict[str, Any]:
        """Return the part ``mahalanobis``."""
        return {'mahalanobis': Mahalanobis.fit(self._moments, self._fourth, self._variances())}

    def _variances(self) -> FloatArray:
        """Return the mean variance of each model's latents over all elements, shape (n_models,)."""
        counts = np.array([moments[0].n for moments in self._moments.values()], dtype=np.float64)
        means = np.array([[own.mean for own in moments] for moments in self._moments.values()])
        within = np.array([[np.trace(own.scatter) for own in moments] for moments in self._moments.values()])
        centre = np.einsum('z,zka->ka', counts, means) / counts.sum()
        between = counts @ ((means - centre) ** 2).sum(axis=2)
        result: FloatArray = (within.sum(axis=0) + between) / (counts.sum() * means.shape[2])
        return result


def ledoit_wolf(covariance: FloatArray, fourth: float, n: int) -> FloatArray:
    """Shrink a covariance towards a multiple of the identity, by as much as its estimated error.

    :param covariance: divided by n, shape (n_features, n_features).
    :param fourth: mean of ``|x|^4`` of the n centred rows.
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
