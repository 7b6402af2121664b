"""Rows of a large array, read by slices: from a file, or from pieces of other rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError


class Rows(Protocol):
    """What an array has that is read by slices of rows only; any numpy array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        ...

    def __getitem__(self, key: slice, /) -> NDArray[Any]:
        """Read the rows from ``key.start`` to ``key.stop``."""
        ...


class NpyRows:
    """Rows of a ``.npy`` file.

    They are read, not memory-mapped: mapped pages count as memory of the process until the kernel takes them back, and
    a job with a memory limit looks as if it held the whole file.

    :param path: file; nothing in it is unpickled.
    :raises OodalError: if the file is missing, cut, or holds something else than numbers in C order.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            with self.path.open('rb') as handle:
                read_header = (
                    npy.read_array_header_1_0 if npy.read_magic(handle) == (1, 0) else npy.read_array_header_2_0
                )
                self.shape, fortran, self.dtype = read_header(handle)
                self._start = handle.tell()
        except (OSError, ValueError, EOFError) as error:
            raise OodalError(f'{self.path} cannot be read as an .npy file ({error}); was the job cut short?') from error
        if fortran or self.dtype.hasobject:
            raise OodalError(
                f'{self.path} holds {self.dtype} in Fortran order or objects; numbers in C order are needed'
            )
        self._row = int(np.prod(self.shape[1:], dtype=np.int64))
        needed = self._start + self.shape[0] * self._row * self.dtype.itemsize
        found = self.path.stat().st_size
        if found < needed:
            raise OodalError(f'{self.path} has {found} bytes where {needed} are needed: the job was cut short')

    def __getitem__(self, key: slice, /) -> NDArray[Any]:
        start, stop, _ = key.indices(self.shape[0])
        count = max(stop - start, 0) * self._row
        offset = self._start + start * self._row * self.dtype.itemsize
        values: NDArray[Any] = np.fromfile(self.path, dtype=self.dtype, count=count, offset=offset)
        return values.reshape(-1, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.read(), dtype=dtype)

    def read(self) -> NDArray[Any]:
        """Read all."""
        return self[0 : self.shape[0]]


class RunRows:
    """Pieces of other rows, one after another, as if they were one array.

    :param runs: rows, first and last index (exclusive) of each piece; one or more, all of one width.
    """

    def __init__(self, runs: Sequence[tuple[Rows, int, int]]) -> None:
        self._runs = list(runs)
        self._ends = np.cumsum([stop - start for _, start, stop in self._runs])
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *self._runs[0][0].shape[1:])

    def __getitem__(self, key: slice, /) -> NDArray[Any]:
        first, last, _ = key.indices(self.shape[0])
        pieces = []
        run = int(np.searchsorted(self._ends, first, side='right'))
        while first < last:
            rows, start, stop = self._runs[run]
            begin = start + first - (int(self._ends[run]) - (stop - start))
            end = min(stop, begin + last - first)
            pieces.append(rows[begin:end])
            first += end - begin
            run += 1
        if not pieces:
            return self._runs[0][0][0:0]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[0 : self.shape[0]], dtype=dtype)
