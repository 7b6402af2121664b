from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.ace_targets import check_energy_zero, make_target


@pytest.fixture
def cluster(aluminium):
    atoms = aluminium[0]
    atoms.arrays['force_mask'] = (np.arange(32) < 10).astype(float)
    return atoms


@pytest.mark.parametrize(('weights', 'outside'), [('full', 1.0), ('mask', 0.0), ('downweight', 0.25)])
def test_what_buffer_atoms_weigh(cluster, values, weights, outside):
    target = make_target(cluster, values(weights=weights, downweight=0.25, energy_weight=30.0), 'x')
    assert np.array_equal(target.force_weights, [1.0] * 10 + [outside] * 22)
    assert target.energy_weight == 30.0 * outside
    assert target.core.sum() == (32 if weights == 'full' else 10)


@pytest.mark.parametrize('weights', ['full', 'mask', 'downweight'])
def test_without_buffer_all_weigh_the_same(aluminium, values, weights):
    bare, all_core = aluminium[0], aluminium[0].copy()
    all_core.arrays['force_mask'] = np.ones(32)
    for atoms in (bare, all_core):
        target = make_target(atoms, values(weights=weights), 'x')
        assert np.all(target.force_weights == 1.0)
        assert target.energy_weight == 30.0
        assert target.core.all()


def test_reference_energies_are_subtracted(aluminium, values):
    atoms = aluminium[0]
    target = make_target(atoms, values(reference_energies={'Al': -2.0}), 'x')
    assert target.energy == pytest.approx(atoms.info['REF_energy'] / 32 + 2.0)


def test_labels_that_are_missing_or_not_finite_are_named(aluminium, values):
    no_energy, no_forces, bad_energy, bad_force = aluminium
    del no_energy.info['REF_energy'], no_forces.arrays['REF_forces']
    bad_energy.info['REF_energy'] = np.inf
    bad_force.arrays['REF_forces'][3, 1] = np.nan
    with pytest.raises(OodalError, match='a: structure 1 has no REF_energy'):
        make_target(no_energy, values(), 'a: structure 1')
    with pytest.raises(OodalError, match='has no REF_forces'):
        make_target(no_forces, values(), 'x')
    for atoms in (bad_energy, bad_force):
        with pytest.raises(OodalError, match='not finite'):
            make_target(atoms, values(), 'x')


def test_a_structure_without_atoms_is_named(values):
    with pytest.raises(OodalError, match='a: structure 1 has no atoms'):
        make_target(Atoms(), values(), 'a: structure 1')


@pytest.mark.parametrize('wrong', [-1.0, 2.0, np.nan])
def test_a_mask_that_is_no_mask_is_refused(cluster, values, wrong):
    cluster.arrays['force_mask'][5] = wrong
    with pytest.raises(OodalError, match='force_mask must be 1'):
        make_target(cluster, values(weights='mask'), 'x')


def test_unknown_weights_are_refused_on_the_node_too(aluminium, values):
    with pytest.raises(OodalError, match="weights = 'some' must be full, mask or downweight"):
        make_target(aluminium[0], values() | {'weights': 'some'}, 'x')


def test_total_energies_are_refused_and_the_proposal_mends_them(aluminium, values):
    for atoms in aluminium:
        atoms.symbols[:8] = 'Cu'
        atoms.info['REF_energy'] += 24 * -50.0 + 8 * -1000.0
    # Two compositions, so that the energies of both elements can be told apart.
    aluminium[0].symbols[:8] = 'Al'
    aluminium[0].info['REF_energy'] += 8 * 950.0
    with pytest.raises(OodalError, match=r'typically 287.* eV per atom') as raised:
        check_energy_zero([make_target(atoms, values(), 'x') for atoms in aluminium])
    proposed = {'Al': -49.9, 'Cu': -999.9}
    for symbol, energy in proposed.items():
        assert f"'{symbol}': {energy:.1f}"[:-1] in str(raised.value)
    mended = values(reference_energies=proposed)
    check_energy_zero([make_target(atoms, mended, 'x') for atoms in aluminium])


def test_one_wild_cluster_does_not_cast_doubt_on_all_energies(aluminium, values):
    aluminium[0].info['REF_energy'] = 1e6
    check_energy_zero([make_target(atoms, values(), 'x') for atoms in aluminium])


def test_energies_that_weigh_nothing_do_not_matter(aluminium, values):
    for atoms in aluminium:
        atoms.info['REF_energy'] = -1e6
        atoms.arrays['force_mask'] = np.zeros(32)
    check_energy_zero([make_target(atoms, values(weights='mask'), 'x') for atoms in aluminium])
