"""Compute the scores of the atoms of a set, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.alignment import mean_and_variance
from aiida_oodal.engine.ood.calibration import ErrorScale
from aiida_oodal.engine.ood.ensemble import Chunk, EnsembleLatents
from aiida_oodal.engine.ood.fitting import Parts
from aiida_oodal.engine.ood.scores import METRICS, aggregate

FloatArray = NDArray[np.float64]


def choose_metrics(
    latents: EnsembleLatents,
    fitted: Sequence[str],
    parts: Parts,
    scale: ErrorScale | None,
    wanted: Sequence[str] | None,
) -> tuple[str, ...]:
    """Return the metrics that can be computed, or those that were asked for.

    :param fitted: metrics that the reference was fitted for.
    :param parts: what was fitted.
    :param scale: what turns disagreement into a force error.
    :param wanted: None for all that can be computed.
    :raises OodalError: if one that was asked for cannot be computed, naming what it lacks.
    """
    lacks = {
        'force_std': None if latents.forces is not None else 'latents computed with forces',
        'energy_std': None if latents.energies is not None else 'latents computed with energies',
        'predicted_error': None if scale is not None else 'a reference fitted with reference_forces',
    }
    if parts.energy_offsets is None:
        lacks['energy_std'] = 'a reference set with energies'
    lacks |= {name: f'a reference fitted for {name!r}' for name in METRICS if name not in fitted}
    if wanted is None:
        return tuple(name for name in METRICS if lacks.get(name) is None)
    for name in wanted:
        if name not in METRICS:
            raise OodalError(f'{name!r} is not a score; there are {", ".join(METRICS)}')
        if lacks.get(name) is not None:
            raise OodalError(f'the score {name!r} needs {lacks[name]}')
    return tuple(name for name in METRICS if name in wanted)


def score_atoms(
    latents: EnsembleLatents, parts: Parts, scale: ErrorScale | None, metrics: Sequence[str], chunk_atoms: int
) -> tuple[dict[str, FloatArray], dict[str, dict[str, FloatArray]]]:
    """Compute scores of atoms and of structures; the latents are read once, if any score needs them.

    :return: for each metric shape (n_atoms,), and for each metric and aggregate shape (n_structures,).
    """
    per_atom = {name: np.empty(latents.n_atoms) for name in metrics if name != 'energy_std'}
    for chunk in latents.chunks(chunk_atoms) if per_atom else ():
        for name, values in _score_chunk(chunk, parts, scale, per_atom.keys()).items():
            per_atom[name][chunk.atoms] = values
    per_structure = {name: aggregate(values, latents.offsets) for name, values in per_atom.items()}
    if 'energy_std' in metrics and latents.energies is not None and parts.energy_offsets is not None:
        per_structure['energy_std'] = {'mean': parts.energy_offsets(latents, latents.energies)}
    return per_atom, per_structure


def _score_chunk(chunk: Chunk, parts: Parts, scale: ErrorScale | None, metrics: Iterable[str]) -> dict[str, FloatArray]:
    """Compute the scores of the atoms of one chunk."""
    scores: dict[str, FloatArray] = {}
    wanted = set(metrics)
    if 'variance' in wanted:
        scores['variance'] = mean_and_variance(chunk.latents)[1]
    if wanted & {'aligned_variance', 'predicted_error', 'gmm', 'knn'}:
        consensus, variance = mean_and_variance(parts.alignment.apply(chunk.latents))
        scores['aligned_variance'] = np.sqrt(variance)
    if 'predicted_error' in wanted and scale is not None:
        scores['predicted_error'] = scale(chunk.numbers, scores['aligned_variance'])
    if 'mahalanobis' in wanted and parts.mahalanobis is not None:
        scores['mahalanobis'] = parts.mahalanobis(chunk.numbers, chunk.latents)
    if 'gmm' in wanted and parts.subspace is not None and parts.mixture is not None:
        scores['gmm'] = parts.mixture(parts.subspace, chunk.numbers, consensus)
    if 'knn' in wanted and parts.subspace is not None and parts.neighbours is not None:
        scores['knn'] = parts.neighbours(parts.subspace, chunk.numbers, consensus)
    if 'force_std' in wanted and chunk.forces is not None:
        scores['force_std'] = np.sqrt(chunk.forces.var(axis=0, ddof=1).mean(axis=1))
    return {name: scores[name] for name in wanted}
