"""Engine command ``label``: a set of structures in, the same structures with labels out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import LABELS_FILE, RESULTS_FILE
from aiida_oodal.engine.labels import QUEUE_KEY
from aiida_oodal.engine.structures import StructureSet

from .workers import Result, label_all

#: Seconds between writes of what is labelled so far: a job killed at its walltime loses no more than this.
_SAVE_INTERVAL = 30.0


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Label every structure of ``job['structures']`` by ``job['calculator']``.

    The job: ``structures``, a structure set; ``calculator``, see :func:`.make_calculator`; ``files``, by name the files
    that its parameters name in braces; ``workers`` (1), how many structures are labelled at a time; ``cores`` (1) that
    the job has.

    Writes ``labels.npz``, the labelled structures in order, each with ``info['index']``, its place in the input; and
    ``results.json`` with ``n_structures``, ``n_labelled``, ``failures`` (of each structure that could not be labelled
    ``index``, ``message`` and, where it has one, ``queue_key``), ``core_seconds`` that the job had its cores for,
    ``seconds`` that each structure took, by ``queue_key``, ``versions`` of ASE and of the calculator's package, and
    ``complete`` (false in what a killed job leaves behind).

    :raises OodalError: if the set cannot be read or is empty, the calculator is unknown, or not one structure could be
        labelled.
    """
    for key in ('structures', 'calculator'):
        if key not in job:
            raise OodalError(f'the label job lacks {key!r}: it needs "structures" (a file) and "calculator"')
    structures = list(StructureSet.load(folder / job['structures']))
    if not structures:
        raise OodalError(f'{job["structures"]}: the set is empty, there is nothing to label')
    for index, atoms in enumerate(structures):
        atoms.info['index'] = index
    files = {name: (folder / path).resolve() for name, path in job.get('files', {}).items()}
    record = _Record(folder, structures, int(job.get('cores', 1)), _read_versions(job['calculator']))
    saved = time.monotonic()
    results = label_all(structures, job['calculator'], files=files, folder=folder, workers=int(job.get('workers', 1)))
    for result in results:
        record.add(result)
        if result.message:
            print(f'structure {result.index} failed: {result.message}', flush=True)
        if time.monotonic() - saved > _SAVE_INTERVAL:
            record.write(complete=False)
            saved = time.monotonic()
            print(record.describe(), flush=True)
    record.write(complete=True)
    print(record.describe(), flush=True)
    if not record.labelled:
        raise OodalError(
            f'{job["structures"]}: none of {len(structures)} structures could be labelled. '
            f'{record.failures[min(record.failures)]["message"]}'
        )


def _read_versions(calculator: Any) -> dict[str, str]:
    """Return the versions of ASE and of the package of a calculator, as far as they are known."""
    name = calculator if isinstance(calculator, str) else calculator.get('calculator', '')
    package = str(name).partition(':')[0].partition('.')[0]
    found = packages_distributions().get(package, []) if ':' in str(name) else []
    return {each: version(each) for each in sorted({'ase', *found})}


class _Record:
    """What was labelled so far, and what the job leaves on disk of it."""

    def __init__(self, folder: Path, structures: list[Atoms], cores: int, versions: Mapping[str, str]) -> None:
        self._folder, self._structures, self._cores, self._versions = folder, structures, cores, versions
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        self.labelled: dict[int, Atoms] = {}
        self.failures: dict[int, dict[str, Any]] = {}

    def add(self, result: Result) -> None:
        """Take in one result."""
        key = self._structures[result.index].info.get(QUEUE_KEY)
        if result.atoms is not None:
            self.labelled[result.index] = result.atoms
        else:
            named = {} if key is None else {QUEUE_KEY: key}
            self.failures[result.index] = {'index': result.index, 'message': result.message, **named}
        if key is not None:
            self._seconds[key] = round(result.seconds, 3)

    def describe(self) -> str:
        """Say how far the job is."""
        return (
            f'{len(self.labelled)} of {len(self._structures)} structures labelled, {len(self.failures)} failed, after '
            f'{time.monotonic() - self._began:.1f} s'
        )

    def write(self, *, complete: bool) -> None:
        """Write labels and results, each under a temporary name first, so that no reader sees half a file."""
        results = {
            'n_structures': len(self._structures),
            'n_labelled': len(self.labelled),
            'failures': [failure for _, failure in sorted(self.failures.items())],
            'core_seconds': round(self._cores * (time.monotonic() - self._began), 3),
            'seconds': self._seconds,
            'versions': dict(self._versions),
            'complete': complete,
        }
        partial = self._folder / f'partial_{LABELS_FILE}'
        StructureSet.from_atoms([atoms for _, atoms in sorted(self.labelled.items())]).save(partial)
        partial.replace(self._folder / LABELS_FILE)
        partial = self._folder / f'partial_{RESULTS_FILE}'
        partial.write_text(json.dumps(results, indent=1), encoding='utf-8')
        partial.replace(self._folder / RESULTS_FILE)
