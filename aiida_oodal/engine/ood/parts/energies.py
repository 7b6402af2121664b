"""Zeros of energy: what is constant for a composition, and says nothing of a structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.ood.ensemble import Chunk, EnsembleLatents

if TYPE_CHECKING:
    from aiida_oodal.engine.ood.fitting import FitOptions

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
        return cls(elements, fit_zeros(counts, energies - energies.mean(axis=0)))

    def __call__(self, latents: EnsembleLatents, energies: FloatArray) -> FloatArray:
        """Return the spread over models of the energy per atom without offsets, eV, shape (n_structures,)."""
        counts = composition(latents.numbers, latents.offsets, self.elements)
        result: FloatArray = (energies - self.offsets @ counts.T).std(axis=0, ddof=1) / np.diff(latents.offsets)
        return result


class EnergyFit:
    """Fit :class:`EnergyOffsets`; no latents are read."""

    LOOKS = 0

    def __init__(self, latents: EnsembleLatents, options: FitOptions) -> None:
        self._latents = latents

    def look(self, chunk: Chunk) -> None:
        """Take nothing from the latents."""

    def look_again(self, chunk: Chunk, consensus: FloatArray) -> None:
        """Take nothing from the latents."""

    def finish(self) -> dict[str, Any]:
        """Return the part ``energy_offsets``, if the latents came with energies."""
        if self._latents.energies is None:
            return {}
        return {'energy_offsets': EnergyOffsets.fit(self._latents, self._latents.energies)}


def fit_zeros(counts: FloatArray, energies: FloatArray) -> FloatArray:
    """Return the energy of an atom of each element that explains energies best, per atom, by least squares.

    The shortest solution where compositions leave a choice.

    :param counts: atoms of each element in each structure, shape (n_structures, n_elements).
    :param energies: eV, shape (n_structures,) or (n, n_structures).
    :return: eV, shape (n_elements,) or (n, n_elements).
    """
    sizes = counts.sum(axis=1)
    result: FloatArray = np.linalg.lstsq(counts / sizes[:, None], (energies / sizes).T, rcond=None)[0].T
    return result


def composition(numbers: IntArray, offsets: IntArray, elements: IntArray) -> FloatArray:
    """Count the atoms of each element in each structure, shape (n_structures, n_elements)."""
    counts = [np.add.reduceat((numbers == z).astype(np.float64), offsets[:-1]) for z in elements]
    return np.stack(counts, axis=1)
