"""Atoms that are held fixed: which they are by ASE's constraints, as one array, and back.

``ase.constraints`` brings half of SciPy, a third of a second in each of many short jobs that hold no atom: it is
imported where there is something to hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

__all__ = ('MOVE_MASK', 'free_mask', 'hold', 'lost_constraints')

#: Per-atom array, as extended XYZ calls it: True where an atom may move; shape (n_atoms,), or (n_atoms, 3) for x, y, z.
MOVE_MASK = 'move_mask'
#: Words for True in files of text.
_TRUE = ('t', 'true', '1')
#: What is nearly along an axis is along it.
_ALONG = 1e-6


def free_mask(atoms: Atoms) -> NDArray[np.bool_] | None:
    """Return where atoms may move: shape (n_atoms,), or (n_atoms, 3) if some are held along single axes.

    A per-atom array ``move_mask`` counts like a constraint.

    :return: None if all are free.
    """
    if not atoms.constraints and MOVE_MASK not in atoms.arrays:
        return None
    free = np.ones((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        held = _held_axes(constraint, atoms)
        if held is not None:
            free[constraint.index] &= ~held
    if (given := _given_mask(atoms)) is not None:
        free &= given
    if free.all():
        return None
    whole = np.asarray(free.all(axis=1))
    return whole if np.array_equal(whole, free.any(axis=1)) else free


def lost_constraints(atoms: Atoms) -> list[str]:
    """Return the names of the constraints that :func:`free_mask` cannot tell."""
    lost = [type(each).__name__ for each in atoms.constraints if _held_axes(each, atoms) is None]
    return [*lost, MOVE_MASK] if MOVE_MASK in atoms.arrays and _given_mask(atoms) is None else lost


def hold(atoms: Atoms, free: NDArray[np.bool_]) -> None:
    """Set the constraints of a structure from what :func:`free_mask` returns.

    :param free: shape (n_atoms,) or (n_atoms, 3).
    """
    from ase.constraints import FixAtoms, FixCartesian

    axes = free if free.ndim == 2 else np.repeat(free[:, np.newaxis], 3, axis=1)
    constraints: list[Any] = []
    for pattern in np.unique(axes[~axes.all(axis=1)], axis=0):
        index = np.flatnonzero((axes == pattern).all(axis=1))
        constraints.append(FixCartesian(index, mask=~pattern) if pattern.any() else FixAtoms(index))
    atoms.set_constraint(constraints)


def _given_mask(atoms: Atoms) -> NDArray[np.bool_] | None:
    """Return the array ``move_mask``, shape (n_atoms, 1) or (n_atoms, 3); None if it is not there or is none."""
    given = np.asarray(atoms.arrays.get(MOVE_MASK, np.empty(0)))
    if given.shape not in ((len(atoms),), (len(atoms), 1), (len(atoms), 3)):
        return None
    if given.dtype.kind in 'OU':  # written as words
        given = np.isin(np.char.lower(given.astype(str)), _TRUE)
    return given.astype(bool).reshape(len(atoms), -1)


def _held_axes(constraint: Any, atoms: Atoms) -> NDArray[np.bool_] | None:
    """Return which of x, y and z a constraint holds, shape (3,); None if it holds something else."""
    from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled

    if isinstance(constraint, FixAtoms):
        return np.ones(3, dtype=bool)
    if isinstance(constraint, FixCartesian):
        return np.asarray(constraint.mask, dtype=bool)
    if isinstance(constraint, FixScaled):
        return _of_cell(np.asarray(constraint.mask, dtype=bool), atoms)
    if isinstance(constraint, (FixedPlane, FixedLine)):
        along = np.asarray(np.abs(constraint.dir) > 1.0 - _ALONG)
        if not along.any():
            return None
        return along if isinstance(constraint, FixedPlane) else ~along
    return None


def _of_cell(mask: NDArray[np.bool_], atoms: Atoms) -> NDArray[np.bool_] | None:
    """Return the axes that are held where cell vectors are, if the cell is a box along x, y and z."""
    if mask.all():
        return mask
    cell = atoms.cell.array
    box = np.abs(cell - np.diag(np.diag(cell))).max() < _ALONG * max(float(np.abs(cell).max()), 1.0)
    return mask if box else None
