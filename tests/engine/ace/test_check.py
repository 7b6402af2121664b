"""What can be known of a training before it runs; each of these was found by a job that had died."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_oodal.engine.ace.check import check_training
from aiida_oodal.engine.ace.fit import Learned
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.structures import StructureSet


def pack(*structures):
    return StructureSet.from_atoms(structures)


def dilute(n_copper=1):
    atoms = bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)
    atoms.symbols[:n_copper] = 'Cu'
    return label_structure(atoms, EMT())


def test_good_data_pass(aluminium, values):
    known = pack(*aluminium[:3])
    assert check_training({'start': known}, values(), validation=pack(aluminium[3]), anchors={'a': known}) is None
    # More functions than environments are no obstacle to a fit.
    assert check_training({'start': pack(aluminium[0])}, values(number_of_functions=5000)) is None


def test_sets_without_labels_are_named_wherever_they_are(aluminium, values):
    known, bare = pack(*aluminium), pack(*aluminium[:1], bulk('Al'), bulk('Al'))
    message = check_training({'start': known, 'round_1': bare}, values())
    assert message == 'round_1: structure 1 has no REF_energy: label it before the fit (and 1 more of 3 structures)'
    assert check_training({'start': known}, values(), validation=bare).startswith('validation: structure 1 has no')
    assert check_training({'start': known}, values(), anchors={'hot': bare}).startswith('hot: structure 1 has no')
    assert check_training({'start': pack()}, values()) == 'start: the set is empty; leave it out'
    assert check_training({}, values()) == 'there is no training set: give at least one labelled set'


def test_what_will_be_labelled_counts(aluminium, values):
    """Nothing is labelled yet: elements and neighbours of the structures are known all the same."""
    structures, copper = pack(*aluminium), pack(label_structure(bulk('Cu'), EMT()))
    assert check_training({}, values(), awaited=structures, validation=pack(aluminium[0])) is None
    assert 'validation has Cu, which the training data (Al) lack' in check_training(
        {}, values(), awaited=structures, validation=copper
    )
    assert check_training({}, values(), awaited=structures, validation=pack(bulk('Al'))).startswith('validation: ')
    assert check_training({'copper': pack(dilute(2))}, values(), awaited=structures) is None


def test_pairs_of_elements_that_never_meet_are_named(aluminium, values):
    one, two = pack(dilute()), pack(dilute(2))
    message = check_training({'start': one}, values())
    assert message.startswith('Cu-Cu: these elements are never within 4.5 angstrom of each other in the training data')
    assert check_training({}, values(), awaited=one) == message
    assert check_training({'start': one}, values(unmet_pairs='accept')) is None
    assert check_training({'start': one, 'round_1': two}, values()) is None
    # A longer cutoff that was learned before makes neighbours: the cells are 12 angstrom wide.
    assert check_training({'start': one}, values(), learned=Learned(10, 12.5)) is None


def test_a_lattice_ten_times_too_large_is_named(values):
    sparse = label_structure(bulk('Al', 'fcc', a=40.0, cubic=True), EMT())
    message = check_training({'start': pack(dilute(4), sparse)}, values())
    assert message == (
        'start: structure 1: 4 atoms in 64000 angstrom^3, none within the cutoff of 4.5 angstrom of another: is the '
        'lattice in angstrom?'
    )
    assert check_training({}, values(), awaited=pack(bulk('Al', 'fcc', a=40.0, cubic=True))).startswith(
        'structure 0: 4'
    )
    dimer = Atoms('Al2', positions=[[0, 0, 0], [0, 0, 2.6]], cell=[40, 40, 40], pbc=True)
    assert check_training({'start': pack(dilute(4), label_structure(dimer, EMT()))}, values()) is None


def test_elements_that_a_mask_hides_are_named(aluminium, values):
    atoms = dilute(2)
    atoms.arrays['force_mask'] = np.where(atoms.numbers == 13, 1.0, 0.0)
    message = check_training({'start': pack(atoms)}, values(weights='mask', unmet_pairs='accept'))
    assert message.startswith('Cu: no atom of this element is in the core of a cluster')
    assert check_training({'start': pack(atoms)}, values(unmet_pairs='accept')) is None


def test_zeros_of_energy_are_looked_at(aluminium, values):
    for atoms in aluminium:
        atoms.info['REF_energy'] -= 32 * 537.0
    assert 'are total energies: give reference_energies' in check_training({'start': pack(*aluminium)}, values())
    assert check_training({'start': pack(*aluminium)}, values(fit_atom_energies=True)) is None
    free = [label_structure(Atoms('Al', cell=[size] * 3, pbc=True), EMT()) for size in (11, 12)]
    free[1].info['REF_energy'] += 1.0
    assert 'are both isolated Al atoms' in check_training({'start': pack(dilute(0), *free)}, values())


def test_a_cell_that_is_none_is_named(aluminium, values):
    aluminium[2].set_cell([8, 8, 0])
    assert check_training({'start': pack(*aluminium)}, values()).startswith('start: structure 2: the cell')
