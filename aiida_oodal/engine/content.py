"""Which structures are the same, by their content.

A key is used for lookup: structures with the same key are the same. A fingerprint is a few numbers, to be compared
within a tolerance: hashes of rounded positions differ when a file holds one digit less, projections of the positions
differ by less than the rounding itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = [
    'N_NUMBERS',
    'TOLERANCE',
    'are_same',
    'choose_heldout',
    'content_key',
    'find_repeats',
    'find_same',
    'fingerprint',
    'fingerprints',
    'is_isolated',
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Projections of the positions; one of the cell and one of the atomic numbers come on top.
_N_PROJECTIONS = 4
#: Length of a fingerprint.
N_NUMBERS = _N_PROJECTIONS + 2
#: Largest difference between fingerprints of one structure, angstrom: what files with four decimals leave over.
TOLERANCE = 1e-4
#: Frequencies of the weights: roots of primes, so that no two atoms have the same weights.
_FREQUENCIES = np.sqrt([2.0, 3.0, 5.0, 7.0, 11.0, 13.0])
#: An atom without an image nearer than this is isolated where the cutoff of the models is not known [angstrom].
_FAR = 8.0


def content_key(atoms: Atoms, decimals: int = 4) -> str:
    """Return a hash of what would be labelled: elements, positions from atom 0 and cell.

    The order of the other atoms, and where the cell begins, make no difference.

    :param decimals: of an angstrom that count.
    """
    cell = np.asarray(atoms.cell.array)
    # Directions without a cell vector, as those of a molecule, get one of length 1.
    complete = np.asarray(atoms.cell.complete().array)
    fractional = np.linalg.solve(complete.T, (atoms.positions - atoms.positions[:1]).T).T
    periodic = np.asarray(atoms.pbc, dtype=bool)
    unit = 10.0**-decimals / np.linalg.norm(complete, axis=1)
    steps = np.rint(fractional / unit).astype(np.int64)
    period = np.rint(1.0 / unit).astype(np.int64)
    steps[:, periodic] %= period[periodic]
    rows = np.column_stack([atoms.numbers, steps])
    rows = rows[np.lexsort(rows.T[::-1])]
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes())
    digest.update(np.rint(cell * 10.0**decimals).astype(np.int64).tobytes())
    digest.update(periodic.tobytes())
    return digest.hexdigest()


def choose_heldout(structures: Sequence[Atoms], fraction: float) -> set[int]:
    """Return which structures of a set are held out: those with the smallest keys, so that a set is always split alike.

    Single atoms, which give E0, are never held out.

    :param fraction: share of the others, rounded to the nearest number of structures.
    """
    several = sorted((content_key(atoms), row) for row, atoms in enumerate(structures) if len(atoms) > 1)
    return {row for _, row in several[: round(fraction * len(several))]}


def fingerprints(
    offsets: IntArray, numbers: IntArray, positions: FloatArray, cells: FloatArray, pbc: NDArray[np.bool_]
) -> FloatArray:
    """Return the fingerprints of a set, shape (n_structures, N_NUMBERS); the order of the atoms counts.

    Projections of all coordinates on fixed waves, over the root of their number: a random displacement of each
    coordinate by d changes them by about d / sqrt(2).

    :param offsets: structure ``i`` owns atoms ``offsets[i]:offsets[i + 1]``, shape (n_structures + 1,).
    :param numbers: atomic numbers, shape (n_atoms,).
    :param positions: shape (n_atoms, 3), angstrom.
    :param cells: cell vectors in rows, shape (n_structures, 3, 3), angstrom; only those of periodic axes count.
    :param pbc: periodic axes, shape (n_structures, 3).
    """
    sizes = np.diff(offsets)
    result = np.zeros((len(sizes), N_NUMBERS))
    if not len(sizes):
        return result
    place = np.arange(len(numbers)) - np.repeat(offsets[:-1], sizes)
    step = (3 * place[:, None] + np.arange(3)).astype(np.float64)
    for column, frequency in enumerate(_FREQUENCIES[:_N_PROJECTIONS]):
        parts = (np.sin((step + 1.0) * frequency) * positions).sum(axis=1)
        result[:, column] = np.add.reduceat(parts, offsets[:-1]) / np.sqrt(3.0 * sizes)
    closed = (np.where(pbc[:, :, None], cells, 0.0)).reshape(-1, 9)
    result[:, -2] = closed @ np.sin(np.arange(1.0, 10.0) * _FREQUENCIES[-2]) / 3.0
    waves = np.sin((place + 1.0) * _FREQUENCIES[-1]) * numbers
    result[:, -1] = np.add.reduceat(waves, offsets[:-1]) / np.sqrt(sizes)
    return result


def fingerprint(atoms: Atoms) -> FloatArray:
    """Return the fingerprint of one structure with atoms, shape (N_NUMBERS,)."""
    found: FloatArray = fingerprints(
        np.array([0, len(atoms)]),
        np.asarray(atoms.numbers, dtype=np.int64),
        np.asarray(atoms.positions, dtype=np.float64),
        np.asarray(atoms.cell.array, dtype=np.float64)[None],
        np.asarray(atoms.pbc, dtype=bool)[None],
    )[0]
    return found


def are_same(one: FloatArray, other: FloatArray) -> NDArray[np.bool_]:
    """Say for each pair of fingerprints, shape (n, N_NUMBERS), whether they are of the same structure, shape (n,)."""
    same: NDArray[np.bool_] = np.abs(one - other).max(axis=1, initial=0.0) <= TOLERANCE
    return same


def find_same(wanted: FloatArray, among: FloatArray) -> IntArray:
    """Return for each fingerprint the row of the same structure among others, shape (n,); -1 where there is none."""
    if not len(among) or not len(wanted):
        return np.full(len(wanted), -1, dtype=np.int64)
    _, rows = cKDTree(among).query(wanted, p=np.inf, distance_upper_bound=TOLERANCE * (1.0 + 1e-9))
    result: IntArray = np.where(rows < len(among), rows, -1).astype(np.int64)
    return result


def find_repeats(found: FloatArray) -> IntArray:
    """Return for each fingerprint of a set the first row of the same structure, shape (n,); its own where it is new."""
    own = np.arange(len(found))
    if not len(found):
        return own
    # Rows that lie on both sides of an edge of this grid are missed: one in a million.
    _, first, group = np.unique(np.round(found / (100.0 * TOLERANCE)), axis=0, return_index=True, return_inverse=True)
    rows = first[group.ravel()]
    result: IntArray = np.where(are_same(found, found[rows]), rows, own).astype(np.int64)
    return result


def is_isolated(atoms: Atoms, n_pairs: int | None = None) -> bool:
    """Say whether a structure is one atom without neighbours.

    :param n_pairs: pairs of neighbours within the cutoff of the models; if it is not known, images within 8 angstrom
        are looked for.
    """
    if len(atoms) != 1:
        return False
    if n_pairs is None:
        images: NDArray[Any] = neighbor_list('i', atoms, _FAR)
        n_pairs = len(images)
    return n_pairs == 0
