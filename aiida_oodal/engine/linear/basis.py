"""The interface of a basis for the linear fit: it makes the rows of the design matrix for a structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """Derivatives of one structure's energy, forces and stress by the coefficients.

    :param energy: sum of the projections of all atoms, shape ``(n_functions,)``.
    :param forces: shape ``(n_atoms, 3, n_functions)``, 1/angstrom.
    :param stress: Voigt order xx yy zz yz xz xy, shape ``(6, n_functions)``, 1/angstrom^3; None if not asked for.
    :param projections: of each atom on the functions of its own element, ``n_atoms`` vectors.
    """

    energy: FloatArray
    forces: FloatArray
    stress: FloatArray | None
    projections: list[FloatArray]


@dataclass(frozen=True)
class Prediction:
    """Energy, forces and stress that a potential predicts for one structure.

    :param energy: above the atom energies, eV.
    :param forces: shape ``(n_atoms, 3)``, eV/angstrom.
    :param stress: Voigt order xx yy zz yz xz xy, ASE's sign, shape ``(6,)``, eV/angstrom^3; None unless the structure
        is periodic along all axes.
    :param projections: of each atom on the functions of its own element, ``n_atoms`` vectors.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray | None
    projections: list[FloatArray]


class LinearBasis(Protocol):
    """Functions of atomic environments, and a potential that is a linear combination of them.

    Every element has functions of its own. Coefficients are those of the first element, then those of the second, ...
    """

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements in the order of the coefficients."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of functions of each element."""

    @property
    def coefficients(self) -> FloatArray:
        """Coefficients, shape ``(n_functions of all elements,)``."""

    def set_coefficients(self, coefficients: FloatArray) -> None:
        """Take coefficients, shape ``(n_functions of all elements,)``."""

    def design(self, atoms: Atoms, *, stress: bool = False) -> Design:
        """Compute the rows of a structure."""

    def predict(self, atoms: Atoms) -> Prediction:
        """Compute what the potential says of a structure."""
