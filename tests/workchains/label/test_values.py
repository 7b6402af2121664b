"""Values of a code become a label, or are refused with the reason."""

import numpy as np
import pytest
from ase.build import bulk

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.label.values import LabelValues, label_atoms, to_voigt


@pytest.fixture
def atoms():
    cell = bulk('AlMg', 'cesiumchloride', a=3.3).repeat((2, 1, 1))
    cell.rattle(0.1, seed=1)
    return cell


@pytest.fixture
def values(atoms):
    def make(**changes):
        forces = np.arange(12.0).reshape(4, 3)
        given = {'symbols': atoms.get_chemical_symbols(), 'energy': -7.0, 'forces': forces, 'stress': np.arange(6.0)}
        return LabelValues(**{**given, **changes})

    return make


def test_a_label_keeps_everything_else(atoms, values):
    atoms.arrays['force_mask'] = np.array([1.0, 1.0, 0.0, 0.0])
    atoms.info['REF_stress'] = 'of an earlier level'
    labelled = label_atoms(atoms, values(positions=atoms.positions), max_force=100)
    assert labelled.info == {'REF_energy': -7.0, 'REF_stress': pytest.approx(np.arange(6.0))}
    np.testing.assert_array_equal(labelled.arrays['REF_forces'], np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(labelled.arrays['force_mask'], atoms.arrays['force_mask'])


def test_no_stress_where_it_means_nothing(atoms, values):
    atoms.pbc = (True, True, False)
    assert 'REF_stress' not in label_atoms(atoms, values(), max_force=100).info


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'energy': np.nan}, 'the energy in the output is not finite'),
        ({'forces': np.full((4, 3), np.inf)}, 'the forces in the output is not finite|are not finite'),
        ({'stress': np.full(6, np.nan)}, 'the stress in the output is not finite'),
        ({'forces': np.zeros((3, 3))}, r'shape \(3, 3\), not \(4, 3\)'),
        ({'symbols': ['Al', 'Mg', 'Al']}, 'the output is of AlMgAl, not of AlMgAlMg'),
        ({'symbols': ['Al', 'Mg', 'Al', 'Si']}, 'it belongs to another structure'),
        ({'symbols': ['Mg', 'Al', 'Al', 'Mg']}, 'atom 0 is Mg in the output and Al here: the order differs'),
    ],
)
def test_what_is_no_label_is_refused(atoms, values, changes, message):
    with pytest.raises(OodalError, match=message):
        label_atoms(atoms, values(**changes), max_force=100)


def test_a_force_over_the_limit_is_refused(atoms, values):
    with pytest.raises(OodalError, match=r'force on atom 3 \(Mg\) is 17.4 eV/angstrom, over the limit max_force = 17'):
        label_atoms(atoms, values(), max_force=17)


def test_atoms_in_another_order_are_found_out_by_their_positions(atoms, values):
    wrapped = atoms.copy()
    wrapped.positions += atoms.cell[0] - 2 * atoms.cell[2]
    label_atoms(atoms, values(positions=wrapped.positions), max_force=100)
    with pytest.raises(OodalError, match='the order of atoms differs, or the workflow moved them'):
        label_atoms(atoms, values(positions=atoms.positions[[2, 1, 0, 3]]), max_force=100)


def test_voigt_order_is_that_of_ase():
    tensor = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    np.testing.assert_array_equal(to_voigt(tensor), [1, 2, 3, 4, 5, 6])
