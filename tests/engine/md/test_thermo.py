"""Thermo columns in units that do not depend on the script."""

import numpy as np
import pytest
from ase import units

from aiida_oodal.engine.md.thermo import to_metal


def test_real_units_become_metal_units():
    real = {'Step': 5.0, 'Time': 2.0, 'Temp': 300.0, 'PotEng': -3.0, 'Press': 1.0, 'Volume': 64.0, 'v_max_gamma': 2.5}
    columns = {name: np.array([value]) for name, value in real.items()}
    found = {name: values[0] for name, values in to_metal(columns, 'real').items()}
    assert found['Time'] == pytest.approx(0.002)  # fs -> ps
    assert found['PotEng'] == pytest.approx(-3.0 * units.kcal / units.mol)  # kcal/mol -> eV
    assert found['Press'] == pytest.approx(1.01325)  # atm -> bar
    assert all(found[name] == real[name] for name in ('Step', 'Temp', 'Volume', 'v_max_gamma'))
    same = to_metal(columns, 'metal')
    assert all(same[name][0] == pytest.approx(value) for name, value in real.items())
