"""One ACE B-basis and what pyace computes with it: rows of a design matrix, predictions, projections."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear.basis import Design, FloatArray, Prediction
from aiida_oodal.engine.linear.pairs import Pair, pair
from aiida_oodal.engine.space.surroundings import find_surroundings

from .environment import to_pyace
from .files import ATOM_ENERGIES
from .repulsion import core_settings
from .settings import AceFitSettings

#: Strain of the central differences that give stress rows: their relative error is about its square.
_STRAIN = 1e-4
#: Voigt order, and where pyace has these components: xx yy zz xy xz yz.
_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_PYACE_TO_VOIGT = [0, 1, 2, 5, 4, 3]


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
    def from_settings(
        cls, settings: AceFitSettings, elements: Sequence[str], cores: Mapping[Pair, float] | None = None
    ) -> AceBasis:
        """Make the basis of a linear ACE (one density, embedding exponent 1) with all coefficients 0.

        :param cores: distance at which the repulsive core of each pair of elements begins, angstrom; no core without.
        :raises OodalError: if pyace finds no basis for these settings.
        """
        pyace = import_pyace()
        configuration = {
            'deltaSplineBins': settings.spline_spacing,
            'elements': sorted(elements),
            'embeddings': {'ALL': {'npot': 'FinnisSinclairShiftedScaled', 'fs_parameters': [1, 1], 'ndensity': 1}},
            'bonds': {
                'ALL': {
                    'radbase': settings.radial_basis,
                    'radparameters': [settings.radial_parameter],
                    'rcut': settings.cutoff,
                    'dcut': settings.cutoff_width,
                    'NameOfCutoffFunction': settings.cutoff_function,
                }
            },
            'functions': {
                'number_of_functions_per_element': settings.number_of_functions,
                'ALL': {
                    'nradmax_by_orders': list(settings.radial_functions_by_order),
                    'lmax_by_orders': list(settings.angular_momentum_by_order),
                },
            },
        }
        try:
            functions = pyace.create_multispecies_basis_config(configuration)
            for block in functions.funcspecs_blocks if cores else []:
                symbols = block.block_name.split()
                if cores and len(symbols) <= 2:
                    for name, value in core_settings(cores[pair(symbols[0], symbols[-1])]).items():
                        setattr(block, name, value)
            return cls(pyace.basis.ACEBBasisSet(functions))
        except (ValueError, RuntimeError, KeyError, IndexError) as error:
            raise OodalError(
                f'pyace cannot make a basis for {" ".join(elements)} with {settings.number_of_functions} functions '
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

    @property
    def coefficients(self) -> FloatArray:
        """Coefficients, shape ``(n_functions,)``."""
        return np.array(self.basis.basis_coeffs, dtype=np.float64)

    def set_coefficients(self, coefficients: FloatArray) -> None:
        """Take coefficients, shape ``(n_functions,)``."""
        self.basis.basis_coeffs = coefficients

    def save(self, path: Path | str, atom_energies: Mapping[str, float] | None = None) -> None:
        """Write the ``.yaml`` B-basis, which ``pair_style pace/extrapolation`` reads.

        :param atom_energies: what belongs to the energies of the potential to make labels of them, eV; kept as metadata
            that no evaluator looks at.
        """
        functions = self.basis.to_BBasisConfiguration()
        if atom_energies is not None:
            metadata = functions.metadata
            metadata[ATOM_ENERGIES] = json.dumps(dict(atom_energies))
            functions.metadata = metadata
        functions.save(str(path))

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

    def design(self, atoms: Atoms, *, stress: bool = False) -> Design:
        """Compute rows of the design matrix and projections.

        Rows of energy and forces are exact, those of stress central differences of the energy row.

        :raises OodalError: if the basis does not know an element, or atoms lie on top of each other.
        """
        species = self.element_indices(atoms)
        reach = self.cutoff * (1.0 + 2.0 * _STRAIN) if stress else self.cutoff
        environment = self._environment(atoms, species, reach)
        self._compute(environment, gradients=True)
        projections = self._projections()
        # pyace gives nested lists, and these convert several times more slowly than they are computed in numpy
        forces = np.array(self._calculator.forces_bfuncs, dtype=np.float64).transpose(0, 2, 1)
        return Design(
            energy=self._sum(species, projections),
            forces=forces,
            stress=self._stress_rows(environment, species) / atoms.get_volume() if stress else None,
            projections=projections,
        )

    def predict(self, atoms: Atoms) -> Prediction:
        """Compute energy, forces, stress and projections with the coefficients as they are.

        :raises OodalError: if the basis does not know an element, or atoms lie on top of each other.
        """
        self._compute(self._environment(atoms, self.element_indices(atoms), self.cutoff), gradients=False)
        # pyace's virial is the derivative of the energy with respect to strain
        stress = np.array(self._calculator.virial)[_PYACE_TO_VOIGT] / atoms.get_volume() if atoms.pbc.all() else None
        return Prediction(
            energy=float(self._calculator.energy),
            forces=np.array(self._calculator.forces, dtype=np.float64),
            stress=stress,
            projections=self._projections(),
        )

    def _environment(self, atoms: Atoms, species: NDArray[np.int64], reach: float) -> Any:
        return to_pyace(next(find_surroundings(atoms, species, reach)), whole=True)

    def _compute(self, environment: Any, *, gradients: bool) -> None:
        try:
            self._calculator.compute(environment, compute_projections=True, compute_b_grad=gradients)
        except (ValueError, RuntimeError) as error:
            raise OodalError(
                f'pyace cannot evaluate {len(environment.neighbour_list)} atoms ({error}): repair or leave out a '
                'structure with atoms on top of each other'
            ) from error

    def _projections(self) -> list[FloatArray]:
        return [np.array(values, dtype=np.float64).ravel() for values in self._calculator.projections]

    def _sum(self, species: NDArray[np.int64], projections: Sequence[FloatArray]) -> FloatArray:
        """Add up projections of all atoms, shape ``(n_functions,)``."""
        total = np.zeros(self.n_functions)
        for element, projection in zip(species, projections, strict=True):
            total[self._starts[element] : self._starts[element + 1]] += projection
        return total

    def _stress_rows(self, environment: Any, species: NDArray[np.int64]) -> FloatArray:
        """Differentiate the energy row by strain, Voigt order, shape ``(6, n_functions)``."""
        unstrained = np.array(environment.x)
        rows = np.zeros((6, self.n_functions))
        for (row, (i, j)), sign in itertools.product(enumerate(_VOIGT), (1.0, -1.0)):
            strain = np.eye(3)
            strain[i, j] += sign * _STRAIN / 2.0
            strain[j, i] += sign * _STRAIN / 2.0
            environment.x = (unstrained @ strain).tolist()
            self._compute(environment, gradients=False)
            rows[row] += sign * self._sum(species, self._projections())
        return rows / (2.0 * _STRAIN)
