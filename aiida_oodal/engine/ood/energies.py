"""Disagreement over energies, without the part that says nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.ood.ensemble import EnsembleLatents

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EnergyOffsets:
    """Constant energy of an atom of each element by which a model differs from the ensemble's mean.

    Each seed settles on zeros of its own; that part of their disagreement is the same for all structures of one
    composition and would hide the part that depends on the structure.

    :param elements: atomic numbers, ascending, shape (n_elements,).
    :param offsets: eV, shape (n_models, n_elements).
    """

    elements: IntArray
    offsets: FloatArray

    @classmethod
    def fit(cls, latents: EnsembleLatents, energies: FloatArray) -> EnergyOffsets:
        """Fit to energies per atom by least squares; the shortest solution where compositions leave a choice.

        :param energies: of ``latents``, shape (n_models, n_structures), eV.
        """
        elements = np.unique(latents.numbers)
        counts = composition(latents.numbers, latents.offsets, elements)
        sizes = np.diff(latents.offsets)
        deviation = (energies - energies.mean(axis=0)) / sizes
        solution = np.linalg.lstsq(counts / sizes[:, None], deviation.T, rcond=None)[0]
        return cls(elements, solution.T)

    def __call__(self, latents: EnsembleLatents, energies: FloatArray) -> FloatArray:
        """Return the spread over models of the energy per atom without offsets, eV, shape (n_structures,)."""
        counts = composition(latents.numbers, latents.offsets, self.elements)
        result: FloatArray = (energies - self.offsets @ counts.T).std(axis=0, ddof=1) / np.diff(latents.offsets)
        return result


def composition(numbers: IntArray, offsets: IntArray, elements: IntArray) -> FloatArray:
    """Count the atoms of each element in each structure, shape (n_structures, n_elements)."""
    counts = [np.add.reduceat((numbers == z).astype(np.float64), offsets[:-1]) for z in elements]
    return np.stack(counts, axis=1)
