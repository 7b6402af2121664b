"""Read LAMMPS text dumps: any frame, fast, in bounded memory, from files cut at any byte.

Why an own reader: ``ase.io.read`` goes through the whole file for its last frame, and raises on every index of a file
whose last frame was cut; ``lammpsio`` reads whole files to find their frames, raises at a cut, and has no place for
columns that it does not know, gamma among them. Here the last frame is found by seeking backwards for its title, the
n-th by a scan for titles alone, and blocks of lines are parsed by polars where it is installed, and as one stream of
numbers where not (:mod:`~aiida_oodal.engine.md.rows`).

The rules: a frame is there when all its lines are, each with its line end (a number that lost its last digits is still
a number). A file that stops in mid-frame ends before that frame, and the reader says so. Anything else that does not
fit the format is damage and is refused with its line number. Frames without atoms (``dump_modify thresh``) are frames.
Files compressed by gzip are known by their first two bytes, and may be cut, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.frame import GAMMA_COLUMNS, Frame
from aiida_oodal.engine.md.lines import CutError, DamagedError, Lines, is_cut, number_of_lines, open_stream
from aiida_oodal.engine.md.rows import parse_rows

__all__ = (
    'GAMMA_COLUMNS',
    'Frame',
    'FrameIterator',
    'first_frame_where',
    'iterate_frames',
    'last_complete_frame',
    'read_frame',
)

FloatArray = NDArray[np.float64]

_TITLE = b'ITEM: TIMESTEP'
_NEEDLE = b'\n' + _TITLE
_SCAN_BLOCK = 1 << 22  # bytes
_TEXT_COLUMNS = frozenset(('element', 'type', 'typelabel'))
_INTEGER_COLUMNS = frozenset(('id', 'type', 'mol', 'proc', 'ix', 'iy', 'iz'))
_INTEGER = re.compile(rb'\s*(-?\d{1,18})\s*')


class FrameIterator(Iterator[Frame]):
    """The complete frames of a dump in order, with memory for one frame at a time.

    :ivar path: the dump.
    :ivar n_frames: number of frames handed out so far.
    :ivar truncated_at_line: once the frames are exhausted, the line at which the file stops inside a frame; None for a
        file that ends where a frame ends.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.n_frames = 0
        self.truncated_at_line: int | None = None
        self._frames = _frames_of(self.path)

    def __next__(self) -> Frame:
        try:
            frame = next(self._frames)
        except CutError as cut:
            self.truncated_at_line = cut.line
            raise StopIteration from None
        self.n_frames += 1
        return frame


def iterate_frames(path: str | Path) -> FrameIterator:
    """Return an iterator over the complete frames of a dump, plain or gzipped.

    :param path: the dump; an empty file has no frames.
    :raises OodalError: while iterating, if the file cannot be read or is damaged other than by a cut at its end.
    """
    return FrameIterator(path)


def read_frame(path: str | Path, index: int = -1) -> Frame:
    """Read one frame; the others are passed over without being parsed.

    :param path: the dump, plain or gzipped.
    :param index: number of the frame from 0; negative from the end, where -1 is the last complete frame.
    :raises OodalError: if there is no such complete frame, or it is damaged, or the file cannot be read.
    """
    path = Path(path)
    if index < 0:
        frame = _frame_from_end(path, -index)
        if frame is None:
            raise OodalError(
                f'{path}: frame {index} was asked for, but the dump has fewer than {-index} complete frames'
            )
        return frame
    with open_stream(path) as stream:
        offset = next(islice(_titles(stream), index, None), None)
    if offset is None:
        _check_start(path)
        raise OodalError(
            f'{path}: frame {index} was asked for, but the dump has at most {index} frames (the first is 0)'
        )
    try:
        return _read_at(path, offset)
    except CutError as cut:
        line = number_of_lines(path, offset) + cut.line
        raise OodalError(
            f'{path}, line {line}: frame {index} is cut here; the last complete frame is number -1'
        ) from None


def last_complete_frame(path: str | Path) -> Frame | None:
    """Return the last complete frame of a dump, or None if there is none.

    :param path: the dump, plain or gzipped; a plain one is read from its end only.
    :raises OodalError: if the frame is damaged, or the file is no dump or cannot be read.
    """
    return _frame_from_end(Path(path), 1)


def first_frame_where(path: str | Path, condition: Callable[[Frame], bool]) -> Frame | None:
    """Return the first complete frame that meets a condition, or None if none does.

    :param path: the dump, plain or gzipped; it is read up to that frame only.
    :param condition: called with each frame in turn.
    :raises OodalError: if the file cannot be read, or is damaged before such a frame.
    """
    return next(filter(condition, iterate_frames(path)), None)


def _frames_of(path: Path) -> Iterator[Frame]:
    with open_stream(path) as stream:
        lines = Lines(stream)
        try:
            while (frame := _next_frame(lines)) is not None:
                yield frame
        except DamagedError as damage:
            raise _refusal(path, damage.line, damage.reason) from None
        if is_cut(stream):
            raise CutError(lines.number + 1)


def _frame_from_end(path: Path, count: int) -> Frame | None:
    """Return the ``count``-th complete frame from the end (1 is the last); None if there are fewer."""
    with open_stream(path) as stream:
        offsets = _titles_backwards(stream) if stream.seekable() else reversed(list(_titles(stream)))
        for offset in offsets:
            # Only the last title can belong to a cut frame; whether it does shows when it is read.
            try:
                frame = _read_at(path, offset)
            except CutError:
                continue
            if count == 1:
                return frame
            before = next(islice(offsets, count - 2, None), None)
            return None if before is None else _read_at(path, before)
    _check_start(path)
    return None


def _check_start(path: Path) -> None:
    """Refuse a file without titles that is not the beginning of a dump either."""
    next(iterate_frames(path), None)


def _read_at(path: Path, offset: int) -> Frame:
    """Read the frame whose title begins at a byte of the (unpacked) file.

    :raises CutError: if the file ends first; its line counts from the title.
    """
    with open_stream(path, offset) as stream:
        try:
            frame = _next_frame(Lines(stream))
        except DamagedError as damage:
            raise _refusal(path, number_of_lines(path, offset) + damage.line, damage.reason) from None
    if frame is None:  # the file has become shorter since
        raise CutError(1)
    return frame


def _refusal(path: Path, line: int, reason: str) -> OodalError:
    return OodalError(
        f'{path}, line {line}: {reason}; cut the file before this frame, or read other frames of it by number'
    )


def _titles(stream: BinaryIO) -> Iterator[int]:
    """Yield the byte at which each frame begins."""
    text, start = b'\n', -1  # as if a line ended before the file: its first title is found like any other
    while data := stream.read(_SCAN_BLOCK):
        text += data
        found = text.find(_NEEDLE)
        while found >= 0:
            yield start + found + 1
            found = text.find(_NEEDLE, found + len(_NEEDLE))
        start += max(len(text) - len(_NEEDLE) + 1, 0)
        text = text[-len(_NEEDLE) + 1 :]


def _titles_backwards(stream: BinaryIO) -> Iterator[int]:
    """Yield the byte at which each frame begins, last frame first, reading no more than is asked for."""
    start = stream.seek(0, 2)
    text = b''
    while start > 0:
        size = min(_SCAN_BLOCK, start)
        start = stream.seek(start - size)
        text = stream.read(size) + text[: len(_NEEDLE) - 1]
        found = text.rfind(_NEEDLE)
        while found >= 0:
            yield start + found + 1
            found = text.rfind(_NEEDLE, 0, found)
    if text.startswith(_TITLE):
        yield 0


def _next_frame(lines: Lines) -> Frame | None:
    """Read the next frame; None where the file ends between two frames."""
    if lines.at_end():
        return None
    step = n_atoms = box = None
    while True:
        title = lines.next(expected=b'ITEM: ')
        name = title[len(b'ITEM: ') :].strip()
        if name == b'TIMESTEP' and step is None:
            step = _integer(lines)
        elif name == b'NUMBER OF ATOMS':
            n_atoms = _integer(lines)
        elif name.startswith(b'BOX BOUNDS'):
            box = _box(lines, name.decode('ascii', 'replace').split()[2:])
        elif name in (b'UNITS', b'TIME'):
            lines.next()
        elif name.startswith(b'ATOMS ') and step is not None and n_atoms is not None and box is not None:
            names = name.decode('ascii', 'replace').split()[1:]
            return Frame(step, *box, columns=_columns(lines, names, n_atoms))
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


def _columns(lines: Lines, names: list[str], n_atoms: int) -> dict[str, NDArray[Any]]:
    """Read the lines of the atoms into columns, sorted by atom id."""
    numbers, words = parse_rows(
        lines, n_atoms, len(names), {j for j, name in enumerate(names) if name in _TEXT_COLUMNS}
    )
    columns: dict[str, NDArray[Any]] = {}
    for j, name in enumerate(names):
        column: NDArray[Any] = words[j] if j in words else numbers[j]
        if name == 'element' and n_atoms == 0:
            column = np.empty(0, 'U1')  # there was no word to tell
        if name in _INTEGER_COLUMNS and j not in words:
            if not ((np.abs(column) < 2.0**53) & (column == np.rint(column))).all():
                raise DamagedError(lines.number, f'in the frame that ends here, column {name} holds no integers')
            column = column.astype(np.int64)
        columns[name] = column
    ids = columns.get('id')
    if ids is None or (np.diff(ids) > 0).all():
        return columns
    order = np.argsort(ids, kind='stable')
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        raise DamagedError(lines.number, f'in the frame that ends here, atom id {ids[order][twice[0]]} is there twice')
    return {name: column[order] for name, column in columns.items()}
