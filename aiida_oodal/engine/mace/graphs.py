"""Structures as MACE sees them: who is whose neighbour.

A graph is built once for all models of an ensemble: they share cutoff and elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

__all__ = ['Batch', 'Graph', 'build_graph', 'merge_graphs']


@dataclass(frozen=True, eq=False)
class Graph:
    """One structure as MACE sees it.

    :param numbers: atomic numbers, shape ``(n_atoms,)``.
    :param positions: shape ``(n_atoms, 3)``, angstrom.
    :param edges: sender and receiver of each edge, shape ``(2, n_edges)``; every pair is there in both directions.
    :param shifts: what to add to ``positions[receiver] - positions[sender]`` where a pair lies across the boundary of
        the cell, shape ``(n_edges, 3)``, angstrom.
    :param places: positions moved into the cell where it is periodic, shape ``(n_atoms, 3)``, angstrom: atoms that are
        neighbours are mostly near each other here, however far they have diffused.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    edges: NDArray[np.int64]
    shifts: NDArray[np.float64]
    places: NDArray[np.float64]

    @property
    def n_edges(self) -> int:
        """Pairs of neighbours, counted in both directions."""
        return int(self.edges.shape[1])

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, eq=False)
class Batch:
    """Graphs side by side; arrays as in :class:`Graph`.

    :param sizes: atoms of each graph, shape ``(n_graphs,)``.
    :param n_wanted: the first so many graphs are evaluated for their own sake; the others are surroundings.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    edges: NDArray[np.int64]
    shifts: NDArray[np.float64]
    sizes: NDArray[np.int64]
    n_wanted: int


def build_graph(atoms: Atoms, cutoff: float) -> Graph:
    """Find all pairs of atoms nearer than the cutoff.

    :raises OodalError: if a periodic direction has no lattice vector or the vectors are not independent.
    """
    numbers = np.array(atoms.numbers, dtype=np.int64)
    positions = np.array(atoms.positions, dtype=np.float64)
    if not atoms.pbc.any():
        return Graph(numbers, positions, *_open_pairs(positions, cutoff), places=positions)
    cell = _closed_cell(atoms)
    fractional = positions @ np.linalg.inv(cell)
    fractional[:, atoms.pbc] %= 1.0
    return Graph(numbers, positions, *_periodic_pairs(positions, cell, atoms.pbc, cutoff), places=fractional @ cell)


def merge_graphs(graphs: Sequence[Graph]) -> Batch:
    """Put graphs side by side."""
    sizes = np.array([len(graph) for graph in graphs], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    return Batch(
        numbers=np.concatenate([graph.numbers for graph in graphs]),
        positions=np.concatenate([graph.positions for graph in graphs]),
        edges=np.concatenate([graph.edges + start for graph, start in zip(graphs, starts, strict=True)], axis=1),
        shifts=np.concatenate([graph.shifts for graph in graphs]),
        sizes=sizes,
        n_wanted=len(graphs),
    )


def _closed_cell(atoms: Atoms) -> NDArray[np.float64]:
    """Return three independent vectors in rows; open directions get one that is longer than the structure.

    Vectors of open directions mean nothing, and may be missing or lean: new ones stand at right angles to the others.
    """
    cell = np.array(atoms.cell.array, dtype=np.float64)
    periodic = cell[atoms.pbc]
    if not np.isfinite(periodic).all() or np.linalg.matrix_rank(periodic) < len(periodic):
        raise OodalError(
            f'the periodic directions {np.flatnonzero(atoms.pbc).tolist()} have the cell vectors {periodic.tolist()}: '
            'they must be finite and independent; correct the cell or make the structure non-periodic'
        )
    # the last right singular vectors span what is at right angles to the periodic ones
    normals = np.linalg.svd(periodic)[2][len(periodic) :]
    heights = atoms.positions @ normals.T
    cell[~atoms.pbc] = normals * (np.ptp(heights, axis=0) + 1.0)[:, None]
    return cell


def _periodic_pairs(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return edges and shifts of a structure that is periodic in some directions; see :class:`Graph`."""
    from matscipy.neighbours import neighbour_list

    first, second, images = neighbour_list('ijS', positions=positions, cell=cell, pbc=pbc, cutoff=float(cutoff))
    return np.stack([first, second]).astype(np.int64), images @ cell


def _open_pairs(positions: NDArray[np.float64], cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return edges and shifts of a structure without periodic directions.

    A tree, since grids of cells fill the memory when atoms have flown far apart.
    """
    from scipy.spatial import cKDTree

    pairs: NDArray[Any] = cKDTree(positions).query_pairs(cutoff, output_type='ndarray')
    edges = np.concatenate([pairs, pairs[:, ::-1]]).T.astype(np.int64)
    return np.ascontiguousarray(edges), np.zeros((edges.shape[1], 3))
