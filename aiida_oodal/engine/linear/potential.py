"""A fitted linear potential with the active sets from which gamma is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from ase import Atoms

from .active_set import ActiveSet
from .atom_energies import AtomEnergies
from .basis import FloatArray, LinearBasis

Basis = TypeVar('Basis', bound=LinearBasis)


@dataclass(frozen=True)
class LinearPotential(Generic[Basis]):
    """A basis with fitted coefficients, active sets and atom energies.

    :param basis: with the fitted coefficients; its energies are above those of free atoms.
    :param active_sets: by element.
    :param atom_energies: energies of free atoms, which are added to an energy of the basis to compare it with labels.
    """

    basis: Basis
    active_sets: Mapping[str, ActiveSet]
    atom_energies: AtomEnergies

    @property
    def inverse_active_set(self) -> dict[str, FloatArray]:
        """By element, shape ``(n_functions, n_functions)``."""
        return {name: chosen.inverse for name, chosen in self.active_sets.items()}

    def save_active_set(self, path: Path | str) -> None:
        """Write the ``.asi``: an npz with one inverse active set per element."""
        with Path(path).open('wb') as stream:
            np.savez(stream, allow_pickle=False, **self.inverse_active_set)

    def gamma(self, atoms: Atoms, projections: Sequence[FloatArray]) -> FloatArray:
        """Return the extrapolation grade of each atom, shape ``(n_atoms,)``.

        Largest absolute entry of projection x inverse active set (Lysogorskiy et al., Phys. Rev. Materials 7, 043801).
        """
        inverses = [self.active_sets[name].inverse for name in atoms.get_chemical_symbols()]
        return np.array([np.abs(row @ inverse).max() for row, inverse in zip(projections, inverses, strict=True)])
