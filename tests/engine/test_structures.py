import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.structures import StructureSet


def make_frames():
    first = bulk('Al', cubic=True)
    first.arrays['gamma'] = np.arange(4.0)
    first.info['step'] = 10
    second = molecule('H2O')
    second.arrays['gamma'] = np.array([1.0, 2.0, 3.0])
    second.info.update(step=20, REF_energy=-1.5, origin='molecule')
    second.set_momenta(np.ones((3, 3)))
    return [first, second]


def assert_same(left: Atoms, right: Atoms):
    assert left == right
    assert left.arrays.keys() == right.arrays.keys()
    for name, array in left.arrays.items():
        np.testing.assert_array_equal(array, right.arrays[name])
    assert left.info == right.info


def test_round_trip_through_a_file(tmp_path):
    frames = make_frames()
    StructureSet.from_atoms(frames).save(tmp_path / 'set.npz')
    loaded = StructureSet.load(tmp_path / 'set.npz')
    assert len(loaded) == 2
    assert loaded.n_atoms == 7
    assert loaded.symbols == ('H', 'O', 'Al')
    for atoms, expected in zip(loaded, frames, strict=True):
        assert_same(atoms, expected)
    assert_same(loaded[-1], frames[1])


def test_bytes_depend_on_the_content_only(tmp_path):
    for name in ('a.npz', 'b.npz'):
        StructureSet.from_atoms(make_frames()).save(tmp_path / name)
    assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()


def test_the_empty_set(tmp_path):
    StructureSet.from_atoms([]).save(tmp_path / 'empty.npz')
    assert list(StructureSet.load(tmp_path / 'empty.npz')) == []


@pytest.mark.parametrize(
    ('start', 'stop', 'kept'),
    [(0, None, [0, 1, 2]), (1, 2, [1]), (1, 9, [1, 2]), (2, 1, []), (3, None, []), (7, 9, [])],
)
def test_a_part_of_a_set(start, stop, kept, tmp_path):
    frames = [*make_frames(), make_frames()[0]]
    frames[2].arrays['gamma'][:] = 7.0
    part = StructureSet.from_atoms(frames).part(start, stop)
    part.save(tmp_path / 'part.npz')
    for atoms, expected in zip(StructureSet.load(tmp_path / 'part.npz'), [frames[i] for i in kept], strict=True):
        assert_same(atoms, expected)


def test_structures_do_not_share_memory_with_the_set():
    structures = StructureSet.from_atoms(make_frames())
    atoms = structures[0]
    atoms.positions[:] = 7.0
    atoms.arrays['gamma'][:] = 7.0
    assert_same(structures[0], make_frames()[0])


@given(
    sizes=st.lists(st.integers(0, 5), max_size=6),
    values=hnp.arrays(np.float64, 40, elements=st.floats(-1e6, 1e6)),
)
def test_any_sizes_come_back(sizes, values):
    frames = []
    for size in sizes:
        atoms = Atoms(numbers=[1] * size, positions=np.resize(values, (size, 3)), cell=[1, 2, 3], pbc=[1, 0, 1])
        atoms.arrays['charge'] = np.resize(values, size)
        frames.append(atoms)
    structures = StructureSet.from_atoms(frames)
    for atoms, expected in zip(structures, frames, strict=True):
        np.testing.assert_array_equal(atoms.positions, expected.positions)
        np.testing.assert_array_equal(atoms.pbc, expected.pbc)
        if len(expected):
            np.testing.assert_array_equal(atoms.arrays['charge'], expected.arrays['charge'])


def test_integers_and_truth_values_that_some_structures_lack_are_kept_as_they_are(tmp_path):
    first, second = make_frames()
    second.arrays['parent_index'] = np.array([4, 0, 2])
    first.info['converged'] = False
    StructureSet.from_atoms([first, second]).save(tmp_path / 'set.npz')
    structures = StructureSet.load(tmp_path / 'set.npz')
    assert structures.notes == ()
    for content, indices in ((structures, (0, 1)), (structures.part(1), (1,))):
        for atoms, index in zip(content, indices, strict=True):
            assert_same(atoms, [first, second][index])
    assert structures[1].arrays['parent_index'].dtype.kind == 'i'
    assert structures[0].info['converged'] is False


def test_merging_sets_of_different_kinds_loses_nothing():
    first, second = make_frames()
    first.arrays['parent_index'] = np.arange(4)
    merged = StructureSet.from_atoms([*StructureSet.from_atoms([first]), *StructureSet.from_atoms([second])])
    for atoms, expected in zip(merged, [first, second], strict=True):
        assert_same(atoms, expected)


def test_python_objects_are_left_out_and_named():
    atoms = bulk('Al')
    atoms.info.update(history={'a': 1}, step=3)
    structures = StructureSet.from_atoms([bulk('Al'), atoms])
    assert set(structures.info) == {'step'}
    assert structures.notes == (
        "info 'history' is dropped in 1 of 2 structures (structure 1: {'a': 1} (dict) is neither a number, a text nor "
        'an array of these)',
    )


def test_results_of_a_calculator_are_no_labels_and_that_is_said():
    atoms = bulk('Al')
    atoms.calc = EMT()
    atoms.get_potential_energy()
    structures = StructureSet.from_atoms([atoms])
    assert (dict(structures.info), dict(structures.arrays)) == ({}, {})
    assert 'results of a calculator' in structures.notes[0]
    assert structures.notes[0].endswith('(1 of 1 structures, first in structure 0)')


def test_an_array_that_does_not_fit_its_atoms_is_left_out():
    atoms = bulk('Al', cubic=True)
    atoms.arrays['REF_forces'] = np.zeros((3, 3))
    structures = StructureSet.from_atoms([atoms])
    assert dict(structures.arrays) == {}
    assert "array 'REF_forces' is dropped: it has not one row for each atom" in structures.notes[0]


@pytest.mark.parametrize('size', [0, 1, 100, 700])
def test_a_cut_file_is_named(tmp_path, size):
    path = tmp_path / 'labels.npz'
    StructureSet.from_atoms(make_frames()).save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(OodalError, match=r'labels\.npz cannot be read as a structure set'):
        StructureSet.load(path)


def test_an_archive_of_something_else_is_named(tmp_path):
    np.savez(tmp_path / 'other.npz', energies=np.ones(3))
    with pytest.raises(OodalError, match=r'other\.npz: a structure set needs the arrays offsets, .* missing'):
        StructureSet.load(tmp_path / 'other.npz')


def test_contradicting_lengths_are_refused():
    arrays = StructureSet.from_atoms(make_frames()).to_arrays()
    arrays['positions'] = arrays['positions'][:-1]
    with pytest.raises(OodalError, match="'positions' has 6 entries where 7 are needed"):
        StructureSet.from_arrays(arrays)


def test_a_set_is_split_by_a_text():
    frames = [Atoms('Al', positions=[[x, 0, 0]]) for x in range(5)]
    for atoms, text in zip(frames, ('b', 'b', None, 'a', 'b'), strict=True):
        if text is not None:
            atoms.info['from'] = text
    parts = StructureSet.from_atoms(frames).split('from', 'rest')
    assert {text: [atoms.positions[0, 0] for atoms in part] for text, part in parts.items()} == {
        'b': [0, 1, 4],
        'rest': [2],
        'a': [3],
    }
    plain = StructureSet.from_atoms(frames[2:3])
    assert plain.split('from', 'rest') == {'rest': plain}
