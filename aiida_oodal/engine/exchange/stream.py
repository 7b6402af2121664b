"""Structures one after another from a file of any length, without holding more than one of them.

What cannot be read or evaluated becomes a :class:`Failure` that names structure and line; the others go on.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

from .extxyz import parse_frame

__all__ = ['OPENERS', 'Failure', 'Structure', 'StructureStream', 'check_structure']

#: How compressed files are opened, by suffix.
OPENERS: dict[str, Callable[..., Any]] = {'.gz': gzip.open, '.xz': lzma.open, '.bz2': bz2.open}
#: What files that are cut or of another kind raise.
_BROKEN_FILE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
#: Rows of a structure set that are read at a time where structures are passed over.
_ROWS_PASSED = 100_000


@dataclass(frozen=True)
class Structure:
    """A structure that can be evaluated; ``line`` is where it begins in a text file, counted from 1.

    What a file of text says of energies and forces is on ``atoms.calc``, as it stands there.
    """

    index: int
    line: int | None
    atoms: Atoms


@dataclass(frozen=True)
class Failure:
    """A structure that is lost, and why; ``model`` where it is one model's doing."""

    index: int
    line: int | None
    message: str
    model: str | None = None

    def describe(self) -> str:
        """Return what messages say: frame, line, reason."""
        return f'frame {self.index}{"" if self.line is None else f" (line {self.line})"}: {self.message}'

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not known is left out."""
        values = {'structure': self.index, 'line': self.line, 'model': self.model, 'message': self.message}
        return {name: value for name, value in values.items() if value is not None}


class StructureStream:
    """Iterate over the structures ``start <= index < stop`` of a file.

    :param path: a structure set (``.npz``) or extended XYZ, plain or compressed (``.gz``, ``.xz``, ``.bz2``).
    :param stop: ``None`` for all that follow.
    :param first: where the file holds a part of a set only: the number in the set of its first structure. ``start``,
        ``stop`` and what is given back count in the set.
    :raises OodalError: when iterated, if the file is missing or not of its kind from the start on.
    """

    def __init__(self, path: Path, *, start: int = 0, stop: int | None = None, first: int = 0) -> None:
        if not 0 <= first <= start or (stop is not None and stop < start):
            raise OodalError(f'{path.name}: the range start = {start}, stop = {stop} must rise from {first}')
        if not path.is_file():
            raise OodalError(f'{path} does not exist')
        self.path, self.start, self.stop, self.first = path, start, stop, first
        self._read = 0
        self._raw: IO[bytes] | None = None
        self._size = max(1, path.stat().st_size)

    @property
    def share_read(self) -> float:
        """Share of the work that is read so far, 0 to 1: of the range where its end is known, else of the file."""
        if self.stop is not None:
            return min(1.0, self._read / max(1, self.stop - self.start))
        return 0.0 if self._raw is None or self._raw.closed else min(1.0, self._raw.tell() / self._size)

    def __iter__(self) -> Iterator[Structure | Failure]:
        with self.path.open('rb') as self._raw:
            for item in self._from_set(self._raw) if self.path.suffix == '.npz' else self._from_text(self._raw):
                if self.stop is not None and item.index >= self.stop:
                    return
                if item.index >= self.start:
                    self._read = item.index + 1 - self.start
                    yield item

    def _from_text(self, raw: IO[bytes]) -> Iterator[Structure | Failure]:
        opener = OPENERS.get(self.path.suffix)
        binary = raw if opener is None else opener(raw, 'rb')
        # a damaged byte spoils its own frame, not the file
        with io.TextIOWrapper(binary, encoding='utf-8', errors='replace') as text:
            lines, index = _Lines(text), self.first
            try:
                while lines.skip_blank():
                    yield from self._next_frame(lines, index)
                    index += 1
            except _BROKEN_FILE as error:
                if lines.number == 0:
                    raise OodalError(f'{self.path.name} cannot be read ({type(error).__name__}: {error})') from error
                yield Failure(index, lines.number + 1, f'the file breaks off here ({error}); what follows is lost')

    def _next_frame(self, lines: _Lines, index: int) -> Iterator[Structure | Failure]:
        """Read one frame; nothing is parsed before ``start``."""
        line = lines.number + 1
        count = lines.take(1)[0].strip()
        if not count.isdecimal():
            if index == self.first:
                raise OodalError(
                    f'{self.path.name} is no extended XYZ file: line {line} is {count[:40]!r}, not a number of atoms'
                )
            lost = lines.seek_frame()
            yield Failure(index, line, f'{count[:40]!r} is not a number of atoms: {lost + 1} lines are passed over')
            return
        frame = lines.take(int(count) + 1)
        if index < self.start:
            return
        if int(count) == 0:
            yield Failure(index, line, 'the frame has no atoms')
        elif len(frame) <= int(count):
            lines.give_back_frame(frame)
            yield Failure(index, line, f'the file ends after {max(0, len(frame) - 1)} of {count} atoms')
        else:
            try:
                atoms = parse_frame([count, *frame], line)
            except OodalError as error:
                lines.give_back_frame(frame)
                yield Failure(index, line, str(error))
            else:
                yield check_structure(index, line, atoms)

    def _from_set(self, raw: IO[bytes]) -> Iterator[Structure | Failure]:
        """Read a structure set array by array in step, so that no array is ever whole in memory but the offsets."""
        names = ('offsets', 'numbers', 'positions', 'cells', 'pbc')
        try:
            with zipfile.ZipFile(raw) as archive:
                rows = {name: _Rows(archive.open(f'{name}.npy')) for name in names}
                offsets = rows.pop('offsets').take_all()
                n_structures = len(offsets) - 1
                end = self.first + n_structures
                self.stop = end if self.stop is None else min(self.stop, end)
                start = min(self.start - self.first, n_structures)
                for name in ('numbers', 'positions'):
                    rows[name].drop(int(offsets[start]))
                for name in ('cells', 'pbc'):
                    rows[name].drop(start)
                for index in range(start, self.stop - self.first):
                    n_atoms = int(offsets[index + 1] - offsets[index])
                    numbers, positions = rows['numbers'].take(n_atoms), rows['positions'].take(n_atoms)
                    cell, pbc = rows['cells'].take(1)[0], rows['pbc'].take(1)[0]
                    yield check_structure(self.first + index, None, Atoms(numbers, positions, cell=cell, pbc=pbc))
        except (*_BROKEN_FILE, ValueError, KeyError) as error:
            raise OodalError(
                f'{self.path.name} cannot be read as a structure set ({error}); was the job cut short?'
            ) from error


def check_structure(index: int, line: int | None, atoms: Atoms) -> Structure | Failure:
    """Refuse what no model can evaluate.

    :param index: position in the file.
    :param line: where it begins in a text file.
    """
    if len(atoms) == 0:
        return Failure(index, line, 'the structure has no atoms')
    finite = np.isfinite(atoms.positions).all(axis=1)
    if not finite.all():
        atom = int(np.argmin(finite))
        # a count and a comment come before the atoms
        where = line if line is None else line + 2 + atom
        return Failure(index, where, f'atom {atom} is at {atoms.positions[atom].tolist()}: positions must be finite')
    if not atoms.numbers.all():
        atom = int(np.argmin(atoms.numbers))
        where = line if line is None else line + 2 + atom
        return Failure(index, where, f'atom {atom} is an X, which stands for no element: name it or leave it out')
    return Structure(index, line, atoms)


class _Lines:
    """Lines of a text file that can be given back.

    :ivar number: lines taken so far.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._returned: deque[str] = deque()
        self.number = 0

    def _next(self) -> str | None:
        """Take one line without its end, or None at the end of the file."""
        if self._returned:
            line = self._returned.popleft()
        else:
            read = self._text.readline()
            if not read:
                return None
            line = read.rstrip('\n')
        self.number += 1
        return line

    def _give_back(self, lines: list[str]) -> None:
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)

    def take(self, count: int) -> list[str]:
        """Return the next lines, fewer at the end of the file."""
        return list(itertools.islice(iter(self._next, None), count))

    def skip_blank(self) -> bool:
        """Pass over blank lines between frames; False at the end of the file."""
        while (line := self._next()) is not None:
            if line.strip():
                self._give_back([line])
                return True
        return False

    def seek_frame(self) -> int:
        """Pass over lines up to what must be the beginning of a frame; return how many."""
        passed = 0
        pair = [self._next(), self._next()]
        while pair[0] is not None and not _begins_frame(pair[0], pair[1] or ''):
            passed += 1
            pair = [pair[1], self._next()]
        self._give_back([line for line in pair if line is not None])
        return passed

    def give_back_frame(self, frame: list[str]) -> None:
        """Give back what belongs to the next frame where a frame had fewer lines than it announced."""
        following = self.take(1)
        lines = [*frame, *following]
        for place, pair in enumerate(itertools.pairwise(lines)):
            if _begins_frame(*pair):
                self._give_back(lines[place:])
                return
        self._give_back(following)


def _begins_frame(line: str, following: str) -> bool:
    """Tell a number of atoms and the comment of extended XYZ from lines of atoms."""
    return line.strip().isdecimal() and ('Properties=' in following or 'Lattice=' in following)


class _Rows:
    """Rows of one array of an ``.npz`` file, in order."""

    def __init__(self, member: IO[bytes]) -> None:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, self._dtype = read_header(member)
        if fortran_order or self._dtype.hasobject:
            raise ValueError(f'an array of {self._dtype} in Fortran order is not what a structure set holds')
        self._member, self._left, self._shape = member, shape[0], shape[1:]

    def take(self, count: int) -> NDArray[Any]:
        """Return the next rows, shape ``(count, ...)``."""
        shape = (count, *self._shape)
        n_bytes = int(np.prod(shape)) * self._dtype.itemsize
        read = self._member.read(n_bytes)
        if len(read) < n_bytes or count > self._left:
            raise ValueError(f'{self._left} rows are left where {count} are needed')
        self._left -= count
        return np.frombuffer(read, dtype=self._dtype).reshape(shape)

    def take_all(self) -> NDArray[Any]:
        """Return all rows that are left."""
        return self.take(self._left)

    def drop(self, count: int) -> None:
        """Pass over rows."""
        while count > 0:
            count -= len(self.take(min(count, _ROWS_PASSED)))
