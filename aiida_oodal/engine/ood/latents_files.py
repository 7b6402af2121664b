"""Files of a latents job: written as results come, whole at every moment, mended after a kill.

Nothing here needs torch: the host mends what a killed job left (:func:`finish_interrupted`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

__all__ = ['FAILURES_FILE', 'RESULTS_FILE', 'LatentsFiles', 'finish_interrupted']

RESULTS_FILE = 'results.json'
#: Failures one a line while the job runs; they end up in :data:`RESULTS_FILE`.
FAILURES_FILE = 'failures.jsonl'
NUMBERS, OFFSETS, STRUCTURES = 'numbers', 'offsets', 'structure_index'


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


@dataclass(frozen=True)
class Columns:
    """What one model gives: width and type of its latents, and whether it gives forces."""

    n_features: int
    dtype: np.dtype[Any]
    forces: bool = False


class LatentsFiles:
    """Write the files of a job; use as a context.

    ``numbers.npy`` (n_atoms,), ``offsets.npy`` (n_structures + 1,), ``structure_index.npy`` (n_structures,), and for
    each model label ``latents_LABEL.npy`` (n_atoms, n_features), ``energies_LABEL.npy`` (n_structures,) in eV and,
    where asked for, ``forces_LABEL.npy`` (n_atoms, 3) in eV/angstrom.

    :param columns: for each model label what it gives.
    :param header: what :data:`RESULTS_FILE` says from the start: models, settings, the range.
    """

    def __init__(self, folder: Path, columns: Mapping[str, Columns], header: Mapping[str, Any]) -> None:
        self._folder, self._header = folder, dict(header)
        self.n_structures = self.n_atoms = 0
        self.failures: list[dict[str, Any]] = []
        write_results(folder, self._header | _counts(0, 0, [], next_structure=int(header['start'])))
        whole = np.dtype(np.int64)
        self._arrays = {name: GrowingArray(folder / f'{name}.npy', whole) for name in (NUMBERS, OFFSETS, STRUCTURES)}
        for label, model in columns.items():
            self._arrays[f'latents_{label}'] = GrowingArray(
                folder / f'latents_{label}.npy', model.dtype, (model.n_features,)
            )
            self._arrays[f'energies_{label}'] = GrowingArray(folder / f'energies_{label}.npy', np.dtype(np.float64))
            if model.forces:
                self._arrays[f'forces_{label}'] = GrowingArray(folder / f'forces_{label}.npy', model.dtype, (3,))
        self._arrays[OFFSETS].append(np.zeros(1, dtype=np.int64))
        self._failures = (folder / FAILURES_FILE).open('w', encoding='utf-8', buffering=1)

    def append(self, structure_index: Sequence[int], sizes: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write some whole structures.

        :param arrays: under the names of the files, without ``.npy``; ``offsets`` and ``structure_index`` are made
            here.
        """
        for name, rows in arrays.items():
            self._arrays[name].append(rows)
        # last: a structure counts when it is listed here
        self._arrays[OFFSETS].append(self.n_atoms + np.cumsum(sizes, dtype=np.int64))
        self._arrays[STRUCTURES].append(np.array(structure_index, dtype=np.int64))
        self.n_structures += len(sizes)
        self.n_atoms += int(sum(sizes))

    def fail(self, failure: Mapping[str, Any]) -> None:
        """Note a structure that is lost."""
        self.failures.append(dict(failure))
        self._failures.write(json.dumps(failure) + '\n')

    def complete(self, timings: Mapping[str, float], **more: Any) -> None:
        """Write :data:`RESULTS_FILE` as it is when all structures were seen; ``more`` is added to it."""
        counts = _counts(self.n_structures, self.n_atoms, self.failures, next_structure=None)
        self._close()
        write_results(self._folder, self._header | counts | {'timings': dict(timings)} | more)
        (self._folder / FAILURES_FILE).unlink()

    def _close(self) -> None:
        for array in self._arrays.values():
            array.close()
        self._arrays = {}
        self._failures.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open; after an error the files are as after a kill, with true headers."""
        self._close()


def finish_interrupted(folder: Path) -> dict[str, Any]:
    """Make the files of a job that was killed valid: whole structures stay, half-written ones are cut off.

    A job that ran to its end is left as it is; calling twice does no harm.

    :return: the contents of :data:`RESULTS_FILE`; ``next_structure`` is where a new job has to start, ``None`` when
        there is nothing left to do. Failures of structures from there on are dropped: the new job meets them again.
    :raises OodalError: if the folder holds no latents job that had begun.
    """
    results = _read_results(folder)
    if results['next_structure'] is None:
        return results
    paths = {name: folder / f'{name}.npy' for name in (NUMBERS, OFFSETS, STRUCTURES)}
    for label in results['models']:
        paths |= {f'{kind}_{label}': folder / f'{kind}_{label}.npy' for kind in ('latents', 'energies')}
        if results['settings']['forces']:
            paths[f'forces_{label}'] = folder / f'forces_{label}.npy'
    if missing := [path.name for path in paths.values() if not path.is_file() or path.stat().st_size < _HEADER_BYTES]:
        # killed before the first structure: an empty set of files says so, whatever was there
        raise OodalError(f'{folder}: the job was interrupted before its files were begun ({missing[0]} is missing)')
    offsets, structures = (_rows_on_disk(paths[name]) for name in (OFFSETS, STRUCTURES))
    per_structure = [len(structures), len(offsets) - 1]
    per_structure += [len(_rows_on_disk(path)) for name, path in paths.items() if name.startswith('energies_')]
    n_structures = min(per_structure)
    n_atoms = int(offsets[n_structures])
    for name, path in paths.items():
        rows = {OFFSETS: n_structures + 1, STRUCTURES: n_structures}.get(
            name, n_structures if name.startswith('energies_') else n_atoms
        )
        _cut(path, rows)
    following = int(structures[n_structures - 1]) + 1 if n_structures else int(results['start'])
    failures = [failure for failure in _read_failures(folder) if failure['structure'] < following]
    results |= _counts(n_structures, n_atoms, failures, next_structure=following)
    write_results(folder, results)
    return results


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write :data:`RESULTS_FILE` under another name first, so that no reader sees half a file."""
    partial = folder / f'partial_{RESULTS_FILE}'
    partial.write_text(json.dumps(results, indent=1), encoding='utf-8')
    partial.replace(folder / RESULTS_FILE)


def _counts(
    n_structures: int, n_atoms: int, failures: list[dict[str, Any]], *, next_structure: int | None
) -> dict[str, Any]:
    return {
        'n_structures': n_structures,
        'n_atoms': n_atoms,
        'failures': failures,
        'next_structure': next_structure,
    }


#: Length of the header that numpy writes for arrays of up to two dimensions, with its room for more rows.
_HEADER_BYTES = 128


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the header of an ``.npy`` file (format version 1.0) of constant length."""
    described = {'descr': np.lib.format.dtype_to_descr(dtype), 'fortran_order': False, 'shape': shape}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, described)
    header = stream.getvalue()
    if len(header) != _HEADER_BYTES:
        raise OodalError(f'numpy {np.__version__} writes headers of {len(header)} bytes, not {_HEADER_BYTES}')
    return header


def _described(path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return type and row shape of an ``.npy`` file."""
    with path.open('rb') as handle:
        np.lib.format.read_magic(handle)
        shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
    return dtype, shape[1:]


def _rows_on_disk(path: Path) -> NDArray[Any]:
    """Read the whole rows of a one-dimensional file, whatever its header says."""
    dtype, _ = _described(path)
    count = (path.stat().st_size - _HEADER_BYTES) // dtype.itemsize
    return np.fromfile(path, dtype=dtype, count=count, offset=_HEADER_BYTES)


def _cut(path: Path, rows: int) -> None:
    """Cut a file to a number of rows and put it into the header."""
    dtype, row_shape = _described(path)
    size = _HEADER_BYTES + rows * int(np.prod(row_shape, dtype=np.int64)) * dtype.itemsize
    if path.stat().st_size < size:
        raise OodalError(f'{path} is {path.stat().st_size} bytes long where {rows} rows need {size}: it is damaged')
    with path.open('r+b') as handle:
        handle.write(_header(dtype, (rows, *row_shape)))
        handle.truncate(size)


def _read_results(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS_FILE
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        results['next_structure'], results['models'], results['settings']['forces'], results['start']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OodalError(f'{path} is not that of a latents job that had begun ({error})') from error
    return results


def _read_failures(folder: Path) -> list[dict[str, Any]]:
    """Read the failures noted so far; a line that was cut is left out."""
    path = folder / FAILURES_FILE
    if not path.is_file():
        return []
    lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
    return [json.loads(line) for line in lines[:-1]]
