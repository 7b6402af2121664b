"""LAMMPS types of a structure: one for each element, and more where atoms of an element differ in mass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

__all__ = ('LammpsTypes', 'assign_types')

#: Masses that differ by less are the same [u].
_SAME_MASS = 1e-6
#: More are no isotopes: masses were drawn at random, or are in a wrong column.
_MOST_TYPES = 100


@dataclass(frozen=True, eq=False)
class LammpsTypes:
    """The types of a run.

    :param elements: element of each type.
    :param masses: of each type [u], shape (n_types,).
    :param of_atoms: type of each atom, from 1, shape (n_atoms,).
    :param own_masses: whether the structure has masses of its own.
    """

    elements: tuple[str, ...]
    masses: NDArray[np.float64]
    of_atoms: NDArray[np.int64]
    own_masses: bool


def assign_types(atoms: Atoms, elements: Sequence[str]) -> LammpsTypes:
    """Give every atom a type.

    The types are those of ``elements``, with one more for each further mass of an element; these come last. Where
    ``elements`` names an element several times, its masses take these types first, in the order of the atoms.

    :param elements: element of each type that the potential knows.
    :raises OodalError: for an element that is not in ``elements``, a mass that is none, or too many of them.
    """
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(elements)):
        raise OodalError(f'the structure has {", ".join(unknown)}, but the potential knows {", ".join(elements)} only')
    masses = np.asarray(atoms.get_masses(), dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(masses) & (masses > 0.0)))
    if wrong.size:
        raise OodalError(f'atom {wrong[0]} has the mass {masses[wrong[0]]:g} u: masses must be above 0')
    of_types, of_elements = list(elements), [atomic_numbers[element] for element in elements]
    type_masses = [float(atomic_masses[number]) for number in of_elements]
    of_atoms = np.zeros(len(atoms), dtype=np.int64)
    for element in dict.fromkeys(elements):
        mine = atoms.numbers == atomic_numbers[element]
        found, places = _distinct(masses[mine])
        slots = [place for place, symbol in enumerate(elements) if symbol == element]
        for _ in range(len(found) - len(slots)):
            slots.append(len(of_types))
            of_types.append(element)
            type_masses.append(0.0)
            if len(of_types) > _MOST_TYPES:
                raise OodalError(
                    f'the atoms of {element} have {len(found)} masses; LAMMPS needs a type for each, and {_MOST_TYPES} '
                    'types are the limit: give atoms that are to be equal the same mass'
                )
        for place, slot in enumerate(slots):
            if len(found):
                type_masses[slot] = float(found[min(place, len(found) - 1)])
        of_atoms[mine] = np.array(slots, dtype=np.int64)[places] + 1
    return LammpsTypes(tuple(of_types), np.array(type_masses), of_atoms, atoms.has('masses'))


def _distinct(masses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the masses that differ, in the order in which they come, and which of them each atom has."""
    order = np.argsort(masses, kind='stable')
    steps = np.diff(masses[order], prepend=masses[order[:1]]) > _SAME_MASS
    group = np.empty(len(masses), dtype=np.int64)
    group[order] = np.cumsum(steps)  # by mass
    _, first = np.unique(group, return_index=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))  # by place
    return masses[np.sort(first)], rank[group]
