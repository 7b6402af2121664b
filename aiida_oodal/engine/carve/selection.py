"""Which of the candidates of all walkers are labelled, and why the others are not."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from aiida_oodal.engine.carve.geometry import FloatArray
from aiida_oodal.engine.carve.maxvol import DEFAULT_TOLERANCE, maxvol_select
from aiida_oodal.engine.carve.spread import deduplicate, farthest_points, kmeans_points
from aiida_oodal.engine.errors import OodalError

#: Distance between two environments in the coordinates of the active set, in units of the longer vector.
DEFAULT_DUPLICATE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Decision:
    """What became of one candidate.

    :param index: its place among the candidates.
    :param taken: whether it is to be labelled.
    :param reason: a sentence for the user.
    :param gamma: grade before the selection: gamma, or the score where there is no active set.
    :param rank: order among those taken, from 0, the most wanted first; ``None`` for the others.
    """

    index: int
    taken: bool
    reason: str
    gamma: float
    rank: int | None = None


def content_key(cluster: Atoms, decimals: int = 4) -> str:
    """Return a hash of what would be labelled: elements, positions from atom 0 and cell.

    The order of the other atoms, and where the cell begins, make no difference.

    :param decimals: of an angstrom that count.
    """
    cell = np.asarray(cluster.cell.array)
    fractional = (
        np.linalg.solve(cell.T, (cluster.positions - cluster.positions[0]).T).T if len(cluster) else np.empty((0, 3))
    )
    periodic = np.asarray(cluster.pbc, dtype=bool)
    unit = 10.0**-decimals / np.linalg.norm(cell, axis=1)
    steps = np.rint(fractional / unit).astype(np.int64)
    period = np.rint(1.0 / unit).astype(np.int64)
    steps[:, periodic] %= period[periodic]
    rows = np.column_stack([cluster.numbers, steps])
    rows = rows[np.lexsort(rows.T[::-1])]
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes())
    digest.update(np.rint(cell * 10.0**decimals).astype(np.int64).tobytes())
    digest.update(periodic.tobytes())
    return digest.hexdigest()


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
    :param tol: see :func:`~aiida_oodal.engine.carve.maxvol.maxvol_select`.
    :param duplicate_tolerance: relative distance in the coordinates of the active set; see
        :func:`~aiida_oodal.engine.carve.spread.deduplicate`.
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
    reasons = _refused(gamma, gamma_min, gamma_ceiling, keys, known_keys)
    wanted: list[tuple[float, int]] = []
    for members in groups.values():
        members = _without_duplicates(members, coordinates, gamma, reasons, duplicate_tolerance, relative=True)
        if not members:
            continue
        rows = np.array([coordinates[i] for i in members])
        # In these coordinates the active set is the unit matrix, and so is its inverse.
        choice = maxvol_select(np.eye(rows.shape[1]), rows, tol=tol, max_select=max_select)
        unlimited = choice if len(choice.indices) < max_select else maxvol_select(np.eye(rows.shape[1]), rows, tol=tol)
        wanted += [(float(g), members[k]) for k, g in zip(choice.indices, choice.gamma, strict=True)]
        for k, i in enumerate(members):
            if k not in choice.indices:
                covered = f'those taken cover it: gamma falls from {gamma[i]:.3g} to {choice.gamma_after[k]:.3g}'
                reasons[i] = f'over the cap of {max_select}' if k in unlimited.indices else covered
    return _decide(gamma, wanted, reasons, max_select, 'gamma {:.3g} when it entered the active set')


def select_by_spread(
    descriptors: FloatArray,
    scores: ArrayLike,
    *,
    max_select: int,
    method: Literal['farthest', 'kmeans'] = 'farthest',
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
    reasons = _refused(grade, score_min, score_ceiling, keys, known_keys)
    members = _without_duplicates(
        range(len(points)),
        dict(enumerate(points)),
        grade,
        reasons,
        duplicate_tolerance,
        relative=relative,
        known=known,
    )
    if not members:
        return _decide(grade, [], reasons, max_select, '')
    chosen = (
        farthest_points(points[members], max_select, known)
        if method == 'farthest'
        else kmeans_points(points[members], max_select, seed=seed)
    )
    for i in members:
        reasons[i] = f'over the cap of {max_select}: others are farther apart'
    if method == 'farthest':
        wanted = [(distance, members[k]) for k, distance in chosen]
        return _decide(grade, wanted, reasons, max_select, '{:.3g} from the nearest one known or taken')
    wanted = sorted(((float(grade[members[k]]), members[k]) for k, _ in chosen), reverse=True)
    return _decide(grade, wanted, reasons, max_select, 'stands for its group; score {:.3g}')


def _refused(
    grade: FloatArray, lowest: float, ceiling: float, keys: Sequence[str] | None, known_keys: Collection[str]
) -> dict[int, str]:
    """Return the reason of every candidate that needs no comparison with others."""
    if keys is not None and len(keys) != len(grade):
        raise OodalError(f'{len(grade)} candidates and {len(keys)} keys')
    if not np.isfinite(grade).all():
        raise OodalError(f'the grade of candidate {int(np.flatnonzero(~np.isfinite(grade))[0])} is not a finite number')
    reasons: dict[int, str] = {}
    first: dict[str, int] = {}
    for i, value in enumerate(grade):
        key = None if keys is None else keys[i]
        if key is not None and key in known_keys:
            reasons[i] = 'the queue holds it already'
        elif key is not None and key in first:
            reasons[i] = f'the same as candidate {first[key]}'
        elif value <= lowest:
            reasons[i] = f'the grade {value:.3g} is not above {lowest:g}'
        elif value > ceiling:
            reasons[i] = f'the grade {value:.3g} is above {ceiling:g}: the frame is not physical'
        if key is not None:
            first.setdefault(key, i)
    return reasons


def _without_duplicates(
    members: Sequence[int],
    points: Mapping[int, FloatArray],
    grade: FloatArray,
    reasons: dict[int, str],
    tolerance: float,
    *,
    relative: bool,
    known: FloatArray | None = None,
) -> list[int]:
    """Return the members not refused so far and not near a worse one, worst first; add the reasons of the others."""
    left = sorted((i for i in members if i not in reasons), key=lambda i: (-grade[i], i))
    if not left:
        return []
    found = deduplicate(np.array([points[i] for i in left]), known, tolerance=tolerance, relative=relative)
    for i, duplicate in zip(left, found, strict=True):
        if duplicate is not None:
            other = f'structure {duplicate.of} that is known' if duplicate.known else f'candidate {left[duplicate.of]}'
            reasons[i] = f'a near-duplicate of {other}: distance {duplicate.distance:.2g}, tolerance {tolerance:g}'
    return [i for i, duplicate in zip(left, found, strict=True) if duplicate is None]


def _decide(
    grade: FloatArray, wanted: list[tuple[float, int]], reasons: Mapping[int, str], max_select: int, taken: str
) -> list[Decision]:
    """Put decisions in the order of the candidates; beyond the cap the least wanted are left out."""
    order = sorted(wanted, key=lambda item: (-item[0], item[1]))
    ranks = {i: rank for rank, (_, i) in enumerate(order[:max_select])}
    gains = {i: gain for gain, i in order}
    decisions = []
    for i, value in enumerate(grade):
        if i in ranks:
            decisions.append(Decision(i, True, taken.format(gains[i]), float(value), ranks[i]))
        else:
            decisions.append(Decision(i, False, reasons.get(i, f'over the cap of {max_select}'), float(value)))
    return decisions
