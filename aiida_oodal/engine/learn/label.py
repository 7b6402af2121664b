"""Engine command ``label``: a set of structures in, the same structures with reference labels out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.reference import label_structure, make_calculator
from aiida_oodal.engine.structures import StructureSet

LABELS_FILE = 'labels.npz'
RESULTS_FILE = 'results.json'
#: Seconds between writes of what is labelled so far: a job killed at its walltime loses no more than this.
_SAVE_INTERVAL = 30.0


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Label every structure of ``job['structures']`` by ``job['reference']``.

    Writes :data:`LABELS_FILE`, the labelled structures in order, each with ``info['index']``, its place in the input;
    and :data:`RESULTS_FILE` with ``n_structures``, ``n_labelled``, ``failures`` (``index`` and ``message`` of each
    structure that could not be labelled) and ``complete`` (false in what a killed job leaves behind).

    :raises OodalError: if the set cannot be read or is empty, the reference is unknown, or not one structure could be
        labelled.
    """
    for key in ('structures', 'reference'):
        if key not in job:
            raise OodalError(f'the label job lacks {key!r}: it needs "structures" (a file) and "reference"')
    structures = StructureSet.load(folder / job['structures'])
    if len(structures) == 0:
        raise OodalError(f'{job["structures"]}: the set is empty, there is nothing to label')
    calculator = make_calculator(job['reference'])
    labelled: list[Atoms] = []
    failures: list[dict[str, Any]] = []
    saved = started = time.monotonic()
    for index, atoms in enumerate(structures):
        atoms.info['index'] = index
        try:
            labelled.append(label_structure(atoms, calculator, index=index))
        except OodalError as error:
            failures.append({'index': index, 'message': str(error)})
            print(f'structure {index} failed: {error}', flush=True)
        if time.monotonic() - saved > _SAVE_INTERVAL:
            _write(folder, labelled, failures, len(structures), complete=False)
            saved = time.monotonic()
            print(f'{index + 1}/{len(structures)} structures after {saved - started:.0f} s', flush=True)
    _write(folder, labelled, failures, len(structures), complete=True)
    print(f'{len(labelled)} of {len(structures)} structures labelled in {time.monotonic() - started:.1f} s', flush=True)
    if not labelled:
        raise OodalError(
            f'{job["structures"]}: none of {len(structures)} structures could be labelled. {failures[0]["message"]}'
        )


def _write(
    folder: Path, labelled: list[Atoms], failures: list[dict[str, Any]], n_structures: int, *, complete: bool
) -> None:
    """Write labels and results, each under a temporary name first, so that no reader sees half a file."""
    results = {
        'n_structures': n_structures,
        'n_labelled': len(labelled),
        'failures': failures,
        'complete': complete,
    }
    partial = folder / f'partial_{LABELS_FILE}'
    StructureSet.from_atoms(labelled).save(partial)
    partial.replace(folder / LABELS_FILE)
    partial = folder / f'partial_{RESULTS_FILE}'
    partial.write_text(json.dumps(results, indent=1), encoding='utf-8')
    partial.replace(folder / RESULTS_FILE)
