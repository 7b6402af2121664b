"""Choice by distance between descriptors: near-duplicates, farthest points, K-means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import FloatArray


@dataclass(frozen=True)
class Duplicate:
    """A descriptor that is close to one that comes before it.

    :param of: index of the other one.
    :param known: whether ``of`` counts the known descriptors instead of the candidates.
    :param distance: between the two.
    """

    of: int
    known: bool
    distance: float


def deduplicate(
    descriptors: FloatArray, known: FloatArray | None = None, *, tolerance: float, relative: bool = False
) -> list[Duplicate | None]:
    """Find the candidates that are near one that is known, or near a candidate that comes before and is kept.

    Put the candidates in order of preference first.

    :param descriptors: shape (n, n_features), in units in which Euclidean distance makes sense: aligned and whitened
        latents, or B-projections times the inverse active set.
    :param known: shape (n_known, n_features).
    :param tolerance: a distance up to it makes a duplicate.
    :param relative: measure distance in units of the longer one of the two vectors.
    :return: for each candidate ``None`` when it is to be kept, else what it duplicates.
    :raises OodalError: on wrong shapes.
    """
    points = _matrix(descriptors, 'descriptors')
    before = np.empty((0, points.shape[1])) if known is None else _matrix(known, 'known descriptors')
    if before.shape[1] != points.shape[1]:
        raise OodalError(f'{points.shape[1]} features in the candidates and {before.shape[1]} in the known descriptors')
    pool = np.vstack([before, points])
    kept = list(range(len(before)))
    result: list[Duplicate | None] = []
    for i, point in enumerate(points):
        others = pool[kept]
        distance = np.linalg.norm(others - point, axis=1)
        if relative:
            longer = np.maximum(np.linalg.norm(others, axis=1), np.linalg.norm(point))
            distance /= np.where(longer > 0, longer, 1.0)
        nearest = int(np.argmin(distance)) if len(kept) else -1
        if nearest >= 0 and distance[nearest] <= tolerance:
            row = kept[nearest]
            is_known = row < len(before)
            result.append(Duplicate(row if is_known else row - len(before), is_known, float(distance[nearest])))
        else:
            kept.append(len(before) + i)
            result.append(None)
    return result


def farthest_points(descriptors: FloatArray, n_select: int, known: FloatArray | None = None) -> list[tuple[int, float]]:
    """Choose points one by one, each the farthest from all that are known or chosen (Gonzalez, 1985).

    :param descriptors: shape (n, n_features).
    :param n_select: how many; all when there are fewer.
    :param known: shape (n_known, n_features); without it the first point is the one farthest from the mean.
    :return: index and distance to the nearest point before it, in the order of choice; that of a first point is to the
        mean. Points at distance 0 of one before them are not chosen.
    :raises OodalError: on wrong shapes.
    """
    points = _matrix(descriptors, 'descriptors')
    before = np.empty((0, points.shape[1])) if known is None else _matrix(known, 'known descriptors')
    nearest = np.full(len(points), np.inf)
    for other in before:
        np.minimum(nearest, np.linalg.norm(points - other, axis=1), out=nearest)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(n_select, len(points)):
        # With nothing to keep away from, the mean says where to begin; it is not known, and others may lie near it.
        away = nearest if len(before) or chosen else np.linalg.norm(points - points.mean(axis=0), axis=1)
        index = int(np.argmax(away))
        if nearest[index] <= 0.0:
            break
        chosen.append((index, float(away[index])))
        np.minimum(nearest, np.linalg.norm(points - points[index], axis=1), out=nearest)
    return chosen


def kmeans_points(descriptors: FloatArray, n_select: int, *, seed: int) -> list[tuple[int, float]]:
    """Choose the point nearest to each centre of a K-means clustering.

    :param descriptors: shape (n, n_features).
    :param n_select: number of groups; all points when there are fewer.
    :param seed: of the clustering.
    :return: index and distance to the centre of its group, ascending by index.
    :raises OodalError: on wrong shapes, or when scikit-learn is missing.
    """
    points = _matrix(descriptors, 'descriptors')
    distinct = len(np.unique(points, axis=0))
    if distinct <= n_select:
        first = np.unique(points, axis=0, return_index=True)[1]
        return [(int(i), 0.0) for i in np.sort(first)]
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise OodalError('the module sklearn is missing: install scikit-learn, or choose by farthest points') from error
    distances = KMeans(n_clusters=n_select, n_init=10, random_state=seed).fit(points).transform(points)
    nearest = np.argmin(distances, axis=0)
    return sorted({int(i): float(distances[i, group]) for group, i in enumerate(nearest)}.items())


def _matrix(values: FloatArray, name: str) -> FloatArray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise OodalError(
            f'the {name} have shape {matrix.shape} or are not finite; finite numbers (n, n_features) are needed'
        )
    return matrix
