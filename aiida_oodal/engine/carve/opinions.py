"""What an ensemble of MACE models says of carved cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiida_oodal.engine.carve.geometry import FloatArray
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference


@dataclass(frozen=True)
class Opinion:
    """What an ensemble says of one cell.

    :param gamma: score over the threshold of its element, of every atom, shape (n_atoms,), dimensionless; what MD that
        the ensemble watches calls gamma.
    :param scores: aligned variance of every atom, shape (n_atoms,), dimensionless.
    :param threshold: of the score of the centre; 0 where the reference set lacks its element.
    :param descriptor: aligned latents of the centre, the mean over the models, shape (n_features,).
    """

    gamma: FloatArray
    scores: FloatArray
    threshold: float
    descriptor: FloatArray


def ask_ensemble(latents: EnsembleLatents, reference: OodReference, level: float, n_cells: int) -> list[Opinion | None]:
    """Grade every atom of cells of which the latents are given.

    :param latents: of the cells, whose first atom is the centre.
    :param reference: fitted to latents of the same models.
    :param level: share of the held-out atoms that lie below the threshold.
    :param n_cells: number of cells that were evaluated.
    :return: one a cell; ``None`` where the models could not evaluate it.
    :raises OodalError: if the latents are of other models, or not finite.
    """
    if reference.thresholds is None:
        raise OodalError('this reference has no thresholds: it was not made by OodReference.fit')
    descriptors = reference.consensus(latents, latents.offsets[:-1])
    own = [rows[:] for rows in latents.latents]
    gamma = reference.gamma(latents.numbers, own, level=level)
    scores = reference.per_atom_aligned_variance(own)
    thresholds = reference.thresholds.of_atoms('aligned_variance', level, latents.numbers)
    opinions: list[Opinion | None] = [None] * n_cells
    bounds = zip(latents.offsets[:-1], latents.offsets[1:], strict=True)
    for row, (cell, (start, stop)) in enumerate(zip(latents.structure_index, bounds, strict=True)):
        opinions[cell] = Opinion(
            gamma[start:stop],
            scores[start:stop],
            float(thresholds[start]),
            np.asarray(descriptors[row], dtype=np.float64),
        )
    return opinions
