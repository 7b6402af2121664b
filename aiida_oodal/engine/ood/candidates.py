"""Choose structures to label by their scores, and say of every structure why it was taken or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.choose.pool import Pool
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option

from .calibration import check_level
from .looks import EITHER, OVERALL
from .metrics import SCORES
from .scores import OodScores

FloatArray = NDArray[np.float64]
Method = Literal['top', 'kmeans', 'farthest']


@dataclass(frozen=True)
class CandidateOptions(Options):
    """Which structures become candidates."""

    TITLE: ClassVar[str] = 'candidate settings'

    metric: str = option(
        OVERALL,
        'Score to choose by. overall: disagreement of the models or distance from the reference set, by the mean over '
        'atoms or by the worst atom, whichever is furthest above what held-out structures show.',
    )
    aggregate: Literal['either', 'mean', 'max', 'p95'] = option(
        EITHER,
        'How the scores of atoms become the score of a structure; either: the mean or the worst atom, '
        'whichever is further above its threshold.',
    )
    method: Method = option(
        'top',
        'top: the largest scores; farthest, kmeans: spread over the aligned consensus '
        'latents of the eligible structures.',
    )
    n: int | None = option(None, 'Largest number of candidates; default: all eligible structures.', ge=1, le=10_000_000)
    level: float | None = option(
        None,
        'Only structures above the threshold that this share (0.9, 0.95 or 0.99) of the held-out structures '
        'stays below.',
    )
    threshold: float | None = option(None, 'Only structures with a score above this.')
    quantile: float | None = option(
        None, 'Only structures above this quantile of the scores of the set itself.', ge=0.0, lt=1.0
    )
    tolerance: float | None = option(
        None,
        'Structures closer than this to a candidate with a larger score are left out; distance between consensus '
        'latents.',
        gt=0.0,
    )
    seed: int = option(0, 'Of K-means.', ge=0)

    def __post_init__(self) -> None:
        if self.metric not in (OVERALL, *SCORES):
            raise OodalError(f'metric = {self.metric!r} is no score; there are {", ".join((OVERALL, *SCORES))}')
        if self.metric == OVERALL and self.aggregate != EITHER:
            raise OodalError(
                f"aggregate = {self.aggregate!r}: 'overall' has 'either' only; set metric to one of {', '.join(SCORES)}"
            )
        if all(limit is None for limit in (self.n, self.level, self.threshold, self.quantile)):
            raise OodalError('say which structures to take: n, level, threshold or quantile')
        if self.level is not None and (problem := check_level(self.level)):
            raise OodalError(problem)
        if self.level is not None and self.threshold is not None:
            raise OodalError('level and threshold both set the limit: give one of them')
        if self.method != 'top' and self.n is None:
            raise OodalError(f'method = {self.method!r} needs n, the number of candidates')

    @property
    def needs_descriptors(self) -> bool:
        """Whether structures are compared with each other."""
        return self.method != 'top' or self.tolerance is not None


@dataclass(frozen=True)
class Candidate:
    """What became of one structure.

    :param index: among the structures that were scored.
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


def choose_candidates(
    scores: OodScores,
    options: CandidateOptions,
    *,
    descriptors: FloatArray | None = None,
    known: Mapping[int, str] | None = None,
) -> list[Candidate]:
    """Choose among the structures of a set that was scored.

    :param descriptors: of each structure, e.g. ``OodReference.structure_consensus``, shape (n_structures, n_features);
        where ``options.needs_descriptors``.
    :param known: structures that are no candidates whatever their score, and why.
    :return: one entry a structure, in the order of the scores.
    :raises OodalError: if the scores lack the metric.
    """
    metric, aggregate = options.metric, str(options.aggregate)
    if metric == OVERALL and OVERALL not in scores.metrics:
        metric, aggregate = scores.verdict
    elif aggregate == EITHER and EITHER not in scores.per_structure.get(metric, {EITHER: None}):
        aggregate = 'mean'
    limit = options.threshold
    if options.level is not None:
        limit = scores.thresholds.structure(metric, aggregate, options.level)
    found = select_candidates(
        scores.of(metric, aggregate),
        n=options.n,
        threshold=limit,
        quantile=options.quantile,
        method=options.method,
        descriptors=descriptors,
        excluded=known,
        tolerance=options.tolerance,
        seed=options.seed,
    )
    if aggregate != EITHER:
        return found
    spoken = scores.looks_above(metric, options.level or 0.95)
    return [
        Candidate(**{**vars(each), 'reason': f'{spoken[each.index][0]}; {each.reason}'})
        if each.taken and spoken[each.index]
        else each
        for each in found
    ]


def select_candidates(
    scores: FloatArray,
    *,
    n: int | None = None,
    threshold: float | None = None,
    quantile: float | None = None,
    method: Method = 'top',
    descriptors: FloatArray | None = None,
    known: FloatArray | None = None,
    excluded: Mapping[int, str] | None = None,
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
    :param excluded: structures that are not taken, and why.
    :param tolerance: structures within this distance of one that is known, or of one with a larger score, are left out.
    :param seed: of K-means.
    :return: one entry a structure, in the order of the set.
    :raises OodalError: on contradicting choices.
    """
    values = np.asarray(scores, dtype=np.float64)
    pool = Pool(values, 'structure')
    _check(values, n, quantile, method, descriptors, tolerance)
    pool.refuse(excluded or {})
    if threshold is not None:
        pool.refuse(values <= threshold, f'not above the threshold {threshold:.4g}')
    if quantile is not None and len(values):
        limit = float(np.quantile(values, quantile))
        pool.refuse(values <= limit, f'not above {limit:.4g}, the {100 * quantile:g} % quantile of the set')
    if tolerance is not None and descriptors is not None:
        pool.refuse_duplicates(descriptors, tolerance, known=known)
    members = pool.members
    chosen = _choose(pool, len(members) if n is None else n, method, descriptors, known, seed)
    left = 'adds nothing new' if n is None else f'eligible, but {method} took {len(chosen)} others'
    pool.refuse({index: left for index in members if index not in chosen})
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.argsort(-values, kind='stable')] = np.arange(1, len(values) + 1)
    order = {index: place for place, index in enumerate(chosen)}
    return [
        Candidate(i, float(values[i]), int(rank[i]), order.get(i), chosen.get(i) or pool.reasons[i])
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


def _choose(
    pool: Pool, n: int, method: Method, descriptors: FloatArray | None, known: FloatArray | None, seed: int
) -> dict[int, str]:
    """Return what is taken and why, in order of preference."""
    if method == 'top' or descriptors is None:
        return {index: f'number {place} by score' for place, index in enumerate(pool.members[:n], start=1)}
    found = pool.spread(descriptors, n, method, known=known, seed=seed)
    if method == 'farthest':
        return {i: f'{distance:.3g} away from all that are known or were taken before' for i, distance in found.items()}
    return {
        i: f'the middle of one of {len(found)} groups ({distance:.3g} from its centre)' for i, distance in found.items()
    }


def summarise(scores: OodScores, found: list[Candidate], options: CandidateOptions) -> dict[str, Any]:
    """Return what became of all structures, as plain values: a sentence, those taken in order, counts of the others."""
    taken = sorted((entry for entry in found if entry.order is not None), key=lambda entry: entry.order or 0)
    left_out: dict[str, int] = {}
    for entry in found:
        if entry.order is None:
            left_out[entry.reason] = left_out.get(entry.reason, 0) + 1
    return {
        'summary': f'{len(taken)} of {len(found)} structures are candidates by {options.metric} ({options.aggregate})',
        'taken': [
            {
                'structure': int(scores.structure_index[entry.index]),
                'score': entry.score,
                'rank': entry.rank,
                'reason': entry.reason,
            }
            for entry in taken
        ],
        'left_out': left_out,
    }
