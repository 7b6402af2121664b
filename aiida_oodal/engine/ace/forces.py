"""ACE by pyace as a force evaluator of the LAMMPS driver."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Evaluation, Neighbours, read_word

__all__ = ['AceForces', 'open_forces']


class AceForces:
    """Evaluate an ACE potential with its linear active set.

    Two evaluators share the potential: the B-basis one gives gamma; the recursive one gives the same energy and forces
    for less and serves the steps in between.

    :param yaml: B-basis potential file.
    :param active_set: inverse active set file (``.asi``).
    :param elements: element of each LAMMPS type.
    """

    def __init__(self, yaml: Path, active_set: Path, elements: Sequence[str]) -> None:
        from pyace import ACEBBasisSet, ACEBEvaluator, ACECalculator
        from pyace.evaluator import ACERecursiveEvaluator

        for path in (yaml, active_set):
            if not path.is_file():
                raise OodalError(f'{path.name}: no such file in the job folder')
        basis = ACEBBasisSet(os.fspath(yaml))
        known = list(basis.elements_name)
        if unknown := [element for element in elements if element not in known]:
            raise OodalError(f'{yaml.name}: knows {", ".join(known)}, not {", ".join(unknown)}')
        with_gamma = ACEBEvaluator(basis)
        with_gamma.load_active_set(os.fspath(active_set))
        fast_basis = basis.to_ACECTildeBasisSet()
        fast = ACERecursiveEvaluator(fast_basis)
        fast.set_recursive(True)
        # pyace holds bare pointers: what a calculator uses must live as long as it, or the process dies
        self._kept = (basis, with_gamma, fast_basis, fast)
        self._with_gamma = ACECalculator(with_gamma)
        self._fast = ACECalculator()
        self._fast.set_evaluator(fast)
        self._neighbours: Neighbours | None = None
        self._environment: Any = None
        self._species = np.array([0] + [known.index(element) for element in elements])
        self._cutoff = float(basis.cutoffmax)

    @property
    def cutoff(self) -> float:
        """Largest cutoff of the potential [angstrom]."""
        return self._cutoff

    def set_neighbours(self, neighbours: Neighbours) -> None:
        """Keep the list; the next evaluation, which has the positions, makes an environment of it."""
        self._neighbours = neighbours
        self._environment = None

    def _fill(self, positions: list[list[float]]) -> Any:
        """Make pyace's environment; it takes Python lists only, and lists convert several times faster than arrays.

        It must be a new one, with the positions set first: each setter frees the old values by the number of atoms that
        it finds, so that refilling an environment with another number of images corrupts the heap.
        """
        from pyace import ACEAtomicEnvironment

        neighbours = self._neighbours
        if neighbours is None:
            raise RuntimeError('compute() before set_neighbours()')
        environment = ACEAtomicEnvironment()
        environment.x = positions
        environment.species_type = self._species[neighbours.types].tolist()
        bounds = neighbours.offsets.tolist()
        environment.neighbour_list = [
            neighbours.indices[start:stop].tolist() for start, stop in itertools.pairwise(bounds)
        ]
        environment.origins = neighbours.origins.tolist()
        return environment

    def compute(self, positions: NDArray[np.float64], *, gamma: bool) -> Evaluation:
        """Evaluate positions [angstrom], shape (n_all, 3)."""
        if self._environment is None:
            self._environment = self._fill(positions.tolist())
        else:
            self._environment.x = positions.tolist()
        calculator = self._with_gamma if gamma else self._fast
        calculator.compute(self._environment, compute_projections=gamma)
        return Evaluation(
            energy=float(calculator.energy),
            forces=np.array(calculator.forces),
            # pyace gives the derivative of the energy with respect to strain, LAMMPS wants minus that
            virial=-np.array(calculator.virial),
            gamma=np.array(calculator.gamma_grade) if gamma else None,
        )


def open_forces(potential: Mapping[str, Any], folder: Path) -> AceForces:
    """Open ``{"yaml": ..., "active_set": ..., "elements": [...]}``, file names relative to the folder of the job."""
    elements = [str(element) for element in potential.get('elements', [])]
    return AceForces(folder / read_word(potential, 'yaml'), folder / read_word(potential, 'active_set'), elements)
