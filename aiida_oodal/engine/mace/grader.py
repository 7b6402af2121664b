"""Grades of cells under an ensemble of MACE models, or one model: what its reference says of every atom."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Grades, read_word
from aiida_oodal.engine.files import RESULTS_FILE, STRUCTURES_FILE
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.structures import StructureSet

from .forces import load_reference
from .latents_job import run_job

#: Of :class:`.LatentsSettings`: what a few cells need is chosen from the memory that is free.
_SETTINGS = {
    'precision': None,
    'device': 'auto',
    'layers': 'all',
    'edges_per_batch': None,
    'batch_size': None,
    'forces': False,
    'head': None,
    'max_edges': None,
}


class MaceGrader:
    """Grade cells by :meth:`OodReference.gamma`: by the disagreement of an ensemble, or the distance of one model.

    :param models: file of each model by its label.
    :param reference: fitted on latents of the same models.
    :param level: share of the held-out atoms of the reference set whose gamma is below 1.
    :param settings: of the evaluation: ``layers``, ``precision``, ``device``, ``head``.
    :raises OodalError: if the reference has no thresholds, or is of other models.
    """

    has_active_set = False

    def __init__(
        self, models: Mapping[str, Path], reference: OodReference, *, level: float, settings: Mapping[str, Any]
    ) -> None:
        if set(models) != set(reference.labels):
            raise OodalError(
                f'the models are {", ".join(models)}, but the reference was made of {", ".join(reference.labels)}'
            )
        if reference.thresholds is None:
            raise OodalError('this reference has no thresholds: it was not made by OodReference.fit')
        self._models, self._reference, self._level = dict(models), reference, level
        self._settings = _SETTINGS | dict(settings)
        self._cutoff: float | None = None

    @property
    def cutoff(self) -> float:
        """Largest cutoff of the models [angstrom].

        :raises OodalError: before cells were graded: the models say it when they are opened.
        """
        if self._cutoff is None:
            raise OodalError('the cutoff of the models is known when cells have been graded')
        return self._cutoff

    def grade(self, cells: Sequence[Atoms], *, centres_only: bool = False) -> list[Grades | str]:
        """Grade cells; the descriptor of a centre is its aligned latents, the mean over the models."""
        if not cells:
            return []
        with TemporaryDirectory() as name:
            folder = Path(name)
            StructureSet.from_atoms(
                Atoms(cell.numbers, positions=cell.positions, cell=cell.cell, pbc=cell.pbc) for cell in cells
            ).save(folder / STRUCTURES_FILE)
            models = {label: os.fspath(path.resolve()) for label, path in self._models.items()}
            run_job({'structures': STRUCTURES_FILE, 'models': models, 'settings': self._settings}, folder)
            results = json.loads((folder / RESULTS_FILE).read_text(encoding='utf-8'))
            self._cutoff = max(float(model['cutoff']) for model in results['models'].values())
            return self._judge(EnsembleLatents.open(folder, self._reference.labels), len(cells), results['failures'])

    def _judge(
        self, latents: EnsembleLatents, n_cells: int, failures: Sequence[Mapping[str, Any]]
    ) -> list[Grades | str]:
        reference = self._reference
        thresholds = reference.thresholds
        if thresholds is None:
            raise OodalError('this reference has no thresholds: it was not made by OodReference.fit')
        descriptors = reference.consensus(latents, latents.offsets[:-1])
        rows = [values[:] for values in latents.latents]
        gamma = reference.gamma(latents.numbers, rows, level=self._level)
        scores = reference.per_atom_judge(latents.numbers, rows)
        limits = thresholds.of_atoms(reference.judge, self._level, latents.numbers)
        grades: list[Grades | str] = ['the models could not evaluate it'] * n_cells
        for failure in failures:
            grades[failure['structure']] = f'the models could not evaluate it: {failure["message"]}'
        bounds = zip(latents.offsets[:-1], latents.offsets[1:], strict=True)
        for row, (cell, (start, stop)) in enumerate(zip(latents.structure_index, bounds, strict=True)):
            grades[cell] = Grades(
                gamma[start:stop],
                np.asarray(descriptors[row], dtype=np.float64),
                scores[start:stop],
                float(limits[start]),
            )
        return grades


def open_grader(potential: Mapping[str, Any], folder: Path) -> MaceGrader:
    """Open ``{"models": {label: file}, "reference": file, "settings": {...}}``, files relative to the job's folder.

    The settings are fields of :class:`.EnsembleSettings`; which model gives forces makes no difference.
    """
    settings = dict(potential.get('settings', {}))
    models = {label: folder / read_word(potential['models'], label) for label in potential['models']}
    return MaceGrader(
        models,
        load_reference(folder / read_word(potential, 'reference')),
        level=float(settings.pop('level', 0.99)),
        settings={name: settings[name] for name in ('layers', 'precision', 'device', 'head') if name in settings},
    )
