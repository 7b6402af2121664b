from io import StringIO
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from ase.io.lammpsdata import read_lammps_data

from aiida_oodal.engine.md.start.data_file import write_structure


def text_of(atoms, elements):
    """Return the data file that LAMMPS would read."""
    with NamedTemporaryFile('r') as file:
        write_structure(file.name, atoms, elements)
        return file.read()


def sections(text):
    """Return the rows of each section as lists of words, without comments."""
    found, name = {}, 'head'
    for line in text.splitlines():
        words = line.split('#')[0].split()
        if words and words[0][0].isalpha() and not line[0].isspace():
            name = words[0]
        elif words:
            found.setdefault(name, []).append(words)
    return found


def test_masses_have_types_and_keep_all_their_digits():
    atoms = bulk('Al', cubic=True)
    atoms.set_masses([26.9815385, 26.0, 26.9815385, 26.0])
    found = sections(text_of(atoms, ['Cu', 'Al']))
    assert [float(mass) for _, mass in found['Masses']] == [pytest.approx(63.546), 26.9815385, 26.0]
    assert [row[1] for row in found['Atoms']] == ['2', '3', '2', '3']
    assert ['3', 'atom', 'types'] in found['head']


def test_held_atoms_are_at_rest():
    atoms = bulk('Al', cubic=True)
    atoms.set_velocities(np.ones((4, 3)))
    atoms.set_constraint(FixAtoms([1, 2]))
    speeds = [[float(word) for word in row[1:]] for row in sections(text_of(atoms, ['Al']))['Velocities']]
    assert np.array(speeds).any(axis=1).tolist() == [True, False, False, True]


def test_a_small_lean_is_written_and_a_rounding_error_is_not():
    atoms = bulk('Al', cubic=True).repeat(10)
    leaning = np.array([[1, 0, 0], [1e-4 / 40.5, 1, 0], [0, 0, 1]])
    atoms.set_cell(leaning @ atoms.cell.array, scale_atoms=True)
    assert read_lammps_data(StringIO(text_of(atoms, ['Al'])), units='metal').cell[1, 0] == pytest.approx(1e-4)
    slab = fcc111('Al', (2, 2, 2), vacuum=5.0)
    slab.rotate(33.0, (1, 2, 3), rotate_cell=True)
    (tilts,) = [line for line in text_of(slab, ['Al']).splitlines() if 'xy xz yz' in line]
    assert [float(word) for word in tilts.split()[1:3]] == [0.0, 0.0]
    assert 'xy xz yz' not in text_of(bulk('Al', cubic=True), ['Al'])
