"""B-projections and extrapolation grades of chosen atoms under an ACE potential.

Needs the optional package ``python-ace`` (academic licence), imported when a potential is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import FloatArray, IntArray
from aiida_oodal.engine.space.surroundings import find_surroundings

from .basis import import_pyace
from .environment import to_pyace

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

    def _batches(self, atoms: Atoms, indices: Sequence[int] | IntArray | None) -> Iterator[Any]:
        """Put the chosen atoms and their neighbours into pyace's own structures."""
        chosen = np.arange(len(atoms)) if indices is None else np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(atoms)):
            raise OodalError(
                f'atom {chosen.min()} or {chosen.max()} does not exist: the structure has {len(atoms)} atoms'
            )
        species = self._species(atoms.numbers)
        for batch in find_surroundings(atoms, species, self.cutoff, chosen, batch=_BATCH):
            yield to_pyace(batch, whole=False)

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
