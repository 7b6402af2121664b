"""Engine command ``fit-reference``: latents of a reference set and of a held-out set in, a fitted reference out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.arrays import write_folder
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import LABEL_FORCES_FILE, MASK_FILE, OFFSETS_FILE, REFERENCE_FOLDER, RESULTS_FILE

from .ensemble import EnsembleLatents
from .fitting import FitOptions
from .identity import ModelIdentity
from .reference import OodReference
from .rows import NpyRows

FloatArray = NDArray[np.float64]


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Fit a reference to ``job['reference']`` and take its thresholds from ``job['heldout']``.

    The job: ``reference`` and ``heldout`` (may be empty), each a list of shards ``{"folder": name, "labels": [...]}``
    in the order of structures, whose folders hold the files of a latents job; ``settings``, those of
    :class:`.FitOptions`; ``models``, by label the fields of :class:`.ModelIdentity`; ``labels`` (null), a folder with
    :data:`OFFSETS_FILE` and :data:`LABEL_FORCES_FILE` of the held-out set, or of the reference set where there is none;
    ``masks`` (null), by ``reference`` and ``heldout`` a folder with :data:`OFFSETS_FILE` and :data:`MASK_FILE`.
    Writes the arrays of the reference into :data:`REFERENCE_FOLDER`, and ``results.json`` with ``notes``,
    ``n_structures``, ``n_atoms``, ``n_heldout``, ``metrics``, ``judge`` and ``settings``.

    :raises OodalError: if latents are missing or do not belong together, or there are too few of them.
    """
    options = FitOptions.read(job['settings'])
    latents = open_shards(folder, job['reference'])
    heldout = open_shards(folder, job['heldout']) if job.get('heldout') else None
    masks = {
        name: read_mask(folder / job['masks'][name], each)
        for name, each in (('reference', latents), ('heldout', heldout))
        if each is not None and name in job.get('masks', {})
    }
    print(f'{len(latents)} structures, {latents.n_atoms} atoms under {", ".join(latents.labels)}', flush=True)
    judged = latents if heldout is None else heldout
    labels = None
    if job.get('labels') and judged.forces is not None:
        labels = read_label_forces(folder / job['labels'], judged)
        mask = masks.get('reference' if heldout is None else 'heldout')
        labels = labels if mask is None else labels[mask]
    latents = latents.keep_atoms(masks['reference']) if 'reference' in masks else latents
    heldout = heldout.keep_atoms(masks['heldout']) if heldout is not None and 'heldout' in masks else heldout
    models = {label: ModelIdentity(**values) for label, values in job.get('models', {}).items()}
    reference = OodReference.fit(latents, heldout, settings=options, reference_forces=labels, models=models)
    write_folder(folder / REFERENCE_FOLDER, reference.to_arrays())
    assert reference.thresholds is not None  # it was fitted here
    results = {
        'notes': list(reference.notes),
        'n_structures': reference.n_structures,
        'n_atoms': reference.n_atoms,
        'n_heldout': reference.thresholds.n_structures,
        'metrics': list(reference.thresholds.metrics),
        'judge': reference.judge,
        'settings': reference.options.plain(),
    }
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1), encoding='utf-8')
    for note in reference.notes:
        print(note, flush=True)


def open_shards(folder: Path, shards: Sequence[Mapping[str, Any]]) -> EnsembleLatents:
    """Open the shards of one set; nothing large is read yet.

    :param shards: ``folder`` and ``labels`` of each, in the order of structures.
    :raises OodalError: if there are none, or they do not belong together.
    """
    return EnsembleLatents.concatenate(
        [EnsembleLatents.open(folder / shard['folder'], sorted(shard['labels'])) for shard in shards]
    )


def read_label_forces(folder: Path, latents: EnsembleLatents) -> FloatArray:
    """Return the forces of the labels for the atoms of the latents, shape (n_atoms, 3), eV/angstrom.

    :param folder: holds the offsets and the forces of the whole set.
    :raises OodalError: if the set has fewer structures than the latents are of, or other ones.
    """
    return _read_atoms(folder, LABEL_FORCES_FILE, latents)


def read_mask(folder: Path, latents: EnsembleLatents) -> NDArray[np.bool_]:
    """Return which atoms of the latents were trained on, shape (n_atoms,); as :func:`read_label_forces`.

    All atoms of structures without a mask were trained on.
    """
    mask: NDArray[np.bool_] = ~(_read_atoms(folder, MASK_FILE, latents) < 0.5)
    return mask


def _read_atoms(folder: Path, file: str, latents: EnsembleLatents) -> FloatArray:
    """Return rows of a file of the set, those of the atoms that latents are of."""
    offsets, rows = NpyRows(folder / OFFSETS_FILE).read(), NpyRows(folder / file)
    if len(latents) and latents.structure_index.max() >= len(offsets) - 1:
        raise OodalError(
            f'the labelled set has {len(offsets) - 1} structures, and the latents are of structure '
            f'{latents.structure_index.max()}: give the labels of the set that the latents are of'
        )
    index = latents.structure_index
    sizes = np.diff(offsets)[index]
    if not np.array_equal(sizes, np.diff(latents.offsets)):
        wrong = int(index[np.argmax(sizes != np.diff(latents.offsets))])
        raise OodalError(
            f'structure {wrong} of the labelled set has another number of atoms than its latents: give the labels of '
            'the set that the latents are of'
        )
    return np.concatenate([rows[int(offsets[i]) : int(offsets[i + 1])] for i in index]).astype(np.float64)
