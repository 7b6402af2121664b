"""Lines of a file that may be gzipped and may be cut at any byte: one by one, or as blocks."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aiida_oodal.engine.errors import OodalError

__all__ = ('CutError', 'DamagedError', 'Lines', 'is_cut', 'number_of_lines', 'open_stream')

_BLOCK = 1 << 22  # bytes read and parsed at once
LINE_END = ord('\n')
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

    def block(self, limit: int, shortest: int = 1) -> bytes:
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
        block = self._buffer[self._position : end]
        if len(block) > limit * shortest:
            line_ends = np.flatnonzero(np.frombuffer(block, np.uint8) == LINE_END)[:limit]
            block = block[: int(line_ends[-1]) + 1]
        self._position += len(block)
        return block

    def _refill(self) -> bool:
        if len(self._buffer) - self._position > _LONGEST_LINE:
            raise DamagedError(self.number + 1, f'no line end within {_LONGEST_LINE} bytes')
        data = self._stream.read(_BLOCK)
        self._buffer = self._buffer[self._position :] + data
        self._position = 0
        return bool(data)
