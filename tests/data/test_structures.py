import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.manage import get_manager
from aiida.orm.nodes.repository import NodeRepository
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import write

from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.data.arrays import read_arrays
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.structures import StructureSet

ROOT = Path(__file__).parents[2]


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


def test_a_hash_that_was_lost_by_an_import_is_computed_once():
    node = StructureSetData(make_snapshots()).store()
    hashed = node.base.caching.get_hash()
    node.base.extras.delete('_aiida_hash')
    assert node.base.caching.compute_hash() == hashed
    assert orm.load_node(node.pk).base.caching.get_hash() == hashed
    # who clears it does not want it
    node.base.caching.clear_hash()
    assert node.base.caching.compute_hash() == hashed
    assert node.base.caching.get_hash() is None


def test_labels_in_a_file_become_reference_labels(tmp_path):
    atoms = make_snapshots()[0]
    atoms.calc = EMT()
    forces, energy = atoms.get_forces(), atoms.get_potential_energy()
    write(tmp_path / 'labelled.extxyz', atoms)
    loaded = StructureSetData.from_file(tmp_path / 'labelled.extxyz').get_atoms(0)
    assert loaded.info['REF_energy'] == pytest.approx(energy)
    np.testing.assert_allclose(loaded.arrays['REF_forces'], forces, atol=1e-7)
    assert loaded.calc is None


def test_what_was_dropped_on_the_way_in_stays_with_the_node(tmp_path):
    frames = make_snapshots()
    write(tmp_path / 'run.extxyz', frames)
    text = (tmp_path / 'run.extxyz').read_text().replace('step=10', 'step=10 a/b=1 spin=none')
    (tmp_path / 'run.extxyz').write_text(text)
    node = StructureSetData.from_file(tmp_path / 'run.extxyz').store()
    loaded = orm.load_node(node.pk)
    assert loaded.notes == [
        f"{tmp_path}/run.extxyz: 'a/b' is kept as 'a_b': names are of letters, digits and underscores"
    ]
    assert loaded.get_atoms(1).info == {'step': 10, 'a_b': 1, 'spin': 'none'}
    assert StructureSetData(frames).notes == []
    # the same structures are the same, whatever their file was called
    (tmp_path / 'other.extxyz').write_text(text)
    other, failures = StructureSetData.read(tmp_path / 'other.extxyz')
    assert failures == []
    assert other.notes != loaded.notes
    assert other.store().base.caching.compute_hash() == loaded.base.caching.compute_hash()


def test_the_page_about_structures_is_followed_as_it_stands(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'structures.md').read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    shown, *notes = capsys.readouterr().out.splitlines()
    assert shown == re.search(r'# (\{.*\})', code)[1]
    assert notes == [
        "set.extxyz: 'run time [s]' is kept as 'run_time__s': names are of letters, digits and underscores"
    ]


def test_a_dump_needs_elements_and_named_labels(tmp_path):
    (tmp_path / 'run.dump').write_text(
        'ITEM: TIMESTEP\n7\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n'
        'ITEM: ATOMS id type x y z fx fy fz\n1 1 0 0 0 1 2 3\n2 2 4 4 4 -1 -2 -3\n'
    )
    with pytest.raises(OodalError, match=r'types of LAMMPS .* are not elements'):
        StructureSetData.from_file(tmp_path / 'run.dump')
    node = StructureSetData.from_file(tmp_path / 'run.dump', elements=['Al', 'Cu'])
    assert (node.symbols, node.base.attributes.get('properties')) == (['Al', 'Cu'], ['id', 'step'])
    assert 'forces of a lammps-dump-text file' in node.notes[0]
    node = StructureSetData.from_file(tmp_path / 'run.dump', labels={'forces': 'forces'}, elements=['Al', 'Cu'])
    assert node.get_atoms(0).arrays['REF_forces'].tolist() == [[1, 2, 3], [-1, -2, -3]]


def test_a_frame_that_cannot_be_read_is_refused_by_name_or_left_out(tmp_path):
    write(tmp_path / 'set.extxyz', make_snapshots())
    lines = (tmp_path / 'set.extxyz').read_text().splitlines()
    lines[8] = lines[8].replace('Al', 'D ')  # the first atom of the second frame
    (tmp_path / 'set.extxyz').write_text('\n'.join(lines) + '\n')
    with pytest.raises(
        OodalError, match=r"set\.extxyz: frame 1 \(line 7\): .* cannot be read: line 9: species 'D'"
    ) as error:
        StructureSetData.from_file(tmp_path / 'set.extxyz')
    assert 'StructureSetData.read leaves them out' in str(error.value)
    node, failures = StructureSetData.read(tmp_path / 'set.extxyz')
    assert (node.n_structures, [failure['structure'] for failure in failures]) == (1, [1])


def test_sets_with_names_that_no_database_takes_are_stored():
    content = replace(StructureSet.from_atoms(make_snapshots()), info={'a/b': np.array([1, 2])})
    node = StructureSetData(content).store()
    assert node.get_atoms(1).info == {'a_b': 2}
    assert node.notes == ["'a/b' is kept as 'a_b': names are of letters, digits and underscores"]


def test_held_atoms_and_masses_come_back_from_the_database():
    atoms = bulk('Al', cubic=True)
    atoms.set_constraint(FixAtoms([0, 2]))
    atoms.set_masses([10, 10, 40, 40])
    loaded = orm.load_node(StructureSetData([atoms, bulk('Cu')]).store().pk)
    assert loaded.get_atoms(0).constraints[0].index.tolist() == [0, 2]
    assert loaded.get_atoms(0).get_masses().tolist() == [10, 10, 40, 40]
    assert loaded.get_atoms(1).constraints == []
    assert loaded.get_atoms(1).get_masses() == pytest.approx(63.546)


def test_structure_data_has_masses_only_if_they_are_its_own():
    atoms = bulk('Al', cubic=True)
    assert not get_structures(orm.StructureData(ase=atoms))[0].has('masses')
    atoms.set_masses([10, 10, 40, 40])
    assert get_structures(orm.StructureData(ase=atoms))[0].get_masses().tolist() == [10, 10, 40, 40]


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
