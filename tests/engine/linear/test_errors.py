from __future__ import annotations

import numpy as np
import pytest
from ase import units

from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.linear.active_set import choose_active_set
from aiida_oodal.engine.linear.atom_energies import AtomEnergies
from aiida_oodal.engine.linear.errors import compare, judge
from aiida_oodal.engine.linear.potential import LinearPotential
from aiida_oodal.engine.linear.targets import make_target


@pytest.fixture
def basis(toy):
    made = toy.PairBasis()
    made.set_coefficients([0.7, -3.0, 1.5, 2.0])
    return made


@pytest.fixture
def potential(toy, basis):
    rows = np.vstack([basis.predict(toy.molecule(12, seed)).projections for seed in range(3)])
    return LinearPotential(basis, {'Ar': choose_active_set(rows)}, AtomEnergies({'Ar': -2.0}, {'Ar': 'given'}))


@pytest.fixture
def spoilt(toy, basis):
    return lambda **weights: make_spoilt(toy, basis, **weights)


def make_spoilt(toy, basis, **weights):
    """A whole structure and a cluster whose labels are wrong by known amounts."""
    whole, cluster = (toy.label(basis, toy.molecule(10, seed), -2.0) for seed in (0, 1))
    whole.info['REF_energy'] += 10 * 0.003
    whole.info['REF_stress'] = whole.info['REF_stress'] + 0.5 * units.GPa
    cluster.info['REF_energy'] += 10 * 0.5
    cluster.arrays['force_mask'] = (np.arange(10) < 4).astype(float)
    cluster.arrays['REF_forces'][:4] += 0.01
    cluster.arrays['REF_forces'][4:] += 0.3
    settings = AceFitSettings(robust_force=None, stress_weight=1.0, **weights)
    return [make_target(atoms, settings, 'x') for atoms in (whole, cluster)]


def test_errors_are_those_that_were_made(potential, spoilt):
    compared = compare(potential, spoilt())
    whole, cluster = judge(compared[:1]), judge(compared[1:])
    assert whole['energy_rmse'] == pytest.approx(3.0)
    assert whole['force_rmse'] == pytest.approx(0.0, abs=1e-6)
    assert whole['stress_rmse'] == pytest.approx(0.5)
    assert 'core' not in whole
    assert cluster['energy_rmse'] == pytest.approx(500.0)
    assert cluster['force_rmse'] == pytest.approx(np.sqrt(0.4 * 10.0**2 + 0.6 * 300.0**2))
    assert cluster['core']['force_rmse'] == pytest.approx(10.0)
    assert cluster['by_element'] == {
        'Ar': {'n_atoms': 10, 'force_rmse': cluster['force_rmse'], **cluster['by_element']['Ar']}
    }
    both = judge(compared)
    assert (both['n_structures'], both['n_atoms'], both['n_energies']) == (2, 20, 2)
    assert both['max_gamma'] == max(whole['max_gamma'], cluster['max_gamma'])


def test_what_weighed_nothing_can_be_left_out(potential, spoilt):
    judged = judge(compare(potential, spoilt(weights='mask')), fitted_only=True)
    assert judged['n_energies'] == 1
    assert judged['energy_rmse'] == pytest.approx(3.0)
    assert judged['by_element']['Ar']['n_atoms'] == 14
    assert judged['force_rmse'] == pytest.approx(np.sqrt(4 / 14) * 10.0)
    assert (judged['n_core_atoms'], judged['core_fraction']) == (14, 0.7)
