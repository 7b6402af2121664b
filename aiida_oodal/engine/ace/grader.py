"""Grades of cells under an ACE potential and its active set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Grades, read_word

from .evaluate import AceEvaluator, load_inverse_active_set


class AceGrader:
    """Grade cells by the extrapolation grade of ACE.

    :param yaml: B-basis file.
    :param active_set: inverse active set (``.asi``).
    """

    has_active_set = True

    def __init__(self, yaml: Path, active_set: Path) -> None:
        self._evaluator = AceEvaluator(yaml, active_set)
        self._inverse = load_inverse_active_set(active_set)

    @property
    def cutoff(self) -> float:
        """Range of the potential [angstrom]."""
        return self._evaluator.cutoff

    def grade(self, cells: Sequence[Atoms], *, centres_only: bool = False) -> list[Grades | str]:
        """Grade cells; the descriptor of a centre is its projections times the inverse active set of its element."""
        return [self._grade(cell, [0] if centres_only else None) for cell in cells]

    def _grade(self, cell: Atoms, atoms: list[int] | None) -> Grades | str:
        try:
            gamma = self._evaluator.gamma(cell, atoms)
            (projections,) = self._evaluator.projections(cell, [0])
        except OodalError as error:
            return str(error)
        inverse = self._inverse[str(cell.symbols[0])]
        return Grades(gamma, np.asarray(projections @ inverse, dtype=np.float64))


def open_grader(potential: Mapping[str, Any], folder: Path) -> AceGrader:
    """Open ``{"yaml": ..., "active_set": ...}``, file names relative to the folder of the job."""
    return AceGrader(folder / read_word(potential, 'yaml'), folder / read_word(potential, 'active_set'))
