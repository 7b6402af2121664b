"""How densely the reference set fills the aligned consensus: Gaussian mixture and nearest neighbours of each element.

Both work in the leading principal components of the consensus, where distance means something and search is cheap.
What lies outside of them is not forgotten: it enters the density as a Gaussian (Tipping and Bishop, J. R. Stat. Soc. B
61, 611 (1999)) and the distance by Pythagoras.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import Chunk, EnsembleLatents

from .alignment import Moments

if TYPE_CHECKING:
    from aiida_oodal.engine.ood.fitting import FitOptions

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Smallest variance of a principal component or of the rest; aligned latents have variance of about 1.
FLOOR = 1e-6
#: Added to the variances of a mixture component whose coordinates have variance 1.
RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Subspace:
    """Leading principal components of the consensus of each element.

    :param elements: atomic numbers, ascending, shape (n_elements,).
    :param means: shape (n_elements, n_features).
    :param axes: orthonormal, shape (n_elements, n_features, n_components).
    :param spreads: standard deviation along each axis, shape (n_elements, n_components).
    :param rests: variance along any direction outside, shape (n_elements,).
    """

    elements: IntArray
    means: FloatArray
    axes: FloatArray
    spreads: FloatArray
    rests: FloatArray

    @classmethod
    def fit(cls, moments: Mapping[int, Moments], n_components: int) -> Subspace:
        """Fit to the moments of the consensus of each element."""
        elements = sorted(moments)
        decomposed = [np.linalg.eigh(moments[z].covariance) for z in elements]
        n_features = len(decomposed[0][0])
        kept = min(n_components, n_features)
        values = np.array([value[::-1] for value, _ in decomposed])
        return cls(
            elements=np.array(elements, dtype=np.int64),
            means=np.array([moments[z].mean for z in elements]),
            axes=np.array([vectors[:, ::-1][:, :kept] for _, vectors in decomposed]),
            spreads=np.sqrt(np.maximum(values[:, :kept], FLOOR)),
            rests=np.maximum(values[:, kept:].sum(axis=1) / max(n_features - kept, 1), FLOOR),
        )

    def project(self, index: int, consensus: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return coordinates (n, n_components) in an element's subspace and squared distances (n,) from it."""
        centred = consensus - self.means[index]
        coordinates = centred @ self.axes[index]
        outside = np.einsum('na,na->n', centred, centred) - np.einsum('na,na->n', coordinates, coordinates)
        return coordinates, np.maximum(outside, 0.0)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussian mixture of each element in its subspace; elements with fewer components have some of weight 0.

    :param log_weights: shape (n_elements, n_gaussians).
    :param means: coordinates over the spread of each axis, shape (n_elements, n_gaussians, n_components).
    :param factors: F with F F^T the inverse covariance, shape (n_elements, n_gaussians, n_components, n_components).
    """

    log_weights: FloatArray
    means: FloatArray
    factors: FloatArray

    @classmethod
    def fit(cls, samples: list[FloatArray], n_gaussians: int, seed: int) -> Mixture:
        """Fit to coordinates over spreads, one array (n, n_components) an element.

        :raises OodalError: if scikit-learn is missing.
        """
        try:
            from sklearn.mixture import GaussianMixture
        except ImportError as error:
            raise OodalError(
                "the module sklearn is missing: install scikit-learn, or leave 'gmm' out of the metrics"
            ) from error
        n_components = samples[0].shape[1]
        log_weights = np.full((len(samples), n_gaussians), -np.inf)
        means = np.zeros((len(samples), n_gaussians, n_components))
        factors = np.tile(np.eye(n_components), (len(samples), n_gaussians, 1, 1))
        for i, sample in enumerate(samples):
            # A Gaussian with fewer atoms than that fits single atoms, not a density.
            count = int(np.clip(len(sample) // (5 * n_components), 1, n_gaussians))
            fitted = GaussianMixture(count, reg_covar=RIDGE, random_state=seed, max_iter=500, tol=1e-3).fit(sample)
            log_weights[i, :count] = np.log(fitted.weights_)
            means[i, :count] = fitted.means_
            factors[i, :count] = fitted.precisions_cholesky_
        return cls(log_weights, means, factors)

    def __call__(self, subspace: Subspace, numbers: IntArray, consensus: FloatArray) -> FloatArray:
        """Return the negative log-likelihood of each atom over the number of latents, shape (n,).

        :param consensus: aligned, shape (n, n_features).
        """
        result = np.full(len(numbers), np.inf)
        n_features, n_components = subspace.axes.shape[1:]
        for i, z in enumerate(subspace.elements):
            atoms = np.flatnonzero(numbers == z)
            if not len(atoms):
                continue
            coordinates, outside = subspace.project(i, consensus[atoms])
            scaled = coordinates / subspace.spreads[i]
            terms = np.empty((self.log_weights.shape[1], len(atoms)))
            for g, (mean, factor) in enumerate(zip(self.means[i], self.factors[i], strict=True)):
                standard = (scaled - mean) @ factor
                terms[g] = np.log(np.diagonal(factor)).sum() - 0.5 * np.einsum('na,na->n', standard, standard)
            inside = logsumexp(terms + self.log_weights[i][:, None], axis=0) - np.log(subspace.spreads[i]).sum()
            variance = subspace.rests[i]
            rest = outside / variance + (n_features - n_components) * np.log(variance)
            result[atoms] = (0.5 * (rest + n_features * np.log(2.0 * np.pi)) - inside) / n_features
        return result


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Reference atoms of each element in its subspace.

    :param points: coordinates, element after element, shape (n_points, n_components).
    :param offsets: first point of each element, shape (n_elements + 1,).
    :param count: neighbours whose mean distance is taken, shape ().
    """

    points: FloatArray
    offsets: IntArray
    count: IntArray
    _trees: dict[int, cKDTree] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def fit(cls, samples: list[FloatArray], count: int) -> Neighbours:
        """Keep the coordinates of a sample of each element, shape (n, n_components)."""
        offsets = np.cumsum([0, *(len(sample) for sample in samples)]).astype(np.int64)
        return cls(np.concatenate(samples), offsets, np.array(count, dtype=np.int64))

    def __call__(self, subspace: Subspace, numbers: IntArray, consensus: FloatArray) -> FloatArray:
        """Return the distance of each atom from its nearest reference atoms, in units of the spread of one latent.

        :param consensus: aligned, shape (n, n_features).
        :return: root mean square over the neighbours, divided by the root of n_features, shape (n,).
        """
        result = np.full(len(numbers), np.inf)
        n_features = subspace.axes.shape[1]
        for i, z in enumerate(subspace.elements):
            atoms = np.flatnonzero(numbers == z)
            if not len(atoms):
                continue
            coordinates, outside = subspace.project(i, consensus[atoms])
            tree = self._tree(i)
            distances, _ = tree.query(coordinates, k=np.arange(1, min(int(self.count), tree.n) + 1))
            result[atoms] = np.sqrt(((distances**2).mean(axis=1) + outside) / n_features)
        return result

    def _tree(self, index: int) -> cKDTree:
        """Build an element's search tree when it is first asked for."""
        if index not in self._trees:
            self._trees[index] = cKDTree(self.points[self.offsets[index] : self.offsets[index + 1]], leafsize=64)
        return self._trees[index]


class DensityFit:
    """Fit the parts ``subspace`` and, as far as they are asked for, ``mixture`` (gmm) and ``neighbours`` (knn).

    The sample of atoms is chosen before anything is read, so that it does not depend on the chunks.
    """

    LOOKS = 2

    def __init__(self, latents: EnsembleLatents, options: FitOptions) -> None:
        self._options = options
        elements = np.unique(latents.numbers).tolist()
        rng = np.random.default_rng(options.seed)
        self._sampled = np.zeros(latents.n_atoms, dtype=bool)
        for z in elements:
            atoms = np.flatnonzero(latents.numbers == z)
            self._sampled[rng.choice(atoms, min(len(atoms), options.sample_atoms), replace=False)] = True
        self._moments = {z: Moments(latents.n_features) for z in elements}
        self._samples: dict[int, list[FloatArray]] = {z: [] for z in elements}

    def look(self, chunk: Chunk) -> None:
        """Take nothing before the models are aligned."""

    def look_again(self, chunk: Chunk, consensus: FloatArray) -> None:
        """Take in the moments of the consensus of each element, and the sampled atoms."""
        for z, moments in self._moments.items():
            atoms = np.flatnonzero(chunk.numbers == z)
            moments.add(consensus[atoms])
            self._samples[z].append(consensus[atoms[self._sampled[chunk.atoms][atoms]]])

    def finish(self) -> dict[str, Any]:
        """Return the parts."""
        options, metrics = self._options, self._options.metrics or ()
        subspace = Subspace.fit(self._moments, options.subspace)
        samples = [np.concatenate(self._samples[int(z)]) for z in subspace.elements]
        projected = [subspace.project(i, sample)[0] for i, sample in enumerate(samples)]
        parts: dict[str, Any] = {'subspace': subspace}
        if 'gmm' in metrics:
            scaled = [points / spread for points, spread in zip(projected, subspace.spreads, strict=True)]
            parts['mixture'] = Mixture.fit(scaled, options.mixture, options.seed)
        if 'knn' in metrics:
            parts['neighbours'] = Neighbours.fit(projected, options.neighbours)
        return parts
