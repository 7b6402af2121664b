"""Maps of latent space: structures in two dimensions, the density of a set on them, regions to choose from."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_oodal.engine.errors import OodalError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Method = Literal['pca', 'tsne', 'umap']

#: Contours enclose these shares of the structures that a density was fitted to.
CONTOUR_SHARES = (0.5, 0.9, 0.99)
#: t-SNE and UMAP look at so many principal components: the rest is noise, and time.
_COMPONENTS_BEFORE = 50
#: Margin around the points of a map, as a share of its width.
_MARGIN = 0.08


@dataclass(frozen=True, eq=False)
class LatentMap:
    """Points of latent space in two dimensions.

    :param method: ``pca``, ``tsne`` or ``umap``.
    :param coordinates: shape (n, 2). Only PCA's have a meaning: distances in latent space, never larger than the true
        ones. t-SNE and UMAP keep neighbours together; distances and sizes of groups mean nothing.
    :param axes: what to write at the two axes.
    """

    method: Method
    coordinates: FloatArray
    axes: tuple[str, str]


@dataclass(frozen=True, eq=False)
class Grid:
    """Points at which a map is filled: ``x`` (n_x,) and ``y`` (n_y,), ascending."""

    x: FloatArray
    y: FloatArray

    @classmethod
    def around(cls, coordinates: FloatArray, n: int = 80) -> Grid:
        """Cover points of shape (m, 2), and a margin, with n x n points."""
        low, high = coordinates.min(axis=0), coordinates.max(axis=0)
        margin = _MARGIN * np.where(high > low, high - low, 1.0)
        return cls(*(np.linspace(a, b, n) for a, b in zip(low - margin, high + margin, strict=True)))

    @property
    def points(self) -> FloatArray:
        """All points row by row, shape (n_y * n_x, 2)."""
        x, y = np.meshgrid(self.x, self.y)
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def fill(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give values at :attr:`points` the shape (n_y, n_x)."""
        return values.reshape(len(self.y), len(self.x))


@dataclass(frozen=True, eq=False)
class Density:
    """Logarithm of the density of a set on a map, by a Gaussian mixture.

    :param grid: where it is known.
    :param log_density: shape (n_y, n_x), natural logarithm, per area of the map.
    :param levels: of the contours that enclose :data:`CONTOUR_SHARES` of the set, shape (3,), falling.
    :param n_components: Gaussians, chosen by the Bayesian information criterion.
    :param bic: the criterion for 1, 2, ... Gaussians (smaller is better); infinite where the fit did not converge.
    """

    grid: Grid
    log_density: FloatArray
    levels: FloatArray
    n_components: int
    bic: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Regions:
    """K-means regions of a map.

    :param grid: where they are drawn.
    :param filled: region at each point of the grid, shape (n_y, n_x).
    :param labels: region of each point of the map, shape (n,).
    :param centres: shape (n_regions, 2); regions are numbered from the left to the right.
    """

    grid: Grid
    filled: IntArray
    labels: IntArray
    centres: FloatArray


def methods() -> tuple[Method, ...]:
    """Return the kinds of map that can be made here: UMAP only where umap-learn is installed."""
    known: tuple[Method, ...] = get_args(Method)
    try:
        importlib.metadata.distribution('umap-learn')  # not the module: another package has the same name
    except importlib.metadata.PackageNotFoundError:
        return known[:-1]
    return known


def sample_sets(
    sizes: Sequence[int], n: int, *, keep: Sequence[ArrayLike] | None = None, seed: int = 0
) -> list[IntArray]:
    """Choose some members of each set, so that a small set is not lost among large ones.

    Every set gives the same number, or all it has; what small sets leave free goes to the larger ones.

    :param sizes: of each set.
    :param n: members to take of all sets together.
    :param keep: members of each set to take first.
    :param seed: the same seed gives the same choice.
    :return: for each set the chosen members, ascending; all members if they are no more than ``n``.
    """
    shares = _fair_shares(sizes, n)
    chosen = []
    for number, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        first = np.unique(np.asarray(keep[number] if keep else [], dtype=np.int64))[:share]
        others = np.setdiff1d(np.arange(size), first)
        drawn = np.random.default_rng([seed, number]).permutation(others)[: share - len(first)]
        chosen.append(np.sort(np.concatenate([first, drawn])))
    return chosen


def fit_map(points: ArrayLike, method: Method = 'pca', *, seed: int = 0, perplexity: float = 30.0) -> LatentMap:
    """Lay points of latent space out in two dimensions; fit once on all sets that are to be compared.

    :param points: shape (n, n_features), e.g. the aligned consensus of structures
        (:meth:`~aiida_oodal.engine.ood.reference.OodReference.structure_consensus`).
    :param method: ``pca``; ``tsne`` (van der Maaten and Hinton, JMLR 9, 2579 (2008)) or ``umap`` (McInnes et al.,
        arXiv:1802.03426), both begun from PCA.
    :param seed: of t-SNE and UMAP.
    :param perplexity: neighbours that t-SNE and UMAP look at; fewer where there are few points.
    :raises OodalError: if there are fewer than four points or two features, values are not finite, or a library is
        missing.
    """
    values = _finite(points, 'points')
    if len(values) < 4 or values.shape[1] < 2:
        raise OodalError(f'a map needs four points with two features or more, got shape {values.shape}')
    if method not in get_args(Method):
        raise OodalError(f'{method!r} is not a kind of map; there are {", ".join(get_args(Method))}')
    pca = _sklearn('sklearn.decomposition').PCA(
        n_components=min(_COMPONENTS_BEFORE, *values.shape) if method != 'pca' else 2, svd_solver='full'
    )
    with np.errstate(invalid='ignore'):  # 0 / 0, the share of a variance when all points are one
        reduced = pca.fit_transform(values)
    if method == 'pca':
        share = np.nan_to_num(pca.explained_variance_ratio_)
        axes = (f'PC 1 ({share[0]:.0%} of the variance)', f'PC 2 ({share[1]:.0%})')
        return LatentMap(method, reduced, axes)
    # Further neighbours than a third of the points are no neighbours; scikit-learn demands fewer than there are points.
    neighbours = min(perplexity, (len(values) - 1) / 3.0)
    if method == 'tsne':
        model = _sklearn('sklearn.manifold').TSNE(perplexity=neighbours, init='pca', random_state=seed, n_jobs=1)
        return LatentMap(method, model.fit_transform(reduced).astype(np.float64), ('t-SNE 1', 't-SNE 2'))
    return LatentMap(method, _umap(reduced, max(2, round(neighbours)), seed), ('UMAP 1', 'UMAP 2'))


def fit_density(
    coordinates: ArrayLike, grid: Grid, *, max_components: int = 8, min_points: int = 10, seed: int = 0
) -> Density:
    """Fit a Gaussian mixture to points of a map; the Bayesian information criterion chooses how many Gaussians.

    :param coordinates: of the set whose density is wanted, shape (n, 2).
    :param grid: where to compute it.
    :param max_components: Gaussians at most.
    :param min_points: points for each Gaussian at least, so that none sits on a single point.
    :param seed: of the start.
    :raises OodalError: if there are fewer than three points.
    """
    points = _finite(coordinates, 'coordinates')
    if len(points) < 3:
        raise OodalError(f'{len(points)} points have no density: three or more are needed')
    # scikit-learn adds 1e-6 to variances, whatever the unit of the map is.
    centre, width = points.mean(axis=0), np.maximum(points.std(axis=0), 1e-12)
    scaled = (points - centre) / width
    mixture = _sklearn('sklearn.mixture').GaussianMixture
    unfit = _sklearn('sklearn.exceptions').ConvergenceWarning
    fits = []
    for n_components in range(1, max(1, min(max_components, len(points) // min_points)) + 1):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', unfit)  # such a fit is left out below
            fits.append(mixture(n_components, max_iter=300, random_state=seed).fit(scaled))
    bic = [float(fit.bic(scaled)) if fit.converged_ else np.inf for fit in fits]
    best = fits[int(np.argmin(bic))]
    log_width = float(np.log(width).sum())
    log_density = best.score_samples((grid.points - centre) / width) - log_width
    levels = np.quantile(best.score_samples(scaled) - log_width, [1.0 - share for share in CONTOUR_SHARES])
    return Density(grid, grid.fill(log_density), levels, best.n_components, tuple(bic))


def find_regions(coordinates: ArrayLike, grid: Grid, n_regions: int = 8, *, seed: int = 0) -> Regions:
    """Divide a map into regions by K-means; structures from different regions are different structures.

    :param coordinates: shape (n, 2).
    :param grid: where to draw the regions.
    :param n_regions: how many; fewer where there are fewer points.
    :param seed: of the clustering.
    """
    points = _finite(coordinates, 'coordinates')
    distinct = np.unique(points, axis=0)
    if len(distinct) <= n_regions:
        centres = distinct
    else:
        kmeans = _sklearn('sklearn.cluster').KMeans(n_clusters=n_regions, n_init=10, random_state=seed)
        centres = kmeans.fit(points).cluster_centers_
    centres = centres[np.lexsort(centres.T[::-1])]
    return Regions(grid, grid.fill(_nearest(grid.points, centres)), _nearest(points, centres), centres)


def _fair_shares(sizes: Sequence[int], n: int) -> list[int]:
    """Divide n among sets, the smallest first: none gets more than it has, none less than a larger one."""
    shares = [0] * len(sizes)
    left = n
    for done, number in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        shares[number] = min(sizes[number], left // (len(sizes) - done))
        left -= shares[number]
    return shares


def _umap(points: FloatArray, n_neighbors: int, seed: int) -> FloatArray:
    try:
        umap = importlib.import_module('umap.umap_')
    except ImportError as error:
        raise OodalError(
            'a UMAP needs umap-learn, which is not installed: pip install umap-learn, or take t-SNE'
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that a seed means one thread, and what numba has to say
        model = umap.UMAP(n_neighbors=n_neighbors, random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(points), dtype=np.float64)


def _nearest(points: FloatArray, centres: FloatArray) -> IntArray:
    """Return the nearest centre of each point, shape (n,)."""
    result: IntArray = np.argmin(((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2), axis=1)
    return result


def _finite(values: ArrayLike, name: str) -> FloatArray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise OodalError(f'the {name} have shape {matrix.shape} or are not finite; finite rows are needed')
    return matrix


def _sklearn(module: str) -> Any:
    """Import a part of scikit-learn, or say what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise OodalError('maps of latent space need scikit-learn: pip install scikit-learn') from error
