import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.start.types import assign_types


def chain(symbols, masses=None):
    atoms = Atoms(symbols, positions=[[2.0 * i, 0, 0] for i in range(len(Atoms(symbols)))], cell=[40] * 3, pbc=True)
    if masses is not None:
        atoms.set_masses(masses)
    return atoms


@pytest.mark.parametrize(
    ('symbols', 'masses', 'elements', 'types', 'type_masses', 'of_atoms'),
    [
        ('CuAl', None, ['Al', 'Cu', 'Ni'], ['Al', 'Cu', 'Ni'], [26.98, 63.55, 58.69], [2, 1]),
        ('Al2', [10, 10], ['Al', 'Cu'], ['Al', 'Cu'], [10, 63.55], [1, 1]),
        ('Al4', [40, 10, 10, 40], ['Al', 'Cu'], ['Al', 'Cu', 'Al'], [40, 63.55, 10], [1, 3, 3, 1]),
        ('AlCuAlCu', [1, 2, 3, 4], ['Cu', 'Al'], ['Cu', 'Al', 'Cu', 'Al'], [2, 1, 4, 3], [2, 1, 4, 3]),
        ('Al3', [5, 6, 7], ['Al', 'Al'], ['Al', 'Al', 'Al'], [5, 6, 7], [1, 2, 3]),
        ('Al2', [5, 5], ['Al', 'Al'], ['Al', 'Al'], [5, 5], [1, 1]),
        ('Al2', [26.9815385, 26.98153851], ['Al'], ['Al'], [26.98], [1, 1]),
    ],
)
def test_every_mass_of_an_element_has_a_type(symbols, masses, elements, types, type_masses, of_atoms):
    found = assign_types(chain(symbols, masses), elements)
    assert list(found.elements) == types
    assert found.of_atoms.tolist() == of_atoms
    np.testing.assert_allclose(found.masses, type_masses, rtol=1e-3)
    assert found.own_masses is (masses is not None)
    assert list(found.elements[: len(elements)]) == elements


@pytest.mark.parametrize(
    ('atoms', 'message'),
    [
        (chain('CuAu'), 'the structure has Au, Cu, but the potential knows Al only'),
        (chain('Al2', [1.0, -1.0]), 'atom 1 has the mass -1 u: masses must be above 0'),
        (chain('Al2', [np.nan, 1.0]), 'atom 0 has the mass nan u'),
        (chain('Al102', np.arange(1.0, 103.0)), 'the atoms of Al have 102 masses; .* 100 types are the limit'),
    ],
)
def test_masses_that_cannot_be_types_are_refused(atoms, message):
    with pytest.raises(OodalError, match=message):
        assign_types(atoms, ['Al'])
