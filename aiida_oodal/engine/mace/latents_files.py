"""Files of a latents job: written as results come, whole at every moment, mended after a kill.

Nothing here needs torch: the host mends what a killed job left (:func:`finish_interrupted`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.content import N_NUMBERS
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import FAILURES_FILE, RESULTS_FILE
from aiida_oodal.engine.growing import HEADER_BYTES, GrowingArray, cut_rows, rows_on_disk

__all__ = ['LatentsFiles', 'finish_interrupted']

NUMBERS, OFFSETS, STRUCTURES = 'numbers', 'offsets', 'structure_index'
#: A row for each structure: which it is, and whether it is one atom without neighbours.
FINGERPRINTS, ISOLATED = 'fingerprints', 'isolated'


@dataclass(frozen=True)
class Columns:
    """What one model gives: width and type of its latents, and whether it gives forces."""

    n_features: int
    dtype: np.dtype[Any]
    forces: bool = False


class LatentsFiles:
    """Write the files of a job; use as a context.

    ``numbers.npy`` (n_atoms,), ``offsets.npy`` (n_structures + 1,), ``structure_index.npy`` (n_structures,),
    ``fingerprints.npy`` (n_structures, 6), ``isolated.npy`` (n_structures,), and for each model label
    ``latents_LABEL.npy`` (n_atoms, n_features), ``energies_LABEL.npy`` (n_structures,) in eV and, where asked for,
    ``forces_LABEL.npy`` (n_atoms, 3) in eV/angstrom.

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
        self._arrays[FINGERPRINTS] = GrowingArray(folder / f'{FINGERPRINTS}.npy', np.dtype(np.float64), (N_NUMBERS,))
        self._arrays[ISOLATED] = GrowingArray(folder / f'{ISOLATED}.npy', np.dtype(np.bool_))
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
    # An older engine, whose code a profile may hold, writes none of these.
    paths |= {name: path for name in (FINGERPRINTS, ISOLATED) if (path := folder / f'{name}.npy').is_file()}
    if missing := [path.name for path in paths.values() if not path.is_file() or path.stat().st_size < HEADER_BYTES]:
        # killed before the first structure: an empty set of files says so, whatever was there
        raise OodalError(f'{folder}: the job was interrupted before its files were begun ({missing[0]} is missing)')
    offsets, structures = (rows_on_disk(paths[name]) for name in (OFFSETS, STRUCTURES))
    per_structure = [len(structures), len(offsets) - 1]
    # Fingerprints are written before `isolated`: there are as many or more.
    counted = [path for name, path in paths.items() if name.startswith('energies_') or name == ISOLATED]
    n_structures = min([*per_structure, *(len(rows_on_disk(path)) for path in counted)])
    n_atoms = int(offsets[n_structures])
    for name, path in paths.items():
        of_structures = name.startswith('energies_') or name in (STRUCTURES, FINGERPRINTS, ISOLATED)
        cut_rows(path, n_structures + 1 if name == OFFSETS else n_structures if of_structures else n_atoms)
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
