"""One frame of a LAMMPS dump: how it is read, and how it becomes a structure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

from .lines import DamagedError, Lines
from .rows import parse_rows

__all__ = ('FRAME_TITLE', 'GAMMA_COLUMNS', 'Frame', 'parse_frame')

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
    :ivar units: units of the run, if the dump names them (``dump_modify units yes``).
    """

    step: int
    cell: FloatArray
    origin: FloatArray
    pbc: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    vectors: Mapping[str, FloatArray] = field(default_factory=dict)
    units: str | None = None

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


#: How the first line of a frame begins.
FRAME_TITLE = b'ITEM: TIMESTEP'
_TEXT_COLUMNS = frozenset(('element', 'type', 'typelabel'))
_INTEGER_COLUMNS = frozenset(('id', 'type', 'mol', 'proc', 'ix', 'iy', 'iz'))
_INTEGER = re.compile(rb'\s*(-?\d{1,18})\s*')


def parse_frame(lines: Lines) -> Frame | None:
    """Read the next frame; None where the file ends between two frames.

    :raises CutError: if the file ends inside the frame.
    :raises DamagedError: if a line does not fit the format.
    """
    if lines.at_end():
        return None
    step = n_atoms = box = units = None
    while True:
        title = lines.next(expected=b'ITEM: ')
        name = title[len(b'ITEM: ') :].strip()
        if name == b'TIMESTEP' and step is None:
            step = _integer(lines)
        elif name == b'NUMBER OF ATOMS':
            n_atoms = _integer(lines)
        elif name.startswith(b'BOX BOUNDS'):
            box = _box(lines, name.decode('ascii', 'replace').split()[2:])
        elif name == b'UNITS':
            units = lines.next().decode('ascii', 'replace').strip()
        elif name == b'TIME':
            lines.next()
        elif name.startswith(b'ATOMS ') and step is not None and n_atoms is not None and box is not None:
            names = name.decode('ascii', 'replace').split()[1:]
            columns, vectors = _columns(lines, names, n_atoms)
            return Frame(step, *box, columns=columns, vectors=vectors, units=units)
        else:
            raise DamagedError(lines.number, f'{title[:60]!r} does not belong here in a dump of atoms')


def _integer(lines: Lines) -> int:
    line = lines.next()
    match = _INTEGER.fullmatch(line)
    if match is None or int(match[1]) < 0:
        raise DamagedError(lines.number, f'{line[:40]!r} is not a number of steps or atoms')
    return int(match[1])


def _box(lines: Lines, words: list[str]) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return cell ``(3, 3)``, origin ``(3,)`` and periodicity ``(3,)``.

    The three formats are those of the LAMMPS manual, "dump" command: orthogonal, restricted triclinic (the bounds are
    those of the bounding box, page "Howto triclinic") and general triclinic (``abc origin``).
    """
    kind = ' '.join(words[: len(words) - 3] if len(words) > 3 else [])
    widths = {'': 2, 'xy xz yz': 3, 'abc origin': 4}
    if kind not in widths:
        raise DamagedError(lines.number, f'cell of unknown kind {" ".join(words)!r}')
    rows = []
    for _ in range(3):
        line = lines.next()
        try:
            rows.append([float(word) for word in line.split()])
        except ValueError:
            raise DamagedError(lines.number, f'{line[:80]!r} is not a line of numbers') from None
        if len(rows[-1]) != widths[kind]:
            raise DamagedError(
                lines.number, f'the cell has {len(rows[-1])} numbers in this line instead of {widths[kind]}'
            )
    box = np.array(rows)
    # Dumps older than 2010 do not name the boundaries; periodic is LAMMPS's default.
    pbc = np.array([word == 'pp' for word in words[-3:]] or [True] * 3)
    if kind == 'abc origin':
        return box[:, :3], box[:, 3], pbc
    xy, xz, yz = box[:, 2] if kind else (0.0, 0.0, 0.0)
    low = box[:, 0] - (min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0)
    high = box[:, 1] - (max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0)
    cell = np.diag(high - low)
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return cell, low, pbc


def _columns(lines: Lines, names: list[str], n_atoms: int) -> tuple[dict[str, NDArray[Any]], dict[str, FloatArray]]:
    """Read the lines of the atoms into columns and vectors, sorted by atom id."""
    first_of_three = {names.index(triple[0]): triple[0] for triple in VECTORS if _contains(names, triple)}
    found, triples = parse_rows(
        lines,
        n_atoms,
        len(names),
        text=[j for j, name in enumerate(names) if name in _TEXT_COLUMNS],
        whole={j: name for j, name in enumerate(names) if name in _INTEGER_COLUMNS},
        vectors=first_of_three,
    )
    if n_atoms == 0:  # there was no word to tell
        found |= {j: np.empty(0, 'U1') for j, name in enumerate(names) if name == 'element'}
    ids = next((found[j] for j, name in enumerate(names) if name == 'id'), None)
    if ids is not None and not (ids[1:] > ids[:-1]).all():
        order = np.argsort(ids, kind='stable')
        twice = np.flatnonzero(np.diff(ids[order]) == 0)
        if len(twice):
            raise DamagedError(
                lines.number, f'in the frame that ends here, atom id {ids[order][twice[0]]} is there twice'
            )
        triples = {j: triple[order] for j, triple in triples.items()}
        inside = {j + k: triple[:, k] for j, triple in triples.items() for k in range(3)}
        found = {j: column[order] for j, column in found.items() if j not in inside} | inside
    return (
        {name: found[j] for j, name in enumerate(names)},
        {name: triples[j] for j, name in first_of_three.items()},
    )


def _contains(names: list[str], triple: tuple[str, str, str]) -> bool:
    """Return whether three columns stand side by side, each of them once."""
    if any(names.count(name) != 1 for name in triple):
        return False
    start = names.index(triple[0])
    return tuple(names[start : start + 3]) == triple
