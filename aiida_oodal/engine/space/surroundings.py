"""Atoms, each with its own neighbours as points in space: what potentials are evaluated on outside MD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError

from .geometry import FloatArray, IntArray, Lattice, Region
from .grid import images_inside_each


@dataclass(frozen=True)
class Surroundings:
    """Some atoms, each followed by neighbours of its own.

    :param positions: of the atoms, then of the neighbours of the first, of the second, ...; shape (n_points, 3),
        angstrom.
    :param species: index of the element of each point in the potential, shape (n_points,).
    :param origins: the atom that each point is or is an image of, shape (n_points,), as an index into the structure.
    :param counts: neighbours of each atom, shape (n_atoms,).
    """

    positions: FloatArray
    species: IntArray
    origins: IntArray
    counts: IntArray


def find_surroundings(
    atoms: Atoms, species: IntArray, cutoff: float, chosen: IntArray | None = None, *, batch: int | None = None
) -> Iterator[Surroundings]:
    """Find the neighbours of chosen atoms.

    :param species: index of the element of each atom in the potential, shape (n_atoms,).
    :param cutoff: angstrom.
    :param chosen: indices of atoms, all when not given.
    :param batch: atoms in each :class:`Surroundings`, all together when not given.
    :raises OodalError: if a position is not finite, or the cell is flat.
    """
    if not np.isfinite(atoms.positions.sum()):
        raise OodalError('the positions are not finite')
    centres = np.arange(len(atoms)) if chosen is None else chosen
    positions = np.ascontiguousarray(atoms.positions, dtype=np.float64)
    near = images_inside_each(positions, Lattice.of(atoms), positions[centres], Region('sphere', cutoff))
    step = max(len(centres), 1) if batch is None else batch
    for start in range(0, len(centres), step):
        group = centres[start : start + step]
        points, origins = [positions[group]], [group]
        for atom in group.tolist():
            index, displacements = next(near)
            others = (index != atom) | np.any(displacements != 0.0, axis=1)
            points.append(positions[atom] + displacements[others])
            origins.append(index[others])
        all_origins = np.concatenate(origins)
        yield Surroundings(
            positions=np.concatenate(points),
            species=species[all_origins],
            origins=all_origins,
            counts=np.array([len(part) for part in origins[1:]], dtype=np.int64),
        )
