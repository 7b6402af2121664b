"""Choose which clusters of all walkers are labelled, and give the reason for each of the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from aiida_oodal.engine.choose.maxvol import DEFAULT_TOLERANCE, maxvol_select
from aiida_oodal.engine.choose.pool import Pool, Spread
from aiida_oodal.engine.content import content_key
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Grades
from aiida_oodal.engine.space.geometry import FloatArray
from aiida_oodal.engine.thresholds import Thresholds

from .settings import SelectSettings

#: Distance between two environments in the coordinates of the active set, in units of the longer vector.
DEFAULT_DUPLICATE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Decision:
    """Whether one candidate was chosen, and why.

    :param index: its place among the candidates.
    :param taken: whether it is to be labelled.
    :param reason: a sentence for the user.
    :param gamma: grade before the selection: gamma, or the score where there is no active set; None if unknown.
    :param rank: order among those taken, from 0, the most wanted first; ``None`` for the others.
    """

    index: int
    taken: bool
    reason: str
    gamma: float | None
    rank: int | None = None


def choose_clusters(
    clusters: Sequence[Atoms],
    grades: Sequence[Grades | str],
    settings: SelectSettings,
    thresholds: Thresholds,
    *,
    has_active_set: bool,
    known: Sequence[Atoms] = (),
    known_grades: Sequence[Grades | str] = (),
) -> list[Decision]:
    """Choose among the clusters of all walkers.

    :param clusters: candidates; atom 0 is the centre.
    :param grades: of each cluster by the current potential, or why there are none.
    :param has_active_set: whether descriptors are coordinates of an active set.
    :param known: clusters of earlier rounds. The same clusters are not chosen again, and a choice by spread also avoids
        similar ones.
    :param known_grades: of each of these by the current potential; only their descriptors are used.
    :return: one decision a candidate, in their order.
    :raises OodalError: if the way to choose needs an active set and there is none.
    """
    method = settings.method
    if method == 'auto':
        method = 'maxvol' if has_active_set else 'farthest'
    if method == 'maxvol' and not has_active_set:
        raise OodalError(
            "select settings: method = 'maxvol' needs the active set of an ACE potential; choose clusters that an "
            "ensemble graded by 'farthest' or 'kmeans'"
        )
    graded = [row for row, grade in enumerate(grades) if isinstance(grade, Grades)]
    decisions = [
        Decision(row, False, grade if isinstance(grade, str) else '', None) for row, grade in enumerate(grades)
    ]
    chosen = _choose(
        [clusters[row] for row in graded],
        [grade for grade in grades if isinstance(grade, Grades)],
        method,
        settings,
        thresholds,
        known_keys={content_key(cluster) for cluster in known},
        known_rows=[grade.descriptor for grade in known_grades if isinstance(grade, Grades)],
    )
    for decision in chosen:
        decisions[graded[decision.index]] = replace(decision, index=graded[decision.index])
    return decisions


def _choose(
    clusters: Sequence[Atoms],
    grades: Sequence[Grades],
    method: str,
    settings: SelectSettings,
    thresholds: Thresholds,
    *,
    known_keys: set[str],
    known_rows: Sequence[FloatArray],
) -> list[Decision]:
    """Choose among clusters that have grades."""
    if not clusters:
        return []
    common: dict[str, Any] = {
        'max_select': settings.max_clusters,
        'duplicate_tolerance': settings.duplicate_tolerance,
        'keys': [content_key(cluster) for cluster in clusters],
        'known_keys': known_keys,
    }
    if method == 'maxvol':
        elements = [str(cluster.symbols[0]) for cluster in clusters]
        rows = [grade.descriptor for grade in grades]
        # descriptors are coordinates in which the active set is the unit matrix, see `Grades`
        return select_by_maxvol(
            rows,
            elements,
            {element: np.eye(len(row)) for element, row in zip(elements, rows, strict=True)},
            gamma_min=thresholds.gamma_select,
            gamma_ceiling=thresholds.gamma_ceiling,
            tol=settings.tolerance,
            **common,
        )
    return select_by_spread(
        np.array([grade.descriptor for grade in grades]),
        [float(grade.gamma[0]) for grade in grades],
        method='kmeans' if method == 'kmeans' else 'farthest',
        seed=settings.seed,
        score_min=thresholds.gamma_select,
        score_ceiling=thresholds.gamma_ceiling,
        known=np.array(known_rows) if known_rows else None,
        relative=True,
        **common,
    )


def select_by_maxvol(
    projections: Sequence[FloatArray],
    elements: Sequence[str],
    inverse_active_sets: Mapping[str, FloatArray],
    *,
    max_select: int,
    gamma_min: float = 1.0,
    gamma_ceiling: float = np.inf,
    tol: float = DEFAULT_TOLERANCE,
    duplicate_tolerance: float = DEFAULT_DUPLICATE_TOLERANCE,
    keys: Sequence[str] | None = None,
    known_keys: Collection[str] = (),
) -> list[Decision]:
    """Choose among the centres of clusters, D-optimally against the current active set.

    :param projections: of each centre, shape (n_functions of its element,).
    :param elements: chemical symbol of each centre.
    :param inverse_active_sets: by element, shape (n_functions, n_functions).
    :param max_select: take at most so many, all elements together, the largest gain in volume first.
    :param gamma_min: candidates with gamma at or below it are left out.
    :param gamma_ceiling: candidates above it are left out: not physical.
    :param tol: see :func:`~aiida_oodal.engine.choose.maxvol.maxvol_select`.
    :param duplicate_tolerance: relative distance in the coordinates of the active set; see
        :func:`~aiida_oodal.engine.choose.spread.deduplicate`.
    :param keys: content of each cluster (:func:`content_key`, or the hash of its node).
    :param known_keys: what the queue holds.
    :return: one decision a candidate, in their order.
    :raises OodalError: on an element without an active set, or arrays that do not fit.
    """
    n = len(projections)
    if len(elements) != n:
        raise OodalError(f'{n} candidates and {len(elements)} elements')
    missing = sorted(set(elements) - set(inverse_active_sets))
    if missing:
        raise OodalError(
            f'the active set has no {", ".join(missing)}: it knows {", ".join(sorted(inverse_active_sets))}'
        )
    groups = {element: [i for i in range(n) if elements[i] == element] for element in sorted(set(elements))}
    coordinates: dict[int, FloatArray] = {}
    for element, members in groups.items():
        inverse = inverse_active_sets[element]
        for i in members:
            if np.shape(projections[i]) != (len(inverse),):
                raise OodalError(
                    f'candidate {i} has projections of shape {np.shape(projections[i])} and the active set of '
                    f'{element} {np.shape(inverse)}: they are of different potentials'
                )
            coordinates[i] = np.asarray(projections[i]) @ inverse
    gamma = np.array([np.abs(coordinates[i]).max() for i in range(n)])
    pool = _refuse_each(gamma, gamma_min, gamma_ceiling, keys, known_keys)
    wanted: list[tuple[float, int]] = []
    for group in groups.values():
        pool.refuse_duplicates(coordinates, duplicate_tolerance, relative=True, among=group)
        members = [i for i in pool.members if i in group]
        if not members:
            continue
        rows = np.array([coordinates[i] for i in members])
        # In these coordinates the active set is the unit matrix, and so is its inverse.
        choice = maxvol_select(np.eye(rows.shape[1]), rows, tol=tol, max_select=max_select)
        unlimited = choice if len(choice.indices) < max_select else maxvol_select(np.eye(rows.shape[1]), rows, tol=tol)
        wanted += [(float(g), members[k]) for k, g in zip(choice.indices, choice.gamma, strict=True)]
        for k, i in enumerate(members):
            if k not in choice.indices and k not in unlimited.indices:
                falls = f'gamma falls from {gamma[i]:.3g} to {choice.gamma_after[k]:.3g}'
                pool.refuse({i: f'those taken cover it: {falls}'})
    return _decide(pool, wanted, max_select, 'gamma {:.3g} when it entered the active set')


def select_by_spread(
    descriptors: FloatArray,
    scores: ArrayLike,
    *,
    max_select: int,
    method: Spread = 'farthest',
    seed: int = 0,
    score_min: float = -np.inf,
    score_ceiling: float = np.inf,
    known: FloatArray | None = None,
    duplicate_tolerance: float = 0.0,
    relative: bool = False,
    keys: Sequence[str] | None = None,
    known_keys: Collection[str] = (),
) -> list[Decision]:
    """Choose among centres by the spread of their descriptors, where there is no active set.

    :param descriptors: aligned and whitened latents of each centre, shape (n, n_features).
    :param scores: of each centre, shape (n,).
    :param max_select: take at most so many.
    :param method: ``farthest`` from what is known and chosen, or the middle of each of ``max_select`` ``kmeans``
        groups.
    :param seed: of K-means.
    :param score_min: candidates with a score at or below it are left out.
    :param score_ceiling: candidates above it are left out: not physical.
    :param known: descriptors of what is labelled, shape (n_known, n_features).
    :param duplicate_tolerance: distance between descriptors.
    :param relative: measure that distance in units of the longer one of the two.
    :param keys: content of each cluster.
    :param known_keys: what the queue holds.
    :return: one decision a candidate, in their order.
    :raises OodalError: on arrays that do not fit.
    """
    points, grade = np.asarray(descriptors, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if points.ndim != 2 or grade.shape != (len(points),):
        raise OodalError(
            f'descriptors of shape {points.shape} and scores of shape {grade.shape}: (n, d) and (n,) are needed'
        )
    if method not in ('farthest', 'kmeans'):
        raise OodalError(f"method is {method!r}; it must be 'farthest' or 'kmeans'")
    pool = _refuse_each(grade, score_min, score_ceiling, keys, known_keys)
    pool.refuse_duplicates(points, duplicate_tolerance, known=known, relative=relative)
    chosen = pool.spread(points, max_select, method, known=known, seed=seed)
    pool.refuse({i: f'over the cap of {max_select}: others are farther apart' for i in pool.members if i not in chosen})
    if method == 'farthest':
        wanted = [(distance, i) for i, distance in chosen.items()]
        return _decide(pool, wanted, max_select, '{:.3g} from the nearest one known or taken')
    wanted = [(float(grade[i]), i) for i in chosen]
    return _decide(pool, wanted, max_select, 'stands for its group; score {:.3g}')


def _refuse_each(
    grade: FloatArray, lowest: float, ceiling: float, keys: Sequence[str] | None, known_keys: Collection[str]
) -> Pool:
    """Refuse the candidates that need no comparison of descriptors."""
    if keys is not None and len(keys) != len(grade):
        raise OodalError(f'{len(grade)} candidates and {len(keys)} keys')
    if not np.isfinite(grade).all():
        raise OodalError(f'the grade of candidate {int(np.flatnonzero(~np.isfinite(grade))[0])} is not a finite number')
    pool = Pool(grade)
    first: dict[str, int] = {}
    for i, key in enumerate(keys or ()):
        if key in known_keys:
            pool.refuse({i: 'the queue holds it already'})
        elif first.setdefault(key, i) != i:
            pool.refuse({i: f'the same as candidate {first[key]}'})
    pool.refuse(
        {i: f'the grade {grade[i]:.3g} is not above {lowest:g}' for i in np.flatnonzero(grade <= lowest).tolist()}
    )
    above = np.flatnonzero(grade > ceiling).tolist()
    pool.refuse({i: f'the grade {grade[i]:.3g} is above {ceiling:g}: the frame is not physical' for i in above})
    return pool


def _decide(pool: Pool, wanted: list[tuple[float, int]], max_select: int, taken: str) -> list[Decision]:
    """Put decisions in the order of the candidates; beyond the cap the least wanted are left out."""
    order = sorted(wanted, key=lambda item: (-item[0], item[1]))
    ranks = {i: rank for rank, (_, i) in enumerate(order[:max_select])}
    gains = {i: gain for gain, i in order}
    decisions = []
    for i, value in enumerate(pool.grade):
        if i in ranks:
            decisions.append(Decision(i, True, taken.format(gains[i]), float(value), ranks[i]))
        else:
            reason = pool.reasons.get(i, f'over the cap of {max_select}')
            decisions.append(Decision(i, False, reason, float(value)))
    return decisions
