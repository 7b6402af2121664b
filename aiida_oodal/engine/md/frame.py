"""One frame of a LAMMPS dump, and how it becomes a structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

__all__ = ('GAMMA_COLUMNS', 'Frame')

FloatArray = NDArray[np.float64]

GAMMA_COLUMNS = ('gamma', 'f_pg', 'd_gamma', 'c_pg', 'f_gamma', 'c_gamma', 'v_gamma')
"""Names under which a dump may hold the extrapolation grade; the first one found is taken."""

_POSITION_COLUMNS = (('x', 'y', 'z'), ('xu', 'yu', 'zu'), ('xs', 'ys', 'zs'), ('xsu', 'ysu', 'zsu'))
VECTORS = (*_POSITION_COLUMNS, ('vx', 'vy', 'vz'), ('fx', 'fy', 'fz'))
"""Columns that belong together; those that stand side by side in a dump lie side by side in memory, too."""
_VELOCITY_UNITS = {
    'metal': 1e-3 / units.fs,
    'real': 1.0 / units.fs,
}  # angstrom/ps and angstrom/fs in ASE's velocity unit


@dataclass(frozen=True, eq=False)
class Frame:
    """One complete frame of a dump.

    :ivar step: MD step.
    :ivar cell: cell vectors in rows, float64 ``(3, 3)``, angstrom.
    :ivar origin: corner of the cell, float64 ``(3,)``, angstrom.
    :ivar pbc: periodic directions, bool ``(3,)``.
    :ivar columns: per-atom values by column name as in the file, each ``(n_atoms,)``, sorted by ``id`` where there is
        one: int64 for ``id type mol proc ix iy iz``, text where the file has text (``element``), float64 otherwise, in
        the units of the run.
    :ivar vectors: of those columns that are a vector, the array ``(n_atoms, 3)`` that they are views of, by the name of
        the first of the three.
    """

    step: int
    cell: FloatArray
    origin: FloatArray
    pbc: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    vectors: Mapping[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def gamma(self) -> FloatArray | None:
        """Return the extrapolation grade, float64 ``(n_atoms,)``, dimensionless, or None if no column holds it."""
        return next((self.columns[name] for name in GAMMA_COLUMNS if name in self.columns), None)

    @property
    def max_gamma(self) -> float:
        """Return the largest extrapolation grade; NaN without atoms, without gamma, or with NaN among the values."""
        gamma = self.gamma
        return float(gamma.max()) if gamma is not None and len(gamma) else float('nan')

    @property
    def positions(self) -> FloatArray:
        """Return the positions, float64 ``(n_atoms, 3)``, angstrom: ``x``, else ``xu``, else scaled ``xs`` or ``xsu``.

        :raises OodalError: if the dump has none of these triples.
        """
        for names in _POSITION_COLUMNS:
            if all(name in self.columns for name in names):
                values = self.vectors.get(names[0])
                if values is None:
                    values = np.column_stack([self.columns[name] for name in names])
                return values if 's' not in names[0] else values @ self.cell + self.origin
        raise OodalError(
            f'frame of step {self.step}: no positions in columns {", ".join(self.columns)}; dump x y z or xs ys zs'
        )

    def to_atoms(self, elements: Sequence[str] | None = None, *, lammps_units: str = 'metal') -> Atoms:
        """Return the frame as structure, sorted by atom id, positions as in the file.

        The structure shares arrays with the frame, as frames may be large: copy it where both are needed. Sets
        ``info['step']``; ``arrays['id']`` and ``arrays['gamma']`` where the dump has them; masses from a column
        ``mass``; momenta from ``vx vy vz``; ``celldisp`` to the corner of the cell.

        :param elements: chemical symbol of each LAMMPS type, first type first; used where the dump has no element
            column.
        :param lammps_units: ``metal`` (velocities in angstrom/ps) or ``real`` (angstrom/fs).
        :raises OodalError: if elements are unknown, or a type has no element, or positions are missing.
        """
        if lammps_units not in _VELOCITY_UNITS:
            raise OodalError(f"lammps_units is {lammps_units!r}: allowed are 'metal' and 'real'")
        atoms = Atoms(cell=self.cell, pbc=self.pbc, celldisp=self.origin, info={'step': self.step})
        # ASE's own setters would copy every array
        atoms.arrays = {'numbers': self._atomic_numbers(elements), 'positions': self.positions}
        if 'id' in self.columns:
            atoms.arrays['id'] = self.columns['id']
        if 'mass' in self.columns:
            atoms.set_masses(self.columns['mass'])
        if all(name in self.columns for name in ('vx', 'vy', 'vz')):
            momenta, factors = np.empty((len(self), 3)), atoms.get_masses() * _VELOCITY_UNITS[lammps_units]
            for axis, name in enumerate(('vx', 'vy', 'vz')):
                np.multiply(self.columns[name], factors, out=momenta[:, axis])
            atoms.arrays['momenta'] = momenta
        if self.gamma is not None:
            atoms.arrays['gamma'] = self.gamma
        return atoms

    def _atomic_numbers(self, elements: Sequence[str] | None) -> NDArray[np.int64]:
        for name in ('element', 'type'):  # a type may be a label (dump_modify types labels)
            if name in self.columns and self.columns[name].dtype.kind == 'U':
                column = self.columns[name]
                numbers = np.zeros(len(self), np.int64)
                left = np.ones(len(self), np.bool_)
                while left.any():  # a handful of elements: much faster than to sort a million words
                    symbol = str(column[left.argmax()])
                    found = column == symbol
                    numbers[found] = self._known_numbers([symbol])
                    left &= ~found
                return numbers
        if elements is None or 'type' not in self.columns:
            raise OodalError(
                f'frame of step {self.step}: no element column (only {", ".join(self.columns)}); give the elements '
                'of the LAMMPS types'
            )
        types = self.columns['type']
        if len(types) and not 1 <= types.min() <= types.max() <= len(elements):
            raise OodalError(
                f'frame of step {self.step}: LAMMPS types {types.min()} to {types.max()}, but elements are given for '
                f'types 1 to {len(elements)} ({", ".join(elements)})'
            )
        by_type: NDArray[np.int64] = self._known_numbers(elements)[types - 1]
        return by_type

    def _known_numbers(self, symbols: Sequence[str]) -> NDArray[np.int64]:
        unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
        if unknown:
            raise OodalError(
                f'frame of step {self.step}: {unknown[0]!r} is no chemical symbol; name the elements of the types '
                '("dump_modify ID element Al Cu ...")'
            )
        return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)
