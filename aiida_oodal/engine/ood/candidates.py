"""Choose structures to label by their scores, and say of every structure why it was taken or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.carve.spread import deduplicate, farthest_points, kmeans_points
from aiida_oodal.engine.errors import OodalError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Method = Literal['top', 'kmeans', 'farthest']


@dataclass(frozen=True)
class Candidate:
    """What became of one structure.

    :param index: in the set that was scored.
    :param score: its score.
    :param rank: 1 for the largest score of the set.
    :param order: place among those that were taken, from 0; None if it was not taken.
    :param reason: why it was taken or not, in plain words.
    """

    index: int
    score: float
    rank: int
    order: int | None
    reason: str

    @property
    def taken(self) -> bool:
        """Whether it was taken."""
        return self.order is not None


def select_candidates(
    scores: FloatArray,
    *,
    n: int | None = None,
    threshold: float | None = None,
    quantile: float | None = None,
    method: Method = 'top',
    descriptors: FloatArray | None = None,
    known: FloatArray | None = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> list[Candidate]:
    """Choose among the structures of a set.

    Those above ``threshold`` and above ``quantile`` are eligible; of them ``method`` takes ``n``.

    :param scores: of each structure, shape (n_structures,); larger is further out.
    :param n: how many at most; all that are eligible if not given.
    :param threshold: scores must be above, e.g. ``Thresholds.structure('aligned_variance', 'mean', 0.95)``.
    :param quantile: scores must be above this quantile of the set itself, between 0 and 1.
    :param method: ``top`` takes the largest scores; ``farthest`` takes structures one by one, each farthest from
        those taken and known; ``kmeans`` takes the middle of each of ``n`` groups (``known`` counts by tolerance only).
    :param descriptors: shape (n_structures, n_features), e.g. ``OodReference.structure_consensus``; not needed for
        ``top`` without a tolerance.
    :param known: descriptors of structures that are labelled or queued, shape (n_known, n_features).
    :param tolerance: structures within this distance of one that is known, or of one with a larger score, are left out.
    :param seed: of K-means.
    :return: one entry a structure, in the order of the set.
    :raises OodalError: on contradicting choices.
    """
    values = np.asarray(scores, dtype=np.float64)
    _check(values, n, quantile, method, descriptors, tolerance)
    by_score = np.argsort(-values, kind='stable')
    reasons = np.full(len(values), '', dtype=object)
    eligible = np.ones(len(values), dtype=bool)
    if threshold is not None:
        _leave_out(eligible, reasons, values <= threshold, f'not above the threshold {threshold:.4g}')
    if quantile is not None and len(values):
        limit = float(np.quantile(values, quantile))
        _leave_out(
            eligible, reasons, values <= limit, f'not above {limit:.4g}, the {100 * quantile:g} % quantile of the set'
        )
    pool = by_score[eligible[by_score]]
    if tolerance is not None and descriptors is not None:
        pool = _without_duplicates(pool, reasons, descriptors, known, tolerance)
    chosen = _choose(pool, len(pool) if n is None else n, method, descriptors, known, seed)
    for index in pool:
        if int(index) not in chosen:
            reasons[index] = (
                f'eligible, but {method} took {len(chosen)} others' if n is not None else 'adds nothing new'
            )
    rank = np.empty(len(values), dtype=np.int64)
    rank[by_score] = np.arange(1, len(values) + 1)
    order = {index: place for place, index in enumerate(chosen)}
    return [
        Candidate(i, float(values[i]), int(rank[i]), order.get(i), chosen.get(i, reasons[i]))
        for i in range(len(values))
    ]


def _check(
    values: FloatArray,
    n: int | None,
    quantile: float | None,
    method: str,
    descriptors: FloatArray | None,
    tolerance: float | None,
) -> None:
    """Refuse contradicting choices."""
    if values.ndim != 1 or np.isnan(values).any():
        raise OodalError(f'scores have shape {values.shape} or are not numbers; one number a structure is needed')
    if n is not None and n < 1:
        raise OodalError(f'{n} candidates were asked for; take 1 or more')
    if quantile is not None and not 0.0 <= quantile < 1.0:
        raise OodalError(f'quantile = {quantile}: it must be between 0 and 1')
    if method not in ('top', 'kmeans', 'farthest'):
        raise OodalError(f'{method!r} is not a way to choose; there are top, kmeans, farthest')
    if method != 'top' and n is None:
        raise OodalError(f'{method!r} needs the number of candidates n')
    if (method != 'top' or tolerance is not None) and (descriptors is None or len(descriptors) != len(values)):
        raise OodalError(
            f'{method!r} and tolerance need descriptors, one row for each of the {len(values)} structures '
            '(OodReference.structure_consensus gives them)'
        )


def _leave_out(
    eligible: NDArray[np.bool_], reasons: NDArray[np.object_], which: NDArray[np.bool_], reason: str
) -> None:
    """Mark those that are still eligible as left out, with the reason."""
    reasons[eligible & which] = reason
    eligible[which] = False


def _without_duplicates(
    pool: IntArray, reasons: NDArray[np.object_], descriptors: FloatArray, known: FloatArray | None, tolerance: float
) -> IntArray:
    """Leave out what is near a known structure or near one with a larger score."""
    found = deduplicate(descriptors[pool], known, tolerance=tolerance)
    for index, duplicate in zip(pool, found, strict=True):
        if duplicate is not None:
            other = f'known structure {duplicate.of}' if duplicate.known else f'structure {pool[duplicate.of]}'
            reasons[index] = f'within {duplicate.distance:.3g} of {other} (tolerance {tolerance:g})'
    return np.array([i for i, duplicate in zip(pool, found, strict=True) if duplicate is None], dtype=np.int64)


def _choose(
    pool: IntArray, n: int, method: Method, descriptors: FloatArray | None, known: FloatArray | None, seed: int
) -> dict[int, str]:
    """Return what is taken and why, in order of preference."""
    if method == 'top' or descriptors is None or not len(pool):
        return {int(index): f'number {place} by score' for place, index in enumerate(pool[:n], start=1)}
    if method == 'farthest':
        return {
            int(pool[row]): f'{distance:.3g} away from all that are known or were taken before'
            for row, distance in farthest_points(descriptors[pool], n, known)
        }
    # Rows of the pool are in order of score, and so is what K-means returns.
    points = kmeans_points(descriptors[pool], n, seed=seed)
    return {
        int(pool[row]): f'the middle of one of {len(points)} groups ({distance:.3g} from its centre)'
        for row, distance in points
    }
