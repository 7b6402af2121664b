"""Arrays in ``.npy`` files that grow row by row, and what a killed process left of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OodalError

__all__ = ('HEADER_BYTES', 'GrowingArray', 'cut_rows', 'rows_on_disk')

#: Length of the header that numpy writes for arrays of up to two dimensions, with its room for more rows.
HEADER_BYTES = 128


class GrowingArray:
    """An ``.npy`` file that rows are appended to.

    Its header has room for any number of rows and says 0 until :meth:`close`; rows are on disk when :meth:`append`
    returns, so that a killed process leaves them behind.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], row_shape: tuple[int, ...] = ()) -> None:
        self._dtype, self._row_shape = dtype, row_shape
        self._rows = 0
        # unbuffered: what was written is with the system, not with this process
        self._handle = path.open('wb', buffering=0)
        self._handle.write(_header(dtype, (0, *row_shape)))

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows, shape ``(n, *row_shape)``."""
        if rows.shape[1:] != self._row_shape:
            raise OodalError(f'rows of shape {rows.shape[1:]} do not belong into {self._handle.name} {self._row_shape}')
        data = memoryview(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        # an unbuffered write may stop half way: Linux takes 2 GiB at a time
        while data:
            data = data[self._handle.write(data) :]
        self._rows += len(rows)

    def close(self) -> None:
        """Put the number of rows into the header."""
        self._handle.seek(0)
        self._handle.write(_header(self._dtype, (self._rows, *self._row_shape)))
        self._handle.close()


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the header of an ``.npy`` file (format version 1.0) of constant length."""
    described = {'descr': np.lib.format.dtype_to_descr(dtype), 'fortran_order': False, 'shape': shape}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, described)
    header = stream.getvalue()
    if len(header) != HEADER_BYTES:
        raise OodalError(f'numpy {np.__version__} writes headers of {len(header)} bytes, not {HEADER_BYTES}')
    return header


def _described(path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return type and row shape of an ``.npy`` file."""
    with path.open('rb') as handle:
        np.lib.format.read_magic(handle)
        shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
    return dtype, shape[1:]


def rows_on_disk(path: Path) -> NDArray[Any]:
    """Read the whole rows of a one-dimensional file, whatever its header says."""
    dtype, _ = _described(path)
    count = (path.stat().st_size - HEADER_BYTES) // dtype.itemsize
    return np.fromfile(path, dtype=dtype, count=count, offset=HEADER_BYTES)


def cut_rows(path: Path, rows: int) -> None:
    """Cut a file to a number of rows and put it into the header."""
    dtype, row_shape = _described(path)
    size = HEADER_BYTES + rows * int(np.prod(row_shape, dtype=np.int64)) * dtype.itemsize
    if path.stat().st_size < size:
        raise OodalError(f'{path} is {path.stat().st_size} bytes long where {rows} rows need {size}: it is damaged')
    with path.open('r+b') as handle:
        handle.write(_header(dtype, (rows, *row_shape)))
        handle.truncate(size)
