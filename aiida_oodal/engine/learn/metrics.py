"""How far predictions are from labels."""

from __future__ import annotations

import numpy as np
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


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
