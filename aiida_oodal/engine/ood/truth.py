"""How wrong an ensemble is about structures that have reference labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import CHUNK_ATOMS, EnsembleLatents

FloatArray = NDArray[np.float64]


def force_errors(latents: EnsembleLatents, labels: FloatArray) -> FloatArray:
    """Return the length of the error of the ensemble's mean force on each atom, eV/angstrom, shape (n_atoms,).

    :param latents: with forces; they are read in chunks.
    :param labels: reference forces, eV/angstrom, shape (n_atoms, 3); NaN where there is none.
    :raises OodalError: if there are no forces, or not one label for each atom.
    """
    if latents.forces is None:
        raise OodalError('these latents came without forces: compute them with forces to compare with labels')
    if labels.shape != (latents.n_atoms, 3):
        raise OodalError(f'reference forces have shape {labels.shape}, not {(latents.n_atoms, 3)}')
    errors = np.empty(latents.n_atoms)
    for start in range(0, latents.n_atoms, CHUNK_ATOMS):
        part = slice(start, min(start + CHUNK_ATOMS, latents.n_atoms))
        mean = np.mean([np.asarray(rows[part], dtype=np.float64) for rows in latents.forces], axis=0)
        errors[part] = np.linalg.norm(mean - labels[part], axis=1)
    return errors


def energy_errors(latents: EnsembleLatents, labels: FloatArray) -> FloatArray:
    """Return the absolute error of the ensemble's mean energy, eV per atom, shape (n_structures,).

    :param latents: with energies.
    :param labels: reference energies, eV, shape (n_structures,), which count from the zero that the models were trained
        to; NaN where there is none.
    :raises OodalError: if there are no energies, or not one label for each structure.
    """
    if latents.energies is None:
        raise OodalError('these latents came without energies: compute them with energies to compare with labels')
    if labels.shape != (len(latents),):
        raise OodalError(f'reference energies have shape {labels.shape}, not {(len(latents),)}')
    result: FloatArray = np.abs(latents.energies.mean(axis=0) - labels) / np.diff(latents.offsets)
    return result
