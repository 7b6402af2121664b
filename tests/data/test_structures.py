import numpy as np
import pytest
from aiida import orm
from aiida.manage import get_manager
from aiida.orm.nodes.repository import NodeRepository
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.data.arrays import read_arrays


def make_snapshots():
    frames = []
    for step in (0, 10):
        atoms = bulk('Al', cubic=True)
        atoms.rattle(0.1, seed=step)
        atoms.arrays['gamma'] = np.linspace(0, step, 4)
        atoms.info['step'] = step
        frames.append(atoms)
    return frames


def test_structures_come_back_from_the_database():
    node = StructureSetData(make_snapshots()).store()
    loaded = orm.load_node(node.pk)
    assert (loaded.n_structures, loaded.n_atoms, loaded.symbols) == (2, 8, ['Al'])
    for atoms, expected in zip(loaded, make_snapshots(), strict=True):
        assert atoms == expected
        assert atoms.info == expected.info
        np.testing.assert_array_equal(atoms.arrays['gamma'], expected.arrays['gamma'])
    assert loaded.get_atoms(1).info['step'] == 10


def test_what_a_node_holds_can_be_queried():
    node = StructureSetData(make_snapshots()).store()
    fields = StructureSetData.fields
    query = orm.QueryBuilder().append(StructureSetData, filters=fields.attributes.n_atoms == 8, project='id')
    assert node.pk in query.all(flat=True)


def test_equal_content_has_an_equal_hash():
    first, second = StructureSetData(make_snapshots()).store(), StructureSetData(make_snapshots()).store()
    other = StructureSetData(make_snapshots()[::-1]).store()
    assert first.base.caching.compute_hash() == second.base.caching.compute_hash()
    assert first.base.caching.compute_hash() != other.base.caching.compute_hash()


def test_labels_in_a_file_become_reference_labels(tmp_path):
    atoms = make_snapshots()[0]
    atoms.calc = EMT()
    forces, energy = atoms.get_forces(), atoms.get_potential_energy()
    write(tmp_path / 'labelled.extxyz', atoms)
    loaded = StructureSetData.from_file(tmp_path / 'labelled.extxyz').get_atoms(0)
    assert loaded.info['REF_energy'] == pytest.approx(energy)
    np.testing.assert_allclose(loaded.arrays['REF_forces'], forces, atol=1e-7)
    assert loaded.calc is None


def test_structure_data_is_a_set_of_one():
    node = orm.StructureData(ase=bulk('Al', cubic=True))
    assert get_structures(node)[0] == bulk('Al', cubic=True)


@pytest.mark.parametrize('packed', [False, True])
def test_arrays_read_at_once_are_those_read_one_by_one(packed):
    twins = {'left': np.arange(3.0), 'right': np.arange(3.0), 'other': np.full((200, 3), packed), 'no': np.zeros(0)}
    node = orm.ArrayData(twins).store()
    if packed:
        get_manager().get_profile_storage().maintain(full=False)
    loaded = orm.load_node(node.pk)
    arrays = read_arrays(loaded)
    assert list(arrays) == loaded.get_arraynames()
    for name, expected in twins.items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype
    # Twins are one object in the repository, and must not become one array.
    arrays['left'][0] = 5.0
    assert arrays['right'][0] == 0.0


def test_the_object_store_is_opened_once_for_all_arrays(monkeypatch):
    node = StructureSetData(make_snapshots()).store()
    opened = []
    monkeypatch.setattr(NodeRepository, 'open', lambda repository, path, mode='r': opened.append(path))
    assert len(orm.load_node(node.pk).get_set()) == 2
    assert opened == []


def test_arrays_of_a_node_that_is_not_stored_can_be_read():
    np.testing.assert_array_equal(read_arrays(orm.ArrayData({'a': np.arange(3)}))['a'], [0, 1, 2])
