"""Which elements meet in a data set, and how close they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from aiida_oodal.engine.space.geometry import Lattice, Region
from aiida_oodal.engine.space.grid import images_inside_each

from .targets import named

#: Two elements in alphabetical order.
Pair = tuple[str, str]


def pair(one: str, other: str) -> Pair:
    """Return the name of a pair of elements."""
    return (one, other) if one <= other else (other, one)


def shortest_distances(structures: Iterable[tuple[str, Atoms]], cutoff: float) -> dict[Pair, float]:
    """Find how close two atoms come, for every pair of the elements that there are.

    :param structures: each with its name in messages.
    :param cutoff: how far to look, angstrom.
    :return: angstrom; infinite for pairs that are never within the cutoff.
    :raises OodalError: naming a structure with a cell that is none.
    """
    region = Region('sphere', cutoff)
    elements: set[str] = set()
    found: dict[Pair, float] = {}
    for title, atoms in structures:
        elements.update(atoms.get_chemical_symbols())
        with named(title, atoms):
            _look_around(atoms, region, found)
    return {name: found.get(name, np.inf) for name in combinations_with_replacement(sorted(elements), 2)}


def _look_around(atoms: Atoms, region: Region, found: dict[Pair, float]) -> None:
    """Put into ``found`` what is closer in a structure than anything before."""
    numbers, positions = atoms.numbers, np.ascontiguousarray(atoms.positions, dtype=np.float64)
    near = images_inside_each(positions, Lattice.of(atoms), positions, region)
    for centre, (index, displacements) in enumerate(near):
        others = (index != centre) | np.any(displacements != 0.0, axis=1)
        distances, kinds = np.linalg.norm(displacements[others], axis=1), numbers[index[others]]
        for kind in np.unique(kinds):
            name = pair(chemical_symbols[numbers[centre]], chemical_symbols[kind])
            found[name] = min(found.get(name, np.inf), float(distances[kinds == kind].min()))


def name_pairs(pairs: Iterable[Pair]) -> str:
    """Write pairs as in ``Al-Al, Al-Cu``."""
    return ', '.join('-'.join(each) for each in pairs)


def unmet(distances: Mapping[Pair, float]) -> list[Pair]:
    """Return the pairs of :func:`shortest_distances` that are never within the cutoff."""
    return [name for name, distance in distances.items() if not np.isfinite(distance)]
