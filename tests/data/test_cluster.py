import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from ase.build import bulk
from ase.constraints import FixAtoms

from aiida_oodal.data import ClusterData
from aiida_oodal.engine.carve.cluster import extract_cluster


def make_cluster(seed=0):
    snapshot = bulk('Al', cubic=True).repeat(4)
    snapshot.rattle(0.05, seed=seed)
    snapshot.info['step'] = 420
    return extract_cluster(snapshot, 17, 4.0, 3.0, cutoff=6.0, shape='cube', bond_scale=0.75, repair='drop')


def test_a_cluster_comes_back_from_the_database():
    cluster = make_cluster()
    loaded = orm.load_node(ClusterData(cluster).store().pk).get_atoms()
    np.testing.assert_allclose(loaded.positions, cluster.positions, atol=1e-12)
    np.testing.assert_array_equal(loaded.arrays['force_mask'], cluster.arrays['force_mask'])
    np.testing.assert_array_equal(loaded.arrays['parent_index'], cluster.arrays['parent_index'])
    assert loaded.info['step'] == 420
    assert loaded.info['center_parent_index'] == 17
    assert set(loaded.symbols) == {'Al'}


def test_masses_and_held_atoms_of_a_cluster_come_back():
    cluster = make_cluster()
    masses = np.where(np.arange(len(cluster)) % 2, 10.0, 40.0)
    cluster.set_masses(masses)
    cluster.set_constraint(FixAtoms([1, 4]))
    node = orm.load_node(ClusterData(cluster).store().pk)
    assert node.get_atoms().get_masses().tolist() == masses.tolist()
    assert node.get_atoms().constraints[0].index.tolist() == [1, 4]
    assert [kind.name for kind in node.kinds] == ['Al']
    plain = ClusterData(make_cluster()).get_atoms()
    assert plain.constraints == []
    assert not plain.has('masses')


def test_a_cluster_is_a_structure_and_can_be_queried():
    node = ClusterData(make_cluster()).store()
    query = orm.QueryBuilder().append(
        ClusterData, filters={'attributes.step': 420, 'attributes.n_core': {'>': 5}}, project='id'
    )
    assert node.pk in query.all(flat=True)
    assert isinstance(node, orm.StructureData)
    assert node.get_formula() == f'Al{len(node.sites)}'


def test_the_content_key_is_that_of_the_atoms():
    keys = [ClusterData(make_cluster(seed)).base.attributes.get('content_key') for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]


def test_a_cluster_without_mask_is_not_stored():
    node = ClusterData(ase=bulk('Al', cubic=True))
    with pytest.raises(ValidationError, match='force_mask has None entries for 4 atoms'):
        node.store()
