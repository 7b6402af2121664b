import json

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.extxyz import explain_species, parse_frame
from aiida_oodal.engine.structures import StructureSet

BOX = 'Lattice="5 0 0 0 6 0 0 0 7"'


def frame(comment, *rows, first_line=1):
    rows = rows or ('Al 0 0 0', 'Al 2 2 2')
    return parse_frame([str(len(rows)), comment, *rows], first_line)


def test_results_are_on_the_calculator_as_they_stand():
    atoms = frame(
        f'{BOX} Properties=species:S:1:pos:R:3:forces:R:3:charge:R:1:tags:I:1 energy=-1.5 free_energy=none '
        'stress="1 6 5 6 2 4 5 4 3" dipole=None magmom=x step=7',
        'Al 0 0 0 1 2 3 0.5 1',
        'Cu 2 2 2 4 5 6 -0.5 2',
    )
    results = atoms.calc.results
    assert (results['energy'], results['free_energy'], results['dipole'], results['magmom']) == (
        -1.5,
        'none',
        'None',
        'x',
    )
    assert results['stress'].tolist() == [1, 6, 5, 6, 2, 4, 5, 4, 3]
    assert results['forces'].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert results['charges'].tolist() == [0.5, -0.5]
    assert atoms.info == {'step': 7}
    assert atoms.arrays['tags'].tolist() == [1, 2]
    assert atoms.cell.lengths().tolist() == [5, 6, 7]
    assert atoms.pbc.all()


@pytest.mark.parametrize(
    ('comment', 'key', 'value'),
    [
        ('virial="1 2 3 4 5 6"', 'virial', [1, 2, 3, 4, 5, 6]),
        ('virial="1 2 3 4 5 6 7 8 9"', 'virial', [[1, 4, 7], [2, 5, 8], [3, 6, 9]]),
        ('virial=none', 'virial', 'none'),
        ('my="a stress = 5 here"', 'my', 'a stress = 5 here'),
        (r'a="_JSON [[1, 2], [3, 4]]"', 'a', [[1, 2], [3, 4]]),
        (r'a="_JSON {\"b\": [1]}"', 'a', {'b': [1]}),
        ('a="_JSON [[1, 2"', 'a', '_JSON [[1, 2'),
        ('a=T', 'a', True),
        ('a=1.5 flag', 'flag', True),
        ('"key with space"=3', 'key with space', 3),
        ('a/b-c(d).e=3', 'a/b-c(d).e', 3),
        ('a=99999999999999999999999', 'a', 1e23),
        ('b=2 a=', 'b', 2),
    ],
)
def test_a_value_that_ase_would_refuse_costs_nothing_else(comment, key, value):
    atoms = frame(f'{BOX} energy=-1.0 {comment}')
    found = atoms.info[key]
    assert (found.tolist() if isinstance(found, np.ndarray) else found) == value
    assert (atoms.calc.results['energy'], len(atoms)) == (-1.0, 2)


def test_the_words_of_a_plain_comment_are_no_keys():
    assert frame('water at 300 K, from step 12').info == {'comment': 'water at 300 K, from step 12'}
    assert frame('').info == {}
    assert frame('i = 10, time = 5.0, E = -3.5').info == {'i': 10, 'time': 5.0, 'E': -3.5}


@pytest.mark.parametrize(
    ('word', 'expected'),
    [
        ('D', r'an isotope: write H, and its mass \(2.014\) in a column masses:R:1'),
        ('T', r'3\.016'),
        ('13', r'a number: .* atomic number, name the column Z:I:1; if it is a type of LAMMPS'),
        ('Al1', 'write Al, if'),
        ('Fe_pv', 'write Fe, if'),
        ('C_sp3', 'write C, if'),
        ('Qq', 'no chemical symbol$'),
    ],
)
def test_a_species_that_is_none_is_named_with_its_line_and_what_is_expected(word, expected):
    with pytest.raises(OodalError, match=f"cannot be read: line 24: species '{word}' is .*{expected}"):
        frame(BOX, 'Al 0 0 0', f'{word} 2 2 2', first_line=21)
    with pytest.raises(OodalError, match=f"line 3: species '{word}' is .*{expected}"):
        frame(f'{BOX} Properties=pos:R:3:species:S:1', f'0 0 0 {word}')
    assert word in explain_species(word)


def test_atomic_numbers_have_a_column_of_their_own():
    atoms = frame(f'{BOX} Properties=Z:I:1:pos:R:3', '13 0 0 0', '29 1 1 1')
    assert atoms.get_chemical_symbols() == ['Al', 'Cu']


@pytest.mark.parametrize(
    ('comment', 'rows', 'message'),
    [
        (BOX, ['Al 0 0'], 'line 3 has 3 values, where 4 belong .species:S:1:pos:R:3.'),
        ('Lattice="1 2"', ['Al 0 0 0'], 'the frame of 1 atoms cannot be read: .*Lattice'),
        (f'{BOX} Properties=species:S:1:pos:Q:3', ['Al 0 0 0'], 'Unknown property type: Q'),
    ],
)
def test_what_is_wrong_with_a_frame_is_said(comment, rows, message):
    with pytest.raises(OodalError, match=message):
        frame(comment, *rows)


def test_texts_for_each_atom_come_through():
    atoms = frame(f'{BOX} Properties=species:S:1:pos:R:3:site:S:1', 'Al 0 0 0 top', 'Al 1 1 1 hollow')
    assert atoms.arrays['site'].tolist() == ['top', 'hollow']
    assert json.dumps(atoms.info) == '{}'


@pytest.mark.parametrize(
    ('column', 'values', 'held'),
    [
        ('move_mask:L:1', ('T', 'F'), '[FixAtoms(indices=[1])]'),
        ('move_mask:I:1', ('1', '0'), '[FixAtoms(indices=[1])]'),
        ('move_mask:S:1', ('True', 'False'), '[FixAtoms(indices=[1])]'),
        ('move_mask:S:1', ('T', 'F'), '[FixAtoms(indices=[1])]'),
        (
            'move_mask:L:3',
            ('T T F', 'F F F'),
            '[FixAtoms(indices=[1]), FixCartesian(indices=[0], [False, False, True])]',
        ),
        ('move_mask:L:1', ('T', 'T'), '[]'),
    ],
)
def test_a_move_mask_holds_atoms_however_it_is_written(column, values, held):
    atoms = frame(
        f'{BOX} Properties=species:S:1:pos:R:3:{column} energy=-1', f'Al 0 0 0 {values[0]}', f'Al 1 1 1 {values[1]}'
    )
    assert str(atoms.constraints) == held
    assert set(atoms.arrays) == {'numbers', 'positions'}


def test_a_mask_of_two_columns_is_none_and_told():
    atoms = frame(f'{BOX} Properties=species:S:1:pos:R:3:move_mask:L:2', 'Al 0 0 0 T F')
    assert atoms.constraints == []
    (note,) = StructureSet.from_atoms([atoms]).notes
    assert 'constraint move_mask is not kept' in note
