from __future__ import annotations

import numpy as np
import pytest

from aiida_oodal.engine.metrics import energy_errors, force_errors


def test_energies_are_compared_per_atom_in_mev():
    errors = energy_errors([1.0, -2.0], [1.1, -2.0], [10, 5])
    assert errors['energy_mae'] == pytest.approx(5.0)
    assert errors['energy_rmse'] == pytest.approx(10.0 / np.sqrt(2.0))


def test_forces_are_compared_by_component_in_mev_per_angstrom():
    reference = np.zeros((2, 3))
    predicted = np.array([[0.003, 0.0, 0.0], [0.0, -0.006, 0.0]])
    errors = force_errors(predicted, reference)
    assert errors['force_rmse'] == pytest.approx(np.sqrt((9.0 + 36.0) / 6.0))
    assert errors['force_mae'] == pytest.approx(1.5)
    assert errors['force_max'] == pytest.approx(6.0)


def test_nothing_to_compare_gives_no_number():
    assert energy_errors([], [], []) == {}
    assert force_errors(np.zeros((0, 3)), np.zeros((0, 3))) == {}
