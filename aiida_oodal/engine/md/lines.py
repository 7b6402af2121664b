"""Lines of a file that may be gzipped and may be cut at any byte: one by one, or as blocks of numbers."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

__all__ = ('CutError', 'DamagedError', 'Lines', 'is_cut', 'number_of_lines', 'open_stream', 'parse_rows')

_BLOCK = 1 << 21  # bytes read and parsed at once
_SMALL = 1 << 18  # bytes
_LINE_END = ord('\n')
_LONGEST_LINE = 1 << 24  # bytes; a longer line is no text
_GZIP = b'\x1f\x8b'


class CutError(Exception):
    """The file ends before what was being read does."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class DamagedError(Exception):
    """The file holds something else than its format allows."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason


class _Gunzip(io.RawIOBase):
    """Bytes unpacked from a gzip file of one or several members; where the file was cut, they just end.

    The standard library's reader loses what it has already unpacked when it meets the cut.

    :ivar cut: whether the file ended before a member did.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._inflate = zlib.decompressobj(wbits=31)
        self._pending = memoryview(b'')
        self.cut = False

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def close(self) -> None:
        """Close the packed file, too."""
        self._stream.close()
        super().close()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer and return the number of bytes, 0 at the end."""
        while not self._pending:
            # A member may be followed by another one, or by zero bytes that mean nothing.
            packed = self._inflate.unused_data.lstrip(b'\0') or self._stream.read(_BLOCK // 8)
            if not packed:
                self.cut = not self._inflate.eof
                return 0
            if self._inflate.eof:
                if not (packed := packed.lstrip(b'\0')):
                    continue
                self._inflate = zlib.decompressobj(wbits=31)
            try:
                self._pending = memoryview(self._inflate.decompress(packed))
            except zlib.error as exception:
                raise OodalError(f'{self._path}: damaged gzip file ({exception}); unpack it by hand') from None
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size


def open_stream(path: Path, offset: int = 0) -> io.BufferedReader[Any]:
    """Open a file for reading from a byte of its text, which for a gzipped file is the unpacked one.

    :raises OodalError: if the file cannot be read.
    """
    try:
        stream = path.open('rb')
        is_packed = stream.peek(2)[:2] == _GZIP
    except OSError as exception:
        raise OodalError(f'{path}: cannot be read: {exception.strerror}') from exception
    if not is_packed:
        stream.seek(offset)
        return stream
    unpacked: io.BufferedReader[Any] = io.BufferedReader(_Gunzip(stream, path), _BLOCK)
    while offset > 0:
        offset -= len(unpacked.read(min(_BLOCK, offset))) or offset
    return unpacked


def is_cut(stream: io.BufferedReader[Any]) -> bool:
    """Return whether the file under a stream that was read to its end is a gzip file without its end."""
    return isinstance(stream.raw, _Gunzip) and stream.raw.cut


def number_of_lines(path: Path, end: int) -> int:
    """Return the number of line ends before a byte of the (unpacked) text."""
    count = 0
    with open_stream(path) as stream:
        while end > 0 and (data := stream.read(min(_BLOCK, end))):
            count += data.count(b'\n')
            end -= len(data)
    return count


class Lines:
    """The whole lines of a stream.

    :ivar number: number of the line handed out last, counted from 1 where the stream began.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.number = 0
        self._stream = stream
        self._buffer = b''
        self._position = 0

    def at_end(self) -> bool:
        """Return whether no byte is left."""
        return self._position == len(self._buffer) and not self._refill()

    def next(self, expected: bytes = b'') -> bytes:
        """Return the next line without its end.

        :param expected: what the line has to begin with.
        :raises CutError: if the stream ends before the line does.
        :raises DamagedError: if the line, or what is left of it, does not begin as expected.
        """
        while (end := self._buffer.find(b'\n', self._position)) < 0:
            if not self._refill():
                rest = self._buffer[self._position :]
                if not (rest.startswith(expected) or expected.startswith(rest)):
                    raise DamagedError(self.number + 1, f'{rest[:60]!r} where a line begins with {expected.decode()!r}')
                raise CutError(self.number + 1)
        line = self._buffer[self._position : end].removesuffix(b'\r')
        self._position = end + 1
        self.number += 1
        if not line.startswith(expected):
            raise DamagedError(self.number, f'{line[:60]!r} where a line begins with {expected.decode()!r}')
        return line

    def block(self, limit: int, shortest: int = 1) -> bytearray:
        """Return whole lines with their ends, at most ``limit``, at least one; the caller adds them to ``number``.

        :param limit: number of lines.
        :param shortest: number of bytes that every line has at least.
        :raises CutError: if the stream ends before a line does.
        """
        while (first_end := self._buffer.find(b'\n', self._position)) < 0:
            if not self._refill():
                raise CutError(self.number + 1)
        # Look no further than the lines can reach, going by the first one: after a small frame come many others.
        reach = self._position + (first_end + 1 - self._position) * limit * 5 // 4 + 64
        end = self._buffer.rfind(b'\n', self._position, reach) + 1
        block = bytearray(memoryview(self._buffer)[self._position : end])
        if len(block) > limit * shortest:
            line_ends = np.flatnonzero(np.frombuffer(block, np.uint8) == _LINE_END)[:limit]
            del block[int(line_ends[-1]) + 1 :]
        self._position += len(block)
        return block

    def _refill(self) -> bool:
        if len(self._buffer) - self._position > _LONGEST_LINE:
            raise DamagedError(self.number + 1, f'no line end within {_LONGEST_LINE} bytes')
        data = self._stream.read(_BLOCK)
        self._buffer = self._buffer[self._position :] + data
        self._position = 0
        return bool(data)


def parse_rows(
    lines: Lines, n_rows: int, n_columns: int, text_columns: set[int]
) -> tuple[dict[int, NDArray[np.float64]], dict[int, NDArray[np.str_]]]:
    """Read lines of numbers, and of words in some columns.

    :param lines: where to read.
    :param n_rows: number of lines.
    :param n_columns: number of values in each line.
    :param text_columns: columns that may hold words; whether they do shows in the first line.
    :returns: the columns of numbers, and those of words, by index, each ``(n_rows,)``.
    :raises CutError: if the stream ends before the last line does.
    :raises DamagedError: if a line has another number of values, or a word among its numbers.
    """
    words: dict[int, list[NDArray[np.str_]]] = {}
    values = np.empty((0, n_columns))
    done = 0
    while done < n_rows:
        block = np.frombuffer(lines.block(n_rows - done, shortest=2 * n_columns), np.uint8)
        stops, lengths = _find_words(block, lines.number + 1, n_columns)
        n_lines = len(stops)
        if done == 0:
            first = block[: stops[0, -1]].tobytes().split()
            words = {j: [] for j in text_columns if not _is_number(first[j])}
            values = _reserve(n_rows, n_columns - len(words), lines.number)
        for j, found in words.items():
            found.append(_cut_out(block, stops[:, j], lengths[:, j]))
        values[done : done + n_lines] = _parse_numbers(block, n_lines, values.shape[1], lines.number + 1)
        done += n_lines
        lines.number += n_lines
    numeric = [j for j in range(n_columns) if j not in words]
    return {j: values[:, k] for k, j in enumerate(numeric)}, {j: np.concatenate(found) for j, found in words.items()}


def _reserve(n_rows: int, n_columns: int, line: int) -> NDArray[np.float64]:
    try:
        return np.empty((n_rows, n_columns))
    except (MemoryError, ValueError):
        raise DamagedError(line, f'{n_rows} lines of {n_columns} numbers do not fit into memory') from None


def _find_words(block: NDArray[np.uint8], first_line: int, n_columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where words end, and their lengths, each ``(n_lines, n_columns)``; put a line end for every blank."""
    blanks = np.flatnonzero(block <= ord(' '))
    line_ends = blanks[block[blanks] == _LINE_END]
    block[blanks] = _LINE_END
    lengths = np.diff(blanks, prepend=-1) - 1
    if not lengths.all():  # several blanks, or one before the line end, as older versions of LAMMPS write
        blanks, lengths = blanks[lengths > 0], lengths[lengths > 0]
    if blanks.size == line_ends.size * n_columns:
        stops = blanks.reshape(-1, n_columns)
        if (stops[:, -1] <= line_ends).all() and (stops[1:, 0] > line_ends[:-1]).all():
            return stops, lengths.reshape(-1, n_columns)
    counts = np.diff(np.searchsorted(blanks, line_ends, side='right'), prepend=0)
    wrong = int(np.flatnonzero(counts != n_columns)[0])
    raise DamagedError(first_line + wrong, f'{counts[wrong]} values in a frame of {n_columns} columns')


def _cut_out(block: NDArray[np.uint8], stops: NDArray[np.intp], lengths: NDArray[np.intp]) -> NDArray[np.str_]:
    """Return words and leave line ends in their place."""
    starts, shortest, longest = stops - lengths, int(lengths.min()), int(lengths.max())
    letters = np.zeros((len(starts), longest), np.uint32)  # a character of a numpy string is a 32-bit number
    for k in range(longest):
        rows = slice(None) if k < shortest else np.flatnonzero(lengths > k)
        at = starts[rows] + k
        letters[rows, k] = block[at]
        block[at] = _LINE_END
    return letters.view(f'U{longest}')[:, 0]


def _parse_numbers(block: NDArray[np.uint8], n_rows: int, n_columns: int, first_line: int) -> NDArray[np.float64]:
    """Return the numbers of a block of one word a line, float64 ``(n_rows, n_columns)``.

    One number a line is the body of a Matrix Market file, and scipy's reader of those is several times faster than any
    that numpy has. It starts threads, so a small block is left to numpy. It also takes a word up to where it stops to
    be a number, so a block with other letters than those of exponents is left to numpy, too.

    What this lets pass is a large block with a word of digits, points and signs that is no number (``1.2.3``): no cut
    makes such a word, only a damaged disk does, which may as well change a digit.
    """
    text = block.tobytes()
    is_plain = np.count_nonzero(block > ord('9')) == np.count_nonzero(block == ord('e'))
    try:
        large = is_plain and len(text) >= _SMALL
        values = _parse_large(text, n_rows * n_columns) if large else _parse_small(text)
    except ValueError:
        values = np.empty(0)  # the word that is at fault is found below
    if values.size == n_rows * n_columns:
        return values.reshape(n_rows, n_columns)
    for k, word in enumerate(text.split()):
        if not _is_number(word):
            raise DamagedError(first_line + k // n_columns, f'{word[:40]!r} is not a number')
    raise DamagedError(first_line, 'the numbers from here on cannot be told apart')


def _parse_large(text: bytes, n_values: int) -> NDArray[np.float64]:
    from scipy.io import mmread

    header = b'%%%%MatrixMarket matrix array real general\n%d 1\n' % n_values
    return cast('NDArray[np.float64]', mmread(io.BytesIO(header + text)))


def _parse_small(text: bytes) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # numpy stops at text that is no number and warns; it says that it will raise ValueError some day.
        warnings.simplefilter('ignore', DeprecationWarning)
        return np.fromstring(text, sep='\n')


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
