import numpy as np
import pytest
from aiida import orm
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from aiida_oodal.data import StructureSetData, get_structures


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
