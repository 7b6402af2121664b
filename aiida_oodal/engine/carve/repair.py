"""Atoms that come too close across the boundary of a carved cell, and how to mend it.

Cutting a cube out of a crystal or a liquid and making it periodic brings atoms together that never met in the parent.
Pairs of the parent itself are never 'mended': an unusually short bond may be the very thing that the cluster was cut
for. Only the boundary is made good, and only by atoms of the buffer; those beyond the cutoff of the centre go first,
because the centre and its grade do not feel them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NoReturn

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import SURFACE_TOLERANCE, FloatArray, IntArray

Repair = Literal['error', 'drop', 'relax']

#: Angstrom. Two atoms of the parent closer than this are no physics: no repair is offered for such a frame.
PARENT_LIMIT = 0.5
RELAX_MAX_STEPS = 500
#: Angstrom. A pair is pushed this much further than asked for, so that the last step ends it.
_RELAX_MARGIN = 1e-3


@dataclass(frozen=True)
class Limits:
    """How close two atoms may be across the boundary.

    :param min_distance: angstrom, for any pair.
    :param bond_scale: fraction of the sum of the two covalent radii, dimensionless; 0 switches it off.
    """

    min_distance: float
    bond_scale: float = 0.0

    def of_pairs(self, numbers: IntArray, i: IntArray, j: IntArray) -> FloatArray:
        """Return the limit of each pair in angstrom, shape (n_pairs,)."""
        bonds: FloatArray = self.bond_scale * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
        return np.maximum(self.min_distance, bonds)

    def largest(self, numbers: IntArray) -> float:
        """Return the largest limit of any pair of these elements, in angstrom."""
        return max(self.min_distance, 2.0 * self.bond_scale * float(covalent_radii[numbers].max()))


@dataclass(frozen=True)
class Carved:
    """A cell on its way to a cluster.

    :param numbers: atomic numbers, shape (n,); atom 0 is the centre.
    :param displacements: from the centre in angstrom, shape (n, 3).
    :param parent_index: shape (n,).
    :param radius: of the core, in angstrom: atoms closer to the centre must not change.
    :param edge: edge of the cubic cell in angstrom.
    :param cutoff: of the potential, in angstrom.
    """

    numbers: IntArray
    displacements: FloatArray
    parent_index: IntArray
    radius: float
    edge: float
    cutoff: float

    @cached_property
    def distances(self) -> FloatArray:
        """Return the distance of each atom to the centre in angstrom, shape (n,)."""
        return np.asarray(np.linalg.norm(self.displacements, axis=1))

    @cached_property
    def core(self) -> NDArray[np.bool_]:
        """Tell which atoms are core atoms, shape (n,)."""
        return self.distances < self.radius - SURFACE_TOLERANCE


@dataclass(frozen=True)
class Overlaps:
    """Pairs closer than their limit, one an entry of each array.

    :param i: the first atom of each pair, shape (n_pairs,).
    :param j: the second one.
    :param vector: from i to j, shape (n_pairs, 3) in angstrom.
    :param distance: in angstrom.
    :param limit: in angstrom.
    :param across: whether the two meet through the cell boundary only.
    """

    i: IntArray
    j: IntArray
    vector: FloatArray
    distance: FloatArray
    limit: FloatArray
    across: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.i)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Overlaps:
        return Overlaps(
            self.i[chosen],
            self.j[chosen],
            self.vector[chosen],
            self.distance[chosen],
            self.limit[chosen],
            self.across[chosen],
        )


def find_overlaps(carved: Carved, limits: Limits, displacements: FloatArray | None = None) -> Overlaps:
    """Find the pairs closer than their limit in the periodic cell.

    :param displacements: where the atoms are now, shape (n, 3) in angstrom; as carved when not given.
    :return: the pairs, ``across`` telling which ones meet through the cell boundary only.
    """
    from scipy.spatial import cKDTree

    edge = carved.edge
    where = carved.displacements if displacements is None else displacements
    reach = min(limits.largest(carved.numbers), 0.499 * edge)
    points, owner = _with_images(where - edge * np.rint(where / edge), edge, reach)
    # A tree for one query is not worth balancing.
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    pairs = owner[tree.query_pairs(reach, output_type='ndarray')]
    # Two images with the same shift are a pair that is there without them, too.
    pairs = np.unique(np.sort(pairs, axis=1), axis=0) if len(pairs) else pairs
    i, j = pairs[:, 0], pairs[:, 1]
    vector = where[j] - where[i]
    shift = np.rint(vector / edge)
    vector = vector - shift * edge
    overlaps = Overlaps(
        i, j, vector, np.linalg.norm(vector, axis=1), limits.of_pairs(carved.numbers, i, j), np.any(shift != 0, axis=1)
    )
    return overlaps[overlaps.distance < overlaps.limit]


def _with_images(wrapped: FloatArray, edge: float, reach: float) -> tuple[FloatArray, IntArray]:
    """Add the images through which atoms meet: those of the atoms near a lower face, beyond the upper one.

    A search that knows no periodicity is several times as fast as one that does.

    :param wrapped: shape (n, 3) in angstrom, from minus to plus half the edge.
    :param reach: in angstrom.
    :return: positions, shape (n + n_images, 3), and whose they are, shape (n + n_images,).
    """
    points, owner = wrapped, np.arange(len(wrapped))
    for axis in range(3):
        low = np.flatnonzero(points[:, axis] < reach - edge / 2)
        images = points[low]
        images[:, axis] += edge
        points, owner = np.concatenate([points, images]), np.concatenate([owner, owner[low]])
    return points, owner


def check_parent(carved: Carved, overlaps: Overlaps, min_distance: float, name: str) -> None:
    """Refuse a cell in which the parent's own atoms overlap.

    :param overlaps: all that :func:`find_overlaps` found, with limits of at least ``min_distance``.
    :param min_distance: in angstrom; the check never asks for more than :data:`PARENT_LIMIT`.
    :raises OodalError: naming the pair.
    """
    limit = min(min_distance, PARENT_LIMIT)
    own = overlaps[~overlaps.across & (overlaps.distance < limit)]
    if len(own):
        own = replace(own, limit=np.full(len(own), limit))
        raise OodalError(
            f'{_name_pair(carved, own, name)} in the snapshot itself: the frame is not physical; take an earlier one'
        )


def refuse(carved: Carved, overlaps: Overlaps, name: str) -> NoReturn:
    """Refuse a cell with overlaps, of which there must be some.

    :raises OodalError: always, naming the closest pair.
    """
    raise OodalError(
        f"{_name_pair(carved, overlaps, name)} across the cell boundary; use a larger buffer or repair='drop'"
    )


def drop(carved: Carved, overlaps: Overlaps, name: str) -> IntArray:
    """Choose the buffer atoms to leave out so that no overlap across the boundary remains.

    One atom at a time, the one with the most overlaps first; among equals the farthest from the centre, because the
    density near the centre matters most. An atom within the cutoff of the centre goes only if its partner is a core
    atom or there, too.

    :return: the atoms to keep, ascending, shape (n_kept,).
    :raises OodalError: when two core atoms overlap.
    """
    _refuse_core_pairs(carved, overlaps, name)
    radius = carved.distances
    inner = radius < carved.cutoff
    # Where exactly one partner lies within the cutoff (the core does, or counts as such), the other one must go.
    shielded = carved.core | inner
    removed = np.zeros(len(radius), dtype=bool)
    forced_i = ~shielded[overlaps.i] & shielded[overlaps.j]
    forced_j = ~shielded[overlaps.j] & shielded[overlaps.i]
    removed[overlaps.i[forced_i]] = removed[overlaps.j[forced_j]] = True
    removed[overlaps.i[carved.core[overlaps.j]]] = removed[overlaps.j[carved.core[overlaps.i]]] = True
    while True:
        left = ~removed[overlaps.i] & ~removed[overlaps.j]
        if not left.any():
            return np.flatnonzero(~removed)
        counts = np.bincount(np.concatenate([overlaps.i[left], overlaps.j[left]]), minlength=len(radius))
        most = np.flatnonzero(counts == counts.max())
        removed[most[np.argmax(radius[most])]] = True


def relax(carved: Carved, limits: Limits, name: str, max_steps: int = RELAX_MAX_STEPS) -> FloatArray:
    """Push buffer atoms apart until no pair across the boundary is closer than its limit.

    Each step moves the atoms of every offending pair along the line between them. Core atoms stay where they are to
    the last bit, and so do atoms within the cutoff of the centre unless both atoms of a pair lie there. No atom comes
    closer to the centre than it was, or than the cutoff; no pair of the parent comes closer than its limit or than it
    was.

    :return: new displacements from the centre, shape (n, 3) in angstrom.
    :raises OodalError: when two core atoms overlap, or overlaps remain after ``max_steps``.
    """
    start = carved.displacements
    _refuse_core_pairs(carved, _offending(carved, limits, start), name)
    radius = carved.distances
    free = ~carved.core & (radius >= carved.cutoff)
    floor = np.minimum(radius, max(carved.radius, carved.cutoff))
    now = start.copy()
    for _ in range(max_steps):
        pairs = _offending(carved, limits, now)
        if not len(pairs):
            return now
        mobile_i, mobile_j = free[pairs.i], free[pairs.j]
        stuck = ~mobile_i & ~mobile_j
        mobile_i, mobile_j = mobile_i | (stuck & ~carved.core[pairs.i]), mobile_j | (stuck & ~carved.core[pairs.j])
        # Atoms on top of each other part along the line to the centre.
        apart = np.where(pairs.distance[:, None] > 1e-6, pairs.vector, start[pairs.j] + 1e-3)
        apart /= np.linalg.norm(apart, axis=1)[:, None]
        push = (pairs.limit + _RELAX_MARGIN - pairs.distance) / np.maximum(mobile_i.astype(float) + mobile_j, 1.0)
        step = np.zeros_like(now)
        np.add.at(step, pairs.i, -(push * mobile_i)[:, None] * apart)
        np.add.at(step, pairs.j, (push * mobile_j)[:, None] * apart)
        moved = np.flatnonzero(np.any(step != 0.0, axis=1))
        now[moved] += step[moved]
        now[moved] = _push_out(now[moved], floor[moved], carved.edge)
    worst = _offending(carved, limits, now)
    raise OodalError(
        f'{_name_pair(carved, worst, name)} across the cell boundary, and {max_steps} steps did not part them; '
        "use a larger buffer, a smaller limit or repair='drop'"
    )


def _offending(carved: Carved, limits: Limits, now: FloatArray) -> Overlaps:
    """Return overlaps across the boundary, and pairs of the parent that have come closer than they were."""
    overlaps = find_overlaps(carved, limits, now)
    start = carved.displacements
    before = np.linalg.norm(start[overlaps.j] - start[overlaps.i], axis=1)
    # A pair that meets through the boundary now must respect the limit, whatever it was before.
    limit = np.where(overlaps.across, overlaps.limit, np.minimum(overlaps.limit, before * (1.0 - 1e-9)))
    pairs = replace(overlaps, limit=limit)
    return pairs[pairs.distance < pairs.limit]


def _push_out(displacements: FloatArray, floor: FloatArray, edge: float) -> FloatArray:
    """Wrap atoms into the cell, and keep each at least its floor distance away from the centre."""
    wrapped = displacements - edge * np.rint(displacements / edge)
    radius = np.linalg.norm(wrapped, axis=1)
    scale = np.where(radius < floor, floor / np.maximum(radius, 1e-12), 1.0)
    return np.asarray(wrapped * scale[:, None])


def _refuse_core_pairs(carved: Carved, overlaps: Overlaps, name: str) -> None:
    core = overlaps[carved.core[overlaps.i] & carved.core[overlaps.j]]
    if len(core):
        raise OodalError(
            f'{_name_pair(carved, core, name)} across the cell boundary, and both are core atoms, which no repair may '
            'touch; use a larger buffer'
        )


def _name_pair(carved: Carved, overlaps: Overlaps, name: str) -> str:
    worst = int(np.argmin(overlaps.distance))
    i, j = (int(carved.parent_index[k[worst]]) for k in (overlaps.i, overlaps.j))
    return (
        f'{name}: atoms {i} and {j} of the snapshot are {overlaps.distance[worst]:.2f} angstrom apart '
        f'(limit {overlaps.limit[worst]:.2f})'
    )
