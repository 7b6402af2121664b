import numpy as np
import pytest
from ase import units

from aiida_oodal.engine.mace.train.judge import Comparison, summarise


def comparison(deviation, numbers, core, energy=None):
    """Make a structure whose forces are off by ``deviation`` [eV/angstrom] in every component, atom by atom."""
    n_atoms = len(numbers)
    forces = np.zeros((n_atoms, 3))
    return Comparison(
        n_atoms=n_atoms,
        n_core=sum(core),
        energies=np.zeros((0, 3)) if energy is None else np.array([[energy, 0.0, n_atoms]]),
        numbers=np.array(numbers),
        core=np.array(core, dtype=bool),
        predicted=forces + np.array(deviation)[:, None],
        forces=forces,
        stresses=np.full((1, 6), 0.002),
    )


def test_errors_on_all_on_core_and_by_element():
    summary = summarise(
        [
            comparison([0.1, 0.3], [13, 29], [1, 0], energy=0.02),
            comparison([0.1, 0.1, 0.2], [13, 13, 29], [1, 1, 1], energy=0.03),
        ]
    )
    assert (summary['n_structures'], summary['n_atoms'], summary['n_core_atoms']) == (2, 5, 4)
    assert summary['force_rmse'] == pytest.approx(1000 * np.sqrt((3 * 0.01 + 0.09 + 0.04) / 5))
    assert summary['core']['force_rmse'] == pytest.approx(1000 * np.sqrt((3 * 0.01 + 0.04) / 4))
    assert summary['by_element']['Al'] == pytest.approx(
        {'n_atoms': 3, 'force_rmse': 100.0, 'force_mae': 100.0, 'force_max': 100.0}
    )
    assert summary['by_element']['Cu']['force_max'] == pytest.approx(300.0)
    assert (summary['energy_mae'], summary['n_energies']) == (pytest.approx(10.0), 2)
    assert (summary['core']['energy_mae'], summary['core']['n_energies']) == (pytest.approx(10.0), 1)
    assert summary['stress_rmse'] == pytest.approx(0.002 / units.GPa)


def test_what_has_no_label_is_left_out():
    only_energy = Comparison(
        4,
        4,
        np.array([[1.0, 0.0, 4.0]]),
        np.zeros(0, int),
        np.zeros(0, bool),
        np.zeros((0, 3)),
        np.zeros((0, 3)),
        np.zeros((0, 6)),
    )
    summary = summarise([only_energy])
    assert summary['energy_rmse'] == 250.0
    assert not {'force_rmse', 'stress_rmse'} & set(summary)
    assert summary['by_element'] == {}
