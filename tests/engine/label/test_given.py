"""Labels of somebody else belong to the very structure that was asked for, in our order of atoms."""

from __future__ import annotations

import io

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.given import match_atoms, read_label, take_label


def make_alloy(seed=0):
    atoms = bulk('Cu', cubic=True).repeat((2, 1, 1))
    atoms.symbols[[1, 4]] = 'Au'
    atoms.set_cell(atoms.cell.array + np.array([[0, 0, 0], [0.7, 0, 0], [0.3, -0.4, 0]]), scale_atoms=True)
    atoms.rattle(0.2, seed=seed)
    return atoms


def emt_label(atoms):
    work = atoms.copy()
    work.calc = EMT(asap_cutoff=False)
    return work.get_potential_energy(), work.get_forces(), work.get_stress()


@given(st.integers(0, 1000), st.booleans())
def test_another_order_other_images_and_a_shift_are_the_same_structure(seed, shifted):
    random = np.random.default_rng(seed)
    asked = make_alloy(seed % 7)
    order = random.permutation(len(asked))
    other = asked[order]
    other.positions += random.integers(-2, 3, size=(len(other), 3)) @ other.cell.array
    other.positions += random.uniform(-2, 2, size=3) if shifted else 0.0
    energy, forces, stress = emt_label(other)
    other.calc = SinglePointCalculator(other, energy=energy, forces=forces, stress=stress)
    np.testing.assert_array_equal(order[match_atoms(asked, other)], np.arange(len(asked)))
    labelled = take_label(asked, other)
    expected = emt_label(asked)
    assert labelled.info['REF_energy'] == pytest.approx(expected[0], abs=1e-9)
    np.testing.assert_allclose(labelled.arrays['REF_forces'], expected[1], atol=1e-9)
    np.testing.assert_allclose(labelled.info['REF_stress'], expected[2], atol=1e-9)


def test_a_molecule_that_was_put_into_a_box_is_the_same():
    asked = molecule('CH3CH2OH')
    boxed = asked.copy()
    boxed.center(vacuum=8.0)
    boxed.pbc = True
    boxed = boxed[::-1]
    assert match_atoms(asked, boxed).tolist() == list(range(len(asked)))[::-1]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda atoms: atoms.append('Al'), 'it is AlAu2Cu6, and Au2Cu6 was asked for'),
        (lambda atoms: atoms.set_cell(atoms.cell * 1.01, scale_atoms=True), 'its cell differs by'),
        (lambda atoms: atoms.set_cell(None), 'its cell differs by'),
        (lambda atoms: atoms.positions.__setitem__((3, 0), atoms.positions[3, 0] + 0.1), r'atom 3 \(Cu\) is 0.1 ang'),
        (lambda atoms: setattr(atoms, 'positions', atoms.positions[::-1].copy()), 'not to a relaxed one'),
    ],
)
def test_another_structure_is_refused_with_the_reason(change, message):
    asked = make_alloy()
    other = asked.copy()
    change(other)
    with pytest.raises(OodalError, match=message):
        match_atoms(asked, other)


def test_two_atoms_cannot_be_the_same_one():
    asked = Atoms('Al2', positions=[[0, 0, 0], [0.0015, 0, 0]])
    other = Atoms('Al2', positions=[[0.0007, 0, 0], [3, 0, 0]])
    with pytest.raises(OodalError, match='angstrom away'):
        match_atoms(asked, other)


def from_text(comment, columns='species:S:1:pos:R:3:forces:R:3'):
    text = f'1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T T" Properties={columns} {comment}\nAl 0 0 0 0.1 0.2 0.3\n'
    return ase.io.read(io.StringIO(text), format='extxyz')


def test_the_energy_is_the_one_that_the_forces_belong_to():
    assert read_label(from_text('energy=-14.0 free_energy=-14.3')).energy == -14.3
    assert read_label(from_text('energy=-14.0')).energy == -14.0
    label = read_label(from_text('energy=-14.0 REF_energy=-3.0 REF_stress="1 2 3 4 5 6"'))
    assert (label.energy, label.stress.tolist()) == (-3.0, [1, 2, 3, 4, 5, 6])
    assert label.forces.tolist() == [[0.1, 0.2, 0.3]]


@pytest.mark.parametrize(
    ('atoms', 'message'),
    [
        (from_text(''), 'it has no energy: REF_energy is looked for'),
        (from_text('energy=-1', columns='species:S:1:pos:R:3:velo:R:3'), 'it has no forces'),
        (from_text('REF_energy=nan'), 'not finite'),
        (from_text('REF_energy=none'), 'is no number'),
        (from_text('energy=-1 REF_stress="1 2 3"'), r'stress has shape \(3,\)'),
    ],
)
def test_what_is_no_label_is_refused(atoms, message):
    with pytest.raises(OodalError, match=message):
        read_label(atoms)


def test_forces_in_other_units_are_noticed():
    atoms = make_alloy()
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.full((8, 3), 2e3))
    with pytest.raises(OodalError, match=r'2e\+03 eV/angstrom \(limit 1000\): are they in other units'):
        read_label(atoms)
