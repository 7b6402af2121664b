from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear.pairs import name_pairs, shortest_distances, unmet


def test_the_shortest_distance_of_every_pair():
    molecule = Atoms('OHH', positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    found = shortest_distances([('water', molecule), ('dimer', Atoms('H2', positions=[[0, 0, 0], [0, 0, 0.74]]))], 3.0)
    assert found == {
        ('H', 'H'): pytest.approx(0.74),
        ('H', 'O'): pytest.approx(0.96),
        ('O', 'O'): np.inf,
    }
    assert unmet(found) == [('O', 'O')]
    assert name_pairs([('H', 'O'), ('O', 'O')]) == 'H-O, O-O'


def test_an_atom_meets_its_own_image_in_a_small_cell():
    found = shortest_distances([('al', bulk('Al', 'fcc', a=4.0))], 5.0)
    assert found == {('Al', 'Al'): pytest.approx(4.0 / np.sqrt(2))}
    assert unmet(shortest_distances([('al', Atoms('Al', cell=[9, 9, 9], pbc=True))], 5.0)) == [('Al', 'Al')]


def test_a_cell_that_is_none_is_named():
    flat = Atoms('Al2', positions=[[0, 0, 0], [0, 0, 2]], cell=[5, 5, 0], pbc=True)
    with pytest.raises(OodalError, match=r'^set: structure 4: the cell'):
        shortest_distances([('set: structure 4', flat)], 5.0)
