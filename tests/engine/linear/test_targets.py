from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear.targets import make_target


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


def test_buffer_weight_is_of_forces_and_of_full_only(cluster, values):
    target = make_target(cluster, values(buffer_weight=0.3), 'x')
    assert np.array_equal(target.force_weights, [1.0] * 10 + [0.3] * 22)
    assert target.energy_weight == 30.0
    assert target.core.all()
    assert not make_target(cluster, values(weights='mask', buffer_weight=0.3), 'x').force_weights[10:].any()


def test_clusters_count_less_than_whole_structures(aluminium, cluster, values):
    settings = values(cluster_weight=0.5)
    assert make_target(cluster, settings, 'x').scale == 0.5
    assert make_target(cluster, values(cluster_weight=0.5, weights='mask'), 'x').scale == 1.0
    assert make_target(aluminium[1], settings, 'x').scale == 1.0
    assert make_target(cluster, settings, 'x').scaled(4.0).scale == 2.0


def test_large_forces_count_by_their_relative_error(aluminium, values):
    atoms = aluminium[0]
    atoms.arrays['REF_forces'][:3] = [[0.0, 0.0, 0.0], [3.0, 0.0, -4.0], [0.0, 500.0, 0.0]]
    weights = make_target(atoms, values(robust_force=5.0), 'x').force_weights
    assert weights[:3] == pytest.approx([1.0, 1 / np.sqrt(2), 0.01], rel=1e-4)
    assert np.all(make_target(atoms, values(), 'x').force_weights == 1.0)


def test_stresses_weigh_where_they_are_defined(aluminium, values):
    periodic, slab, unlabelled, _ = aluminium
    for atoms in (periodic, slab):
        atoms.info['REF_stress'] = np.arange(6.0)
    slab.pbc = (True, True, False)
    del unlabelled.info['REF_stress']
    weights = [make_target(atoms, values(stress_weight=50.0), 'x').stress_weight for atoms in (periodic, slab)]
    assert weights == [50.0, 0.0]
    assert make_target(unlabelled, values(stress_weight=50.0), 'x').stress_weight == 0.0
    assert make_target(periodic, values(), 'x').stress_weight == 0.0


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
        make_target(aluminium[0], values(weights='some'), 'x')
