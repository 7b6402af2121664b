"""Errors of an ensemble on structures that have labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import CHUNK_ATOMS, EnsembleLatents
from aiida_oodal.engine.ood.parts.energies import composition, fit_zeros

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Zeros of energy that differ by less are no difference worth a sentence [eV/atom].
_SAME_ZERO = 0.01


@dataclass(frozen=True, eq=False)
class EnergyZeros:
    """Difference between the energy zeros of the labels and those of the models, by element.

    :param elements: atomic numbers, ascending, shape (n_elements,).
    :param zeros: energy of an atom in the labels less that in the models, eV, shape (n_elements,).
    """

    elements: IntArray
    zeros: FloatArray

    @classmethod
    def fit(cls, energies: FloatArray, labels: FloatArray, numbers: IntArray, offsets: IntArray) -> EnergyZeros | None:
        """Fit the zeros to structures of the training set, by least squares over their compositions.

        :param energies: of the models, shape (n_models, n_structures), eV.
        :param labels: shape (n_structures,), eV; NaN where there is none.
        :param numbers: atomic numbers, shape (n_atoms,).
        :param offsets: of the structures, shape (n_structures + 1,).
        :return: None without a label.
        """
        labelled = np.isfinite(labels)
        if not labelled.any():
            return None
        elements = np.unique(numbers)
        counts = composition(numbers, offsets, elements)[labelled]
        there = counts.any(axis=0)
        return cls(elements[there], fit_zeros(counts[:, there], (labels - energies.mean(axis=0))[labelled]))

    def __call__(self, numbers: IntArray, offsets: IntArray) -> FloatArray:
        """Return what to take off the labels of structures, eV, shape (n_structures,); NaN for unknown elements."""
        present = np.unique(numbers)
        counts = composition(numbers, offsets, present)
        table = dict(zip(self.elements.tolist(), self.zeros.tolist(), strict=True))
        result = np.zeros(len(counts))
        for z, count in zip(present, counts.T, strict=True):
            result[count > 0.0] += count[count > 0.0] * table.get(int(z), np.nan)
        return result

    def describe(self, fitted_on: str) -> str | None:
        """Say how far apart the zeros are, or return None where they are the same."""
        if np.abs(self.zeros).max() < _SAME_ZERO:
            return None
        pairs = zip(self.elements, self.zeros, strict=True)
        text = ', '.join(f'{chemical_symbols[z]} {zero:+.3f}' for z, zero in pairs)
        return (
            f'labels and models count energies from different zeros ({text} eV per atom, fitted on {fitted_on}): the '
            'difference is taken off before energy errors are computed'
        )


def force_errors(latents: EnsembleLatents, labels: FloatArray) -> FloatArray:
    """Return the length of the error of the ensemble's mean force on each atom, eV/angstrom, shape (n_atoms,).

    :param latents: with forces; they are read in chunks.
    :param labels: forces of the labels, eV/angstrom, shape (n_atoms, 3); NaN where there is none.
    :raises OodalError: if there are no forces, or not one label for each atom.
    """
    if latents.forces is None:
        raise OodalError('these latents came without forces: compute them with forces to compare with labels')
    if labels.shape != (latents.n_atoms, 3):
        raise OodalError(f'the forces of the labels have shape {labels.shape}, not {(latents.n_atoms, 3)}')
    errors = np.empty(latents.n_atoms)
    for start in range(0, latents.n_atoms, CHUNK_ATOMS):
        part = slice(start, min(start + CHUNK_ATOMS, latents.n_atoms))
        mean = np.mean([np.asarray(rows[part], dtype=np.float64) for rows in latents.forces], axis=0)
        errors[part] = np.linalg.norm(mean - labels[part], axis=1)
    return errors


def energy_errors(latents: EnsembleLatents, labels: FloatArray, zeros: EnergyZeros | None = None) -> FloatArray:
    """Return the absolute error of the ensemble's mean energy, eV per atom, shape (n_structures,).

    :param latents: with energies.
    :param labels: energies of the labels, eV, shape (n_structures,); NaN where there is none.
    :param zeros: difference of the energy zeros; None if they are the same.
    :raises OodalError: if there are no energies, or not one label for each structure.
    """
    if latents.energies is None:
        raise OodalError('these latents came without energies: compute them with energies to compare with labels')
    if labels.shape != (len(latents),):
        raise OodalError(f'the energies of the labels have shape {labels.shape}, not {(len(latents),)}')
    shifts = 0.0 if zeros is None else zeros(latents.numbers, latents.offsets)
    result: FloatArray = np.abs(latents.energies.mean(axis=0) - (labels - shifts)) / np.diff(latents.offsets)
    return result
