"""Read LAMMPS text dumps: any frame, fast, in bounded memory, from files cut at any byte.

Why an own reader: ``ase.io.read`` goes through the whole file for its last frame, and raises on every index of a file
whose last frame was cut; ``lammpsio`` (0.9) goes through every frame before the one that is wanted, atom by atom in
Python, raises at a cut, and has no place for columns that it does not know, gamma among them. Here the last frame is
found by seeking backwards for its title, the n-th by a scan for titles alone, and blocks of lines are parsed by polars
where it is installed, and as one stream of numbers where not (:mod:`~aiida_oodal.engine.md.rows`).

The rules: a frame is there when all its lines are, each with its line end (a number that lost its last digits is still
a number). A file that stops in mid-frame ends before that frame, and the reader says so. Anything else that does not
fit the format is damage and is refused with its line number. Frames without atoms (``dump_modify thresh``) are frames.
Files compressed by gzip are known by their first two bytes, and may be cut, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from aiida_oodal.engine.errors import OodalError

from .frame import FRAME_TITLE, GAMMA_COLUMNS, Frame, parse_frame
from .lines import CutError, DamagedError, Lines, is_cut, number_of_lines, open_stream

__all__ = (
    'GAMMA_COLUMNS',
    'Frame',
    'FrameIterator',
    'iterate_frames',
    'last_complete_frame',
    'read_frame',
)

_NEEDLE = b'\n' + FRAME_TITLE
_SCAN_BLOCK = 1 << 22  # bytes


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


def _frames_of(path: Path) -> Iterator[Frame]:
    with open_stream(path) as stream:
        lines = Lines(stream)
        try:
            while (frame := parse_frame(lines)) is not None:
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
            frame = parse_frame(Lines(stream))
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
    if text.startswith(FRAME_TITLE):
        yield 0
