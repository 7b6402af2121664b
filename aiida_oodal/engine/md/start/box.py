"""The cell of a structure as LAMMPS takes it, and the way back from the cells of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from numpy.typing import NDArray

__all__ = ('LammpsBox', 'straighten')

FloatArray = NDArray[np.float64]
#: A box that leans by less does not lean [angstrom].
_STRAIGHT = 1e-8


class LammpsBox:
    """The box of a run.

    LAMMPS wants the first cell vector along x and the second in the xy plane, and ends a run whose box leans by more
    than 1.5 of its edge (``fix npt``). So the second and third vector are changed by whole numbers of the periodic ones
    before them until the box leans by half an edge at most: the same crystal in an equivalent cell. LAMMPS does the
    same in mid-run where a box has come to lean too far (it "flips").

    :ivar rotation: row vectors turn by ``v_lammps = v @ rotation`` and back by ``v = v_lammps @ rotation.T``.
    :ivar cell: vectors of the box in rows, in LAMMPS's orientation [angstrom], shape (3, 3).

    :param cell: cell vectors of the structure in rows [angstrom], shape (3, 3).
    :param pbc: its periodic axes.
    """

    def __init__(self, cell: FloatArray, pbc: Sequence[bool] | NDArray[np.bool_] = (True, True, True)) -> None:
        self._open = ~np.asarray(pbc, dtype=bool)
        self._given = np.array(cell, dtype=np.float64)
        given = Prism(np.asarray(cell, dtype=np.float64), pbc=np.asarray(pbc, dtype=bool))
        self.rotation: FloatArray = np.asarray(given.rot_mat, dtype=np.float64)
        self.cell: FloatArray = np.array(given.lammps_cell, dtype=np.float64)
        # whole numbers: how many of each vector of the box make a vector of the structure
        self._combination: FloatArray = np.rint(np.linalg.solve(self.cell.T, given.lammps_tilt.T).T)
        straighten(self.cell)

    @property
    def tilts(self) -> FloatArray:
        """How far the box leans: xy, xz, yz [angstrom]."""
        return self.cell[[1, 2, 2], [0, 0, 1]]

    def equivalent(self, atoms: Atoms) -> Atoms:
        """Return the structure, in its own orientation, in the cell that the box is made of."""
        same: Atoms = atoms.copy()
        same.set_cell(self.cell @ self.rotation.T)
        return same

    def turn_back(self, atoms: Atoms) -> Atoms:
        """Return a frame of the run in orientation and cell of the structure.

        It holds for the whole run, also when the cell changes and LAMMPS flips it: the corner of the cell is the
        origin, as it was at the start. Along an open direction, where LAMMPS wraps its box around the atoms, cell
        vector and origin stay those of the structure.

        :param atoms: a frame as read from a dump: positions, cell, ``celldisp`` and momenta in LAMMPS's orientation.
        """
        turned: Atoms = atoms.copy()
        cell = self._combination @ self._unflip(atoms.cell.array) @ self.rotation.T
        cell[self._open] = self._given[self._open]
        turned.set_cell(cell)
        turned.set_celldisp(np.zeros(3))
        corner = np.where(self._open, 0.0, atoms.get_celldisp().ravel())
        turned.positions = (atoms.positions - corner) @ self.rotation.T
        if atoms.has('momenta'):
            turned.set_momenta(atoms.get_momenta() @ self.rotation.T, apply_constraint=False)
        return turned

    def _unflip(self, cell: FloatArray) -> FloatArray:
        """Return the equivalent of a box of the run that leans most like the one that it began with."""
        found = np.array(cell, dtype=np.float64)
        for i, j in ((1, 0), (2, 1), (2, 0)):
            lean, was = found[i, j] / found[j, j], self.cell[i, j] / self.cell[j, j]
            found[i] += np.rint(was - lean) * found[j]
        return found


def straighten(cell: FloatArray) -> None:
    """Set what is zero but for rounding to zero: LAMMPS refuses a box that leans towards an open direction at all.

    :param cell: in LAMMPS's orientation [angstrom], shape (3, 3); it is changed.
    """
    cell[np.abs(cell) < _STRAIGHT] = 0.0
