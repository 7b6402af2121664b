"""One ACE B-basis and what pyace computes with it: design rows for a fit, predictions, projections."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError


class AceFitValues(TypedDict):
    """The JSON form of ``AceFitSettings``: all a compute node needs to know, without pydantic."""

    number_of_functions: int
    cutoff: float
    cutoff_width: float
    cutoff_function: str
    radial_basis: str
    radial_parameter: float
    radial_functions_by_order: Sequence[int]
    angular_momentum_by_order: Sequence[int]
    spline_spacing: float
    energy_weight: float
    ridge: float
    weights: str
    downweight: float
    active_set_tolerance: float
    active_set_iterations: int
    reference_energies: dict[str, float]


@dataclass(frozen=True)
class Design:
    """Derivatives of one structure's energy and forces by the coefficients.

    :param energy: sum of the projections of all atoms, shape ``(n_functions,)``.
    :param forces: shape ``(n_atoms, 3, n_functions)``, 1/angstrom.
    :param projections: B-projections of each atom on the functions of its own element, ``n_atoms`` vectors.
    """

    energy: NDArray[np.float64]
    forces: NDArray[np.float64]
    projections: list[NDArray[np.float64]]


@dataclass(frozen=True)
class Prediction:
    """Energy (eV), forces (shape ``(n_atoms, 3)``, eV/angstrom) and B-projections (one vector per atom)."""

    energy: float
    forces: NDArray[np.float64]
    projections: list[NDArray[np.float64]]


@lru_cache(maxsize=1)
def import_pyace() -> Any:
    """Import pyace and undo its configuration of the root logger.

    :raises OodalError: if it is not installed.
    """
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        import pyace
        import pyace.basis
        import pyace.calculator
        import pyace.evaluator
    except ImportError as error:
        raise OodalError(
            f"pyace cannot be imported ({error}): install it by pip install 'aiida-oodal[ace]' "
            '(its licence is free for academic, non-commercial use only)'
        ) from error
    root.setLevel(level)
    root.handlers[:] = handlers
    return pyace


class AceBasis:
    """A B-basis with an evaluator of its own.

    :param basis: a ``pyace.basis.ACEBBasisSet``.
    """

    def __init__(self, basis: Any) -> None:
        pyace = import_pyace()
        # The C++ calculator holds a bare pointer to the evaluator, and that one to the basis: keep all three alive.
        self.basis = basis
        self._evaluator = pyace.evaluator.ACEBEvaluator(basis)
        self._calculator = pyace.calculator.ACECalculator(self._evaluator)
        self.elements = tuple(str(name) for name in basis.elements_name)
        self.cutoff = float(basis.cutoffmax)
        self.sizes = tuple(
            len(pairs) + len(higher) for pairs, higher in zip(basis.basis_rank1, basis.basis, strict=True)
        )
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])

    @classmethod
    def from_settings(cls, values: AceFitValues, elements: Sequence[str]) -> AceBasis:
        """Make the basis of a linear ACE (one density, embedding exponent 1) with all coefficients 0.

        :raises OodalError: if pyace finds no basis for these settings.
        """
        pyace = import_pyace()
        configuration = {
            'deltaSplineBins': values['spline_spacing'],
            'elements': sorted(elements),
            'embeddings': {'ALL': {'npot': 'FinnisSinclairShiftedScaled', 'fs_parameters': [1, 1], 'ndensity': 1}},
            'bonds': {
                'ALL': {
                    'radbase': values['radial_basis'],
                    'radparameters': [values['radial_parameter']],
                    'rcut': values['cutoff'],
                    'dcut': values['cutoff_width'],
                    'NameOfCutoffFunction': values['cutoff_function'],
                }
            },
            'functions': {
                'number_of_functions_per_element': values['number_of_functions'],
                'ALL': {
                    'nradmax_by_orders': list(values['radial_functions_by_order']),
                    'lmax_by_orders': list(values['angular_momentum_by_order']),
                },
            },
        }
        try:
            return cls(pyace.basis.ACEBBasisSet(pyace.create_multispecies_basis_config(configuration)))
        except (ValueError, RuntimeError, KeyError, IndexError) as error:
            raise OodalError(
                f'pyace cannot make a basis for {" ".join(elements)} with {values["number_of_functions"]} functions '
                f'per element ({error}): change number_of_functions, radial_functions_by_order '
                'or angular_momentum_by_order'
            ) from error

    @classmethod
    def from_file(cls, path: Path | str) -> AceBasis:
        """Read a ``.yaml`` B-basis."""
        return cls(import_pyace().basis.ACEBBasisSet(str(path)))

    @property
    def n_functions(self) -> int:
        """Functions of all elements together: the number of coefficients."""
        return int(self._starts[-1])

    def save(self, path: Path | str) -> None:
        """Write the ``.yaml`` B-basis, which ``pair_style pace/extrapolation`` reads."""
        self.basis.to_BBasisConfiguration().save(str(path))

    def save_tabulated(self, path: Path | str) -> None:
        """Write the ``.yace`` form, which plain ``pair_style pace`` reads."""
        self.basis.to_ACECTildeBasisSet().save_yaml(str(path))

    def element_indices(self, atoms: Atoms) -> NDArray[np.int64]:
        """Return each atom's element as an index into :attr:`elements`, shape ``(n_atoms,)``.

        :raises OodalError: if the basis does not know an element.
        """
        symbols = atoms.get_chemical_symbols()
        unknown = sorted(set(symbols) - set(self.elements))
        if unknown:
            raise OodalError(
                f'the potential knows {" ".join(self.elements)} and the structure has {" ".join(unknown)}: '
                'add structures with these elements to the training data'
            )
        return np.array([self.elements.index(symbol) for symbol in symbols], dtype=np.int64)

    def design(self, atoms: Atoms) -> Design:
        """Compute rows of the design matrix and projections in one pass.

        :raises OodalError: if the basis does not know an element, or atoms lie on top of each other.
        """
        self._compute(atoms, gradients=True)
        projections = self._projections(len(atoms))
        energy = np.zeros(self.n_functions)
        for element, projection in zip(self.element_indices(atoms), projections, strict=True):
            energy[self._starts[element] : self._starts[element + 1]] += projection
        forces = np.array(self._calculator.forces_bfuncs, dtype=np.float64)[: len(atoms)].transpose(0, 2, 1)
        return Design(energy, forces, projections)

    def predict(self, atoms: Atoms) -> Prediction:
        """Compute energy, forces and projections with the coefficients as they are.

        :raises OodalError: if the basis does not know an element, or atoms lie on top of each other.
        """
        self._compute(atoms, gradients=False)
        forces = np.array(self._calculator.forces, dtype=np.float64)[: len(atoms)]
        return Prediction(float(self._calculator.energy), forces, self._projections(len(atoms)))

    def _compute(self, atoms: Atoms, *, gradients: bool) -> None:
        self.element_indices(atoms)  # pyace itself fails on an unknown element with a bare KeyError
        environment = import_pyace().aseatoms_to_atomicenvironment(
            _uniform_boundaries(atoms, self.cutoff),
            cutoff=self.cutoff,
            elements_mapper_dict=dict(self.basis.elements_to_index_map),
        )
        try:
            self._calculator.compute(environment, compute_projections=True, compute_b_grad=gradients)
        except (ValueError, RuntimeError) as error:
            raise OodalError(
                f'pyace cannot evaluate {len(atoms)} atoms ({error}): repair or leave out a structure with atoms on '
                'top of each other'
            ) from error

    def _projections(self, n_atoms: int) -> list[NDArray[np.float64]]:
        return [np.array(values, dtype=np.float64).ravel() for values in self._calculator.projections[:n_atoms]]


def _uniform_boundaries(atoms: Atoms, cutoff: float) -> Atoms:
    """Make a partly periodic cell periodic with enough vacuum: pyace takes all axes periodic, or none."""
    if atoms.pbc.all() or not atoms.pbc.any():
        return atoms
    padded = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    padded.center(vacuum=cutoff, axis=tuple(np.flatnonzero(~atoms.pbc)))
    return padded
