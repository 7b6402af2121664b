"""Atoms that MD holds: no force, no velocity, not integrated, and left out of the temperature."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.constraints import free_mask
from aiida_oodal.engine.errors import OodalError

__all__ = ('group_words', 'held_atoms')

#: Words in one command: LAMMPS takes any number, and people read them.
_WORDS = 20


def held_atoms(atoms: Atoms) -> NDArray[np.int64]:
    """Return the atoms that are held, by index from 0.

    :raises OodalError: if atoms are held along single axes, which MD cannot do: LAMMPS turns the structure.
    """
    free = free_mask(atoms)
    if free is None:
        return np.empty(0, dtype=np.int64)
    if free.ndim == 2:
        atom = int(np.flatnonzero(free.any(axis=1) & ~free.all(axis=1))[0])
        held = ', '.join('xyz'[axis] for axis in np.flatnonzero(~free[atom]))
        raise OodalError(
            f'atom {atom} is held along {held} only, which MD cannot do: hold all of it (FixAtoms) or free it'
        )
    return np.flatnonzero(~free)


def group_words(atoms: NDArray[np.int64]) -> list[str]:
    """Return what stands behind ``group ID id``, a command's worth each: ids from 1, neighbours as ``first:last``.

    :param atoms: indices from 0, rising.
    """
    if not len(atoms):
        return []
    ids = atoms + 1
    breaks = [0, *(np.flatnonzero(np.diff(ids) > 1) + 1).tolist(), len(ids)]
    words = [
        f'{ids[start]}' if stop - start == 1 else f'{ids[start]}:{ids[stop - 1]}' for start, stop in pairwise(breaks)
    ]
    return [' '.join(words[start : start + _WORDS]) for start in range(0, len(words), _WORDS)]
