"""Turn frames of a run into structures with orientation, cell, elements and held atoms of the initial structure."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms

from aiida_oodal.engine.constraints import free_mask, hold
from aiida_oodal.engine.md.frame import Frame

from .box import LammpsBox
from .types import assign_types

__all__ = ('FramesHome',)


class FramesHome:
    """Turn frames of a run back into the orientation, cell and elements of the structure that it began with.

    :param start: the structure that the run began with.
    :param elements: element of each type that the potential knows.
    :param units: of the script.
    """

    def __init__(self, start: Atoms, elements: Sequence[str], units: str = 'metal') -> None:
        self._box = LammpsBox(start.cell.array, start.pbc)
        self._elements = assign_types(start, elements).elements
        self._free = free_mask(start)
        self._units = units

    def bring(self, frame: Frame) -> Atoms:
        """Return a frame as a structure."""
        atoms = self._box.turn_back(frame.to_atoms(self._elements, lammps_units=self._units))
        if self._free is not None and 'id' in atoms.arrays:
            hold(atoms, self._free[atoms.arrays['id'] - 1])
        return atoms
