"""B-projections and extrapolation grades of chosen atoms under an ACE potential.

pyace's own neighbour list costs O(N^2) and knows only fully periodic cells or none. Here the neighbours come from
:mod:`aiida_oodal.engine.carve.geometry`, so that any cell will do and a few atoms of a huge snapshot cost next to
    nothing.

Needs the optional package ``python-ace`` (academic licence), imported when a potential is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from aiida_oodal.engine.carve.geometry import FloatArray, IntArray, Lattice, Region
from aiida_oodal.engine.carve.grid import images_inside_each
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.ace_basis import import_pyace

#: Environments given to pyace at once: bounds the memory of its Python lists.
_BATCH = 256


class AceEvaluator:
    """An ACE potential that is ready to grade atoms.

    :param yaml: B-basis file (``.yaml``).
    :param asi: inverse active set (``.asi``); only projections without it.
    :raises OodalError: when a file is missing or pyace cannot read it.
    """

    def __init__(self, yaml: str | Path, asi: str | Path | None = None) -> None:
        pyace = import_pyace()
        for path in (yaml, asi):
            if path is not None and not Path(path).is_file():
                raise OodalError(f'{path}: no such file')
        try:
            # pyace keeps no reference of its own: without these attributes the evaluator reads freed memory.
            self._basis: Any = pyace.basis.ACEBBasisSet(str(yaml))
            self._evaluator: Any = pyace.evaluator.ACEBEvaluator(self._basis)
            if asi is not None:
                self._evaluator.load_active_set(str(asi))
        except (RuntimeError, ValueError) as error:
            raise OodalError(f'{yaml}, {asi}: pyace cannot read the potential: {error}') from error
        self._calculator: Any = pyace.calculator.ACECalculator(self._evaluator)
        self._has_active_set = asi is not None
        self.elements: tuple[str, ...] = tuple(self._basis.elements_name)
        self.cutoff = float(self._basis.cutoffmax)  # angstrom

    def projections(self, atoms: Atoms, indices: Sequence[int] | IntArray | None = None) -> list[FloatArray]:
        """Compute the B-projections of chosen atoms.

        :param indices: of the atoms, all when not given.
        :return: for each atom shape (n_functions of its element,), dimensionless.
        """
        return [row for batch in self._batches(atoms, indices) for row in self._compute(batch)[0]]

    def gamma(self, atoms: Atoms, indices: Sequence[int] | IntArray | None = None) -> FloatArray:
        """Compute the extrapolation grade of chosen atoms.

        gamma is the largest absolute component of the projections times the inverse active set (Lysogorskiy et al.,
        Phys. Rev. Materials 7, 043801 (2023)).

        :param indices: of the atoms, all when not given.
        :return: shape (n_chosen,), dimensionless.
        :raises OodalError: without an active set.
        """
        if not self._has_active_set:
            raise OodalError('no active set was given: gamma needs the .asi file of the potential')
        grades = [self._compute(batch)[1] for batch in self._batches(atoms, indices)]
        return np.concatenate(grades) if grades else np.empty(0)

    def _batches(self, atoms: Atoms, indices: Sequence[int] | IntArray | None) -> list[Any]:
        """Put the chosen atoms and their neighbours into pyace's own structures."""
        chosen = np.arange(len(atoms)) if indices is None else np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(atoms)):
            raise OodalError(
                f'atom {chosen.min()} or {chosen.max()} does not exist: the structure has {len(atoms)} atoms'
            )
        if not np.isfinite(atoms.positions.sum()):
            raise OodalError('the positions are not finite')
        species = self._species(atoms.numbers)
        positions = np.ascontiguousarray(atoms.positions, dtype=np.float64)
        neighbours = images_inside_each(positions, Lattice.of(atoms), positions[chosen], Region('sphere', self.cutoff))
        batches = []
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            # The atoms themselves come first, each with neighbours of its own: pyace computes those with a list of
            # neighbours.
            x, kinds, lists = [positions[batch]], [species[batch]], []
            n_points = len(batch)
            for atom in batch.tolist():
                index, displacements = next(neighbours)
                others = (index != atom) | np.any(displacements != 0.0, axis=1)
                x.append(positions[atom] + displacements[others])
                kinds.append(species[index[others]])
                lists.append(list(range(n_points, n_points + int(others.sum()))))
                n_points += len(lists[-1])
            environment = import_pyace().ACEAtomicEnvironment()
            environment.x = np.concatenate(x).tolist()
            environment.species_type = np.concatenate(kinds).tolist()
            environment.neighbour_list = lists
            # Where pyace adds up the forces of neighbours, which nobody reads here.
            environment.origins = [*range(len(batch)), *([0] * (n_points - len(batch)))]
            batches.append(environment)
        return batches

    def _compute(self, environment: Any) -> tuple[list[FloatArray], FloatArray]:
        self._calculator.compute(environment, compute_projections=True)
        projections = [np.asarray(row, dtype=np.float64).ravel() for row in self._calculator.projections]
        return projections, np.asarray(self._calculator.gamma_grade, dtype=np.float64)

    def _species(self, numbers: IntArray) -> IntArray:
        known = {symbol: kind for kind, symbol in enumerate(self.elements)}
        symbols = {int(number): chemical_symbols[number] for number in np.unique(numbers)}
        unknown = sorted(set(symbols.values()) - set(known))
        if unknown:
            raise OodalError(f'the potential knows {", ".join(self.elements)}, not {", ".join(unknown)}')
        table = np.zeros(max(symbols) + 1, dtype=np.int64)
        for number, symbol in symbols.items():
            table[number] = known[symbol]
        return table[numbers]


def ace_projections(
    yaml: str | Path, structures: Sequence[Atoms], indices: Sequence[int] | IntArray
) -> list[FloatArray]:
    """Compute the B-projections of one atom in each of several structures.

    :param yaml: B-basis file of the potential.
    :param indices: the atom in each structure, shape (n_structures,); 0 is the centre of a cluster.
    :return: one a structure, shape (n_functions of the element,): stack those of one element.
    """
    evaluator = AceEvaluator(yaml)
    return [evaluator.projections(atoms, [int(index)])[0] for atoms, index in zip(structures, indices, strict=True)]


def ace_gamma(yaml: str | Path, asi: str | Path, atoms: Atoms) -> FloatArray:
    """Compute the extrapolation grade of every atom.

    For many structures make one :class:`AceEvaluator` and call :meth:`AceEvaluator.gamma`.

    :return: shape (n_atoms,), dimensionless.
    """
    return AceEvaluator(yaml, asi).gamma(atoms)


def load_inverse_active_set(asi: str | Path) -> dict[str, FloatArray]:
    """Read an ``.asi`` file.

    :return: inverse active set by element, shape (n_functions, n_functions); gamma of a row b of projections is
        ``abs(b @ it).max()``.
    :raises OodalError: when the file is missing or is no archive of matrices.
    """
    try:
        with np.load(asi, allow_pickle=False) as archive:
            return {element: np.asarray(archive[element], dtype=np.float64) for element in archive.files}
    except (OSError, ValueError) as error:
        raise OodalError(f'{asi}: not a readable active set: {error}') from error
