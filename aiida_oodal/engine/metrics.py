"""Errors of predicted energies, forces and stresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import units
from numpy.typing import ArrayLike, NDArray

_MILLI = 1000.0


def energy_errors(predicted: ArrayLike, reference: ArrayLike, n_atoms: ArrayLike) -> dict[str, float]:
    """Compare energies of structures.

    :param predicted: shape ``(n_structures,)``, eV.
    :param reference: shape ``(n_structures,)``, eV.
    :param n_atoms: atoms of each structure, shape ``(n_structures,)``.
    :return: ``energy_rmse`` and ``energy_mae``, meV/atom; empty if there is no structure to compare.
    """
    deviation = (_floats(predicted) - _floats(reference)) / _floats(n_atoms) * _MILLI
    if deviation.size == 0:
        return {}
    return {'energy_rmse': _rms(deviation), 'energy_mae': float(np.mean(np.abs(deviation)))}


def force_errors(predicted: ArrayLike, reference: ArrayLike) -> dict[str, float]:
    """Compare forces by component, as the literature does.

    :param predicted: shape ``(n_atoms, 3)``, eV/angstrom.
    :param reference: shape ``(n_atoms, 3)``, eV/angstrom.
    :return: ``force_rmse``, ``force_mae`` and ``force_max`` (of any component), meV/angstrom; empty without atoms.
    """
    deviation = (_floats(predicted) - _floats(reference)) * _MILLI
    if deviation.size == 0:
        return {}
    size = np.abs(deviation)
    return {'force_rmse': _rms(deviation), 'force_mae': float(np.mean(size)), 'force_max': float(np.max(size))}


def average(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of what several reports of one form say, nested as they are.

    Counts that are equal stay whole numbers; what is no number, or not in every report, is left out.
    """
    means: dict[str, Any] = {}
    for key in reports[0] if reports else ():
        values = [report.get(key) for report in reports]
        nested = [value for value in values if isinstance(value, Mapping)]
        numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
        if len(nested) == len(values):
            means[key] = average(nested)
        elif len(numbers) == len(values):
            same = all(isinstance(value, int) and value == values[0] for value in values)
            means[key] = values[0] if same else float(np.mean(numbers))
    return means


def stress_errors(predicted: ArrayLike, reference: ArrayLike) -> dict[str, float]:
    """Compare stresses by component.

    :param predicted: shape ``(n_components,)``, eV/angstrom^3.
    :param reference: shape ``(n_components,)``, eV/angstrom^3.
    :return: ``stress_rmse`` and ``stress_mae``, GPa; empty if there is nothing to compare.
    """
    deviation = (_floats(predicted) - _floats(reference)) / units.GPa
    if deviation.size == 0:
        return {}
    return {'stress_rmse': _rms(deviation), 'stress_mae': float(np.mean(np.abs(deviation)))}


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
