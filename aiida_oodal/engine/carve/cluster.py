"""Cut small periodic cells around chosen atoms out of a snapshot of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from aiida_oodal.engine.carve import repair as mend
from aiida_oodal.engine.constraints import MOVE_MASK, free_mask, hold
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import (
    SURFACE_TOLERANCE,
    FloatArray,
    IntArray,
    Lattice,
    Region,
    Shape,
)
from aiida_oodal.engine.space.grid import images_inside_each

from .repair import Carved, Limits, Repair

#: Angstrom. Room between the images of a sphere; for a cube it just adds to the edge.
DEFAULT_EPSILON = 0.5
#: Of a snapshot that carries labels: they belong to all its atoms together, never to a piece of it.
_LABELS = frozenset({'energy', 'free_energy', 'energies', 'forces', 'stress', 'stresses', 'virial', 'dipole', 'magmom'})
_OWN_ARRAYS = frozenset({'numbers', 'positions', 'force_mask', 'parent_index', MOVE_MASK})


def extract_cluster(
    snapshot: Atoms,
    center_index: int,
    radius: float,
    buffer: float,
    *,
    cutoff: float,
    epsilon: float = DEFAULT_EPSILON,
    shape: Shape = 'cube',
    min_distance: float = 0.5,
    bond_scale: float = 0.0,
    repair: Repair = 'error',
) -> Atoms:
    """Cut the surroundings of one atom into a small cubic periodic cell.

    The cell has the edge ``2 (radius + buffer) + epsilon``. The centre atom is atom 0, at the middle of the cell; the
    other atoms follow in the order of the snapshot. ``sphere`` takes the atoms closer to the centre than ``radius +
    buffer`` and leaves vacuum in the corners, ``cube`` fills the cell. An atom of which several periodic images lie
    inside is there several times.

    The cluster has the arrays ``force_mask`` (1.0 closer to the centre than ``radius``, else 0.0), ``parent_index``
    (index in the snapshot) and every per-atom array of the snapshot, except labels; it holds the atoms that the
    snapshot holds. Its ``info`` has that of the snapshot, except labels, and ``center_parent_index``, ``radius``,
    ``buffer``, ``epsilon``, ``cutoff``, ``min_distance``, ``bond_scale``, ``shape``, ``repair`` and what the repair
    did: ``repair_dropped`` and ``repair_moved`` (atoms), ``repair_largest_move`` (angstrom).

    The overlap check looks at pairs that meet through the new boundary. The limit is ``min_distance`` or
    ``bond_scale`` times the sum of the covalent radii, whichever is larger. 0.5 angstrom alone stops what no code can
    label, and is not enough to learn from: a cut through a dense phase brings atoms so close that their forces are many
    times the largest of the snapshot, and the fit gets worse than without the cluster. Use ``bond_scale`` 0.75 to 0.9
    and a repair (figures: ``benchmarks/selection.py``). No repair touches an atom that the centre feels, as long as the
    edge is at least twice the cutoff plus the limit.

    :param snapshot: any cell, any mix of periodic axes.
    :param center_index: index of the centre atom, from 0.
    :param radius: of the core, in angstrom.
    :param buffer: thickness of the buffer around the core, in angstrom; may be 0.
    :param cutoff: of the potential, in angstrom; the edge must exceed twice the cutoff.
    :param epsilon: added to the edge, in angstrom.
    :param shape: ``sphere`` or ``cube``.
    :param min_distance: in angstrom.
    :param bond_scale: dimensionless; 0 leaves the covalent radii out of account.
    :param repair: ``error`` refuses a cell with overlaps, ``drop`` leaves buffer atoms out, ``relax`` moves buffer
        atoms.
    :return: the cluster.
    :raises OodalError: on bad input, an edge of at most twice the cutoff, a centre without neighbours, or overlaps
        that cannot be repaired.
    """
    return extract_clusters(
        snapshot,
        [center_index],
        radius,
        buffer,
        cutoff=cutoff,
        epsilon=epsilon,
        shape=shape,
        min_distance=min_distance,
        bond_scale=bond_scale,
        repair=repair,
    )[0]


def extract_clusters(
    snapshot: Atoms,
    centres: Sequence[int] | IntArray,
    radius: float,
    buffer: float,
    *,
    cutoff: float,
    epsilon: float = DEFAULT_EPSILON,
    shape: Shape = 'cube',
    min_distance: float = 0.5,
    bond_scale: float = 0.0,
    repair: Repair = 'error',
) -> list[Atoms]:
    """Do :func:`extract_cluster` for several centres at close to the price of one pass over the snapshot.

    :param centres: indices of the centre atoms, from 0.
    :return: one cluster a centre, in the same order.
    :raises OodalError: as :func:`extract_cluster`; the message names the centre.
    """
    cut = Cut(
        radius=float(radius),
        buffer=float(buffer),
        cutoff=float(cutoff),
        epsilon=float(epsilon),
        shape=shape,
        min_distance=float(min_distance),
        bond_scale=float(bond_scale),
        repair=repair,
    )
    clusters = []
    for result in cut_each(snapshot, centres, cut):
        if isinstance(result, OodalError):
            raise result
        clusters.append(result)
    return clusters


@dataclass(frozen=True)
class Cut:
    """How clusters are cut; the fields are the parameters of :func:`extract_cluster`, and one more.

    :param whole_atoms: a snapshot of at most this many atoms is not cut: :func:`take_whole`.
    :raises OodalError: when a value makes no sense, or the edge is at most twice the cutoff.
    """

    radius: float
    buffer: float
    cutoff: float
    epsilon: float = DEFAULT_EPSILON
    shape: Shape = 'cube'
    min_distance: float = 0.5
    bond_scale: float = 0.0
    repair: Repair = 'error'
    whole_atoms: int = 0

    def __post_init__(self) -> None:
        for name in ('radius', 'cutoff', 'buffer', 'epsilon', 'min_distance', 'bond_scale'):
            value, positive = getattr(self, name), name in ('radius', 'cutoff')
            if not np.isfinite(value) or value < 0 or (positive and value == 0):
                raise OodalError(f'{name} is {value}; it must be finite and {"above" if positive else "at least"} 0')
        if self.shape not in get_args(Shape):
            raise OodalError(f"shape is {self.shape!r}; it must be 'sphere' or 'cube'")
        if self.repair not in get_args(Repair):
            raise OodalError(f"repair is {self.repair!r}; it must be 'error', 'drop' or 'relax'")
        if self.edge <= 2.0 * self.cutoff:
            raise OodalError(
                f'the edge of the cluster cell is {self.edge:g} angstrom and must exceed twice the cutoff of '
                f'{self.cutoff:g} angstrom; raise the buffer above {self.cutoff - self.radius - self.epsilon / 2:g}'
            )
        if self.min_distance >= self.edge / 2:
            raise OodalError(
                f'min_distance is {self.min_distance:g} angstrom; it must be below half the edge of {self.edge:g}'
            )

    @property
    def edge(self) -> float:
        """Return the edge of the cell in angstrom."""
        return 2.0 * (self.radius + self.buffer) + self.epsilon

    @property
    def region(self) -> Region:
        """Return what is taken out of the snapshot."""
        return Region(self.shape, self.radius + self.buffer if self.shape == 'sphere' else self.edge / 2)


def cut_each(snapshot: Atoms, centres: Sequence[int] | IntArray, cut: Cut) -> Iterator[Atoms | OodalError]:
    """Cut a cluster around each centre; if one cannot be cut, its error takes its place.

    A snapshot of at most ``cut.whole_atoms`` atoms is taken whole for each centre.

    :param centres: indices of the centre atoms, from 0.
    :return: for each centre in turn the cluster, or the error.
    :raises OodalError: at once, when the snapshot or a centre index is bad.
    """
    indices = _check_centres(centres, len(snapshot))
    positions = np.ascontiguousarray(snapshot.positions, dtype=np.float64)
    _check_finite(positions)
    if len(snapshot) <= cut.whole_atoms:
        for centre in indices.tolist():
            try:
                yield take_whole(snapshot, centre, min_distance=cut.min_distance)
            except OodalError as error:
                yield error
        return
    lattice = Lattice.of(snapshot)
    found = images_inside_each(positions, lattice, positions[indices], cut.region)
    for centre, (parent_index, displacements) in zip(indices.tolist(), found, strict=True):
        order = _centre_first(centre, parent_index, displacements)
        carved = Carved(
            snapshot.numbers[parent_index[order]],
            displacements[order],
            parent_index[order],
            cut.radius,
            cut.edge,
            cut.cutoff,
        )
        try:
            yield _finish(snapshot, centre, carved, cut)
        except OodalError as error:
            yield error


def take_whole(snapshot: Atoms, centre: int, *, min_distance: float = 0.5) -> Atoms:
    """Return a small snapshot as a cluster without a buffer, in its own cell.

    The centre comes first, the other atoms follow in their order. ``force_mask`` is 1 for all, ``shape`` is ``whole``;
    the rest is as :func:`extract_cluster` has it, without what belongs to a cut.

    :param min_distance: in angstrom.
    :raises OodalError: if atoms overlap.
    """
    limit = min(min_distance, mend.PARENT_LIMIT)
    first, second, distance = neighbor_list('ijd', snapshot, limit)
    if len(distance):
        raise OodalError(
            f'atoms {first[0]} and {second[0]} are {distance[0]:.3g} angstrom apart in the snapshot itself: the frame '
            'is not physical; take an earlier one'
        )
    order = np.concatenate([[centre], np.delete(np.arange(len(snapshot)), centre)])
    bare = Atoms(snapshot.numbers[order], snapshot.positions[order], cell=snapshot.cell, pbc=snapshot.pbc)
    info = {'shape': 'whole', 'center_parent_index': centre}
    return _inherit(bare, snapshot, order, np.ones(len(order), dtype=bool), info)


def _finish(snapshot: Atoms, centre: int, carved: Carved, cut: Cut) -> Atoms:
    """Check and mend one carved cell, and make the cluster of it."""
    name = f'cluster around atom {centre}'
    _check_neighbours(carved, cut.radius + cut.buffer, name)
    keep, displacements, report = _mend(carved, cut, name)
    return _assemble(snapshot, carved, keep, displacements, {**vars(cut), **report, 'center_parent_index': centre})


def _mend(carved: Carved, cut: Cut, name: str) -> tuple[IntArray, FloatArray, dict[str, Any]]:
    """Apply the repair; return the atoms to keep, the displacements of all, and what was done."""
    limits = Limits(cut.min_distance, cut.bond_scale)
    keep, displacements = np.arange(len(carved.numbers)), carved.displacements
    report = {'repair_dropped': 0, 'repair_moved': 0, 'repair_largest_move': 0.0}
    overlaps = mend.find_overlaps(carved, limits)
    if not len(overlaps):
        return keep, displacements, report
    mend.check_parent(carved, overlaps, cut.min_distance, name)
    overlaps = overlaps[overlaps.across]
    if not len(overlaps):
        return keep, displacements, report
    if cut.repair == 'error':
        mend.refuse(carved, overlaps, name)
    if cut.repair == 'drop':
        keep = mend.drop(carved, overlaps, name)
        report['repair_dropped'] = len(carved.numbers) - len(keep)
    else:
        displacements = mend.relax(carved, limits, name)
        moves = displacements - carved.displacements
        moves -= carved.edge * np.rint(moves / carved.edge)
        lengths = np.linalg.norm(moves, axis=1)
        report |= {'repair_moved': int(np.count_nonzero(lengths)), 'repair_largest_move': float(lengths.max())}
    return keep, displacements, report


def _assemble(
    snapshot: Atoms, carved: Carved, keep: IntArray, displacements: FloatArray, info: dict[str, Any]
) -> Atoms:
    """Make the cluster of the kept atoms."""
    positions = displacements[keep] + carved.edge / 2
    bare = Atoms(carved.numbers[keep], positions, cell=[carved.edge] * 3, pbc=True)
    return _inherit(bare, snapshot, carved.parent_index[keep], carved.core[keep], info)


def _inherit(
    cluster: Atoms, snapshot: Atoms, parent_index: IntArray, core: NDArray[np.bool_], info: dict[str, Any]
) -> Atoms:
    """Give a bare cluster everything that it inherits from the snapshot, and return it."""
    cluster.info = {key: value for key, value in snapshot.info.items() if not _is_label(key)} | info
    for key, values in snapshot.arrays.items():
        if key not in _OWN_ARRAYS and not _is_label(key):
            cluster.arrays[key] = values[parent_index]
    if (free := free_mask(snapshot)) is not None:
        hold(cluster, free[parent_index])
    cluster.arrays['force_mask'] = core.astype(np.float64)
    cluster.arrays['parent_index'] = parent_index
    return cluster


def _is_label(key: str) -> bool:
    return key in _LABELS or key.startswith('REF_')


def _centre_first(centre: int, parent_index: IntArray, displacements: FloatArray) -> IntArray:
    """Return the order that puts the centre itself, not one of its images, first."""
    images = np.flatnonzero(parent_index == centre)
    itself = images[~displacements[images].any(axis=1)][0]
    order = np.arange(len(parent_index))
    order[1 : itself + 1] = order[:itself]
    order[0] = itself
    return order


def _check_centres(centres: Sequence[int] | IntArray, n_atoms: int) -> IntArray:
    if len(centres) == 0:
        return np.empty(0, dtype=np.int64)
    indices = np.asarray(centres)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise OodalError(f'the centre atoms {centres!r} are not a list of whole numbers')
    bad = indices[(indices < 0) | (indices >= n_atoms)]
    if len(bad):
        raise OodalError(f'centre atom {bad[0]} does not exist: the snapshot has atoms 0 to {n_atoms - 1}')
    return indices.astype(np.int64)


def _check_finite(positions: FloatArray) -> None:
    finite = np.isfinite(positions)
    if not finite.all():
        bad = int(np.flatnonzero(~finite.all(axis=1))[0])
        raise OodalError(f'atom {bad} of the snapshot is at {positions[bad].tolist()}; take an earlier frame')


def _check_neighbours(carved: Carved, reach: float, name: str) -> None:
    """Refuse an empty cell: the corners of a cube do not count, they are beyond the buffer."""
    if not np.any(carved.distances[1:] < reach - SURFACE_TOLERANCE):
        raise OodalError(
            f'{name}: no other atom within radius + buffer = {reach:g} angstrom; the snapshot has exploded or the '
            'radius is too small'
        )
