import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixedLine, FixedPlane, FixScaled

from aiida_oodal.engine.constraints import free_mask, hold, lost_constraints
from aiida_oodal.engine.structures import StructureSet


def crystal(*constraints):
    atoms = bulk('Al', cubic=True)
    atoms.set_constraint(list(constraints))
    return atoms


@pytest.mark.parametrize(
    ('constraints', 'free'),
    [
        ([], None),
        ([FixAtoms([1, 3])], [1, 0, 1, 0]),
        ([FixAtoms([1]), FixAtoms([3])], [1, 0, 1, 0]),
        ([FixCartesian([0], (True, True, True))], [0, 1, 1, 1]),
        ([FixCartesian([0, 2], (False, False, True))], [[1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 1, 1]]),
        ([FixScaled([0], (True, False, False))], [[0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        ([FixedPlane([0], (0, 0, 1))], [[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        ([FixedLine([0], (0, -2, 0))], [[0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]),
    ],
)
def test_what_ase_holds_comes_back(constraints, free):
    atoms = crystal(*constraints)
    found = free_mask(atoms)
    if free is None:
        assert found is None
        return
    np.testing.assert_array_equal(found, np.array(free, dtype=bool))
    again = bulk('Al', cubic=True)
    hold(again, found)
    np.testing.assert_array_equal(free_mask(again), found)
    moved = atoms.positions + 1.0
    again.set_positions(moved)
    np.testing.assert_array_equal(again.positions != atoms.positions, np.broadcast_to(found.reshape(4, -1), (4, 3)))


def test_a_column_of_extended_xyz_is_a_constraint():
    atoms = bulk('Al', cubic=True)
    atoms.arrays['move_mask'] = np.array([0, 1, 1, 1])
    assert free_mask(atoms).tolist() == [False, True, True, True]


def test_what_cannot_be_told_is_named():
    tilted = bulk('Al').repeat(2)
    tilted.set_constraint([FixScaled([0], (True, False, False)), FixBondLengths([[0, 1]]), FixedPlane([1], (1, 1, 0))])
    assert lost_constraints(tilted) == ['FixScaled', 'FixBondLengths', 'FixedPlane']
    assert free_mask(tilted) is None
    (note,) = [note for note in StructureSet.from_atoms([tilted]).notes if 'FixBondLengths' in note]
    assert note.endswith('can be held (1 of 1 structures, first in structure 0)')


def test_held_atoms_go_through_a_set_and_its_file(tmp_path):
    slab = fcc111('Al', (2, 2, 3), vacuum=5.0)
    slab.set_constraint(FixAtoms([0, 1, 2, 3]))
    partly = crystal(FixCartesian([2], (False, True, False)), FixAtoms([0]))
    for frames in ([slab, bulk('Al')], [slab, bulk('Al'), partly]):
        StructureSet.from_atoms(frames).save(tmp_path / 'set.npz')
        for loaded in (StructureSet.load(tmp_path / 'set.npz'), StructureSet.load(tmp_path / 'set.npz').part(0)):
            assert [str(atoms.constraints) for atoms in loaded] == [
                '[FixAtoms(indices=[0, 1, 2, 3])]',
                '[]',
                '[FixAtoms(indices=[0]), FixCartesian(indices=[2], [False, True, False])]',
            ][: len(frames)]
            assert 'move_mask' not in loaded[0].arrays
    assert [len(atoms.constraints) for atoms in loaded.part(1)] == [0, 2]
