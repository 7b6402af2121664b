import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms, FixCartesian

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.start.held import group_words, held_atoms


def test_held_atoms_are_those_of_the_constraints():
    atoms = bulk('Al', cubic=True)
    assert held_atoms(atoms).tolist() == []
    atoms.set_constraint([FixAtoms([3]), FixCartesian([0])])
    assert held_atoms(atoms).tolist() == [0, 3]


def test_what_md_cannot_hold_is_refused():
    atoms = bulk('Al', cubic=True)
    atoms.set_constraint([FixAtoms([0]), FixCartesian([2], (True, False, True))])
    with pytest.raises(OodalError, match='atom 2 is held along x, z only, which MD cannot do'):
        held_atoms(atoms)


@pytest.mark.parametrize(
    ('atoms', 'words'),
    [
        ([], []),
        ([0], ['1']),
        ([0, 1, 2, 5, 7, 8], ['1:3 6 8:9']),
        (range(10_000), ['1:10000']),
        (range(0, 50, 2), [' '.join(str(i) for i in range(1, 41, 2)), '41 43 45 47 49']),
    ],
)
def test_groups_are_written_as_ranges(atoms, words):
    assert group_words(np.array(atoms, dtype=np.int64)) == words
