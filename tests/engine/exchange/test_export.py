import math

import ase.io
import numpy as np
import openpyxl
import pandas
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.cluster import Octahedron
from ase.constraints import FixAtoms, FixCartesian
from ase.neighborlist import neighbor_list

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.export import write_structures, write_table

TABLE = {'structure': [0, 1], 'score_A': [0.25, math.inf], 'above': [False, True], 'node': ['a', 'b']}
READERS = {'xlsx': pandas.read_excel, 'csv': pandas.read_csv, 'parquet': pandas.read_parquet}


@pytest.mark.parametrize('suffix', sorted(READERS))
def test_a_table_is_read_again_as_it_was(tmp_path, suffix):
    path = write_table(TABLE, tmp_path / 'deep' / f'scores.{suffix}', about=[('structure', 'position in its set')])
    frame = READERS[suffix](path)
    assert list(frame.columns) == list(TABLE)
    assert frame['above'].tolist() == [False, True]
    assert [float(value) for value in frame['score_A']] == [0.25, math.inf]
    if suffix == 'xlsx':
        about = pandas.read_excel(path, sheet_name='about')
        assert about.to_numpy().tolist() == [['structure', 'position in its set']]


def test_a_workbook_begins_with_what_one_works_through(tmp_path):
    table = {
        'name': ['hot_000000', 'hot_000001', 'hot_000002'],
        'candidate': [None, 1, None],
        'rank': [3, 1, 2],
        'reason': ['', 'far from all that are known', ''],
        'score': [0.123456789012345, 17.5, 1.0],
        'tiny': [1.23456e-5, 0.0, 0.0],
        'error': [math.inf, 2.0, 2.0],
        'n': [3, 4, 4],
    }
    path = write_table(table, tmp_path / 'scores.xlsx', [('name', 'x')], n_work=4)
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ['work list', 'scores', 'about']
    work, scores = book['work list'], book['scores']
    assert [cell.value for cell in work[1]] == ['name', 'candidate', 'rank', 'reason']
    assert [cell.value for cell in work['A'][1:]] == ['hot_000001', 'hot_000002', 'hot_000000']
    assert [cell.value for cell in scores['A'][1:]] == table['name']
    assert [cell.value for cell in scores[1]] == list(table)
    for sheet in (work, scores):
        assert sheet.freeze_panes == 'B2'
        assert sheet.auto_filter.ref == sheet.dimensions
    assert work.column_dimensions['D'].width > len('far from all that are known')
    formats = {cell.value: scores.cell(2, cell.column).number_format for cell in scores[1]}
    assert formats['score'] == '0.000'
    assert formats['tiny'] == '0.00E+00'
    assert formats['candidate'] == '0'
    assert scores['E2'].value == pytest.approx(0.123456789012345)
    assert scores['G2'].value == 'inf'


def test_an_unknown_table_format_names_those_there_are(tmp_path):
    with pytest.raises(OodalError, match='tables are written as xlsx, csv, parquet'):
        write_table(TABLE, tmp_path / 'scores.doc')


def test_structures_are_written_in_every_format_and_molecules_get_a_box(tmp_path):
    named = [('crystal', bulk('Al', cubic=True)), ('water', molecule('H2O'))]
    paths = write_structures(named, tmp_path / 'T1', ['cif', 'extxyz', 'poscar'])
    assert sorted(path.name for path in paths) == sorted(
        f'{name}{suffix}' for name in ('crystal', 'water') for suffix in ('.cif', '.extxyz', '.vasp')
    )
    for name, atoms in named:
        for suffix in ('.cif', '.extxyz', '.vasp'):
            back = ase.io.read(tmp_path / 'T1' / f'{name}{suffix}')
            assert sorted(back.numbers) == sorted(atoms.numbers)
            expected = atoms.get_all_distances(mic=bool(atoms.pbc.all()))
            found = back.get_all_distances(mic=bool(back.pbc.all()))
            np.testing.assert_allclose(np.sort(found.ravel()), np.sort(expected.ravel()), atol=1e-4)
    assert not ase.io.read(tmp_path / 'T1' / 'water.extxyz').pbc.any()


def neighbours(atoms):
    return np.sort(neighbor_list('d', atoms, 4.0))


def tight_cluster():
    atoms = Octahedron('Au', 3)
    atoms.center(vacuum=0.15)  # its images would touch: 0.3 angstrom
    atoms.pbc = False
    return atoms


def leaning_slab():
    atoms = fcc111('Al', (2, 2, 3))
    atoms.cell[2] = [1.0, 1.0, 4.7]
    atoms.pbc = [True, True, False]
    atoms.set_constraint(FixAtoms([0, 1]))
    return atoms


def wire():
    return Atoms('C4', [[0.0, 0.0, 1.3 * i] for i in range(4)], cell=[1.0, 0.0, 5.2], pbc=[False, False, True])


@pytest.mark.parametrize(
    ('make', 'axes', 'pbc'),
    [(tight_cluster, 'a, b, c', 'FFF'), (leaning_slab, 'c', 'TTF'), (wire, 'a, b', 'FFT')],
)
@pytest.mark.parametrize(('kind', 'suffix'), [('cif', '.cif'), ('poscar', '.vasp')])
def test_what_is_not_periodic_gets_vacuum_and_the_file_says_so(tmp_path, make, axes, pbc, kind, suffix):
    atoms = make()
    (path,) = write_structures([('x', atoms)], tmp_path, [kind])
    back = ase.io.read(path)
    np.testing.assert_allclose(neighbours(back), neighbours(atoms), atol=1e-6)
    assert f'10 angstrom of vacuum on both sides along {axes} (not periodic)' in path.read_text()
    for axis, periodic in enumerate(pbc):
        if periodic == 'T':
            assert back.cell.lengths()[axis] == pytest.approx(atoms.cell.lengths()[axis])
        else:
            assert back.cell.lengths()[axis] >= 20.0
    if kind == 'poscar' and atoms.constraints:
        assert back.constraints[0].index.tolist() == [0, 1]


def test_a_crystal_is_written_as_it_is(tmp_path):
    for path in write_structures([('al', bulk('Al'))], tmp_path, ['cif', 'poscar']):
        np.testing.assert_allclose(ase.io.read(path).cell.cellpar(), bulk('Al').cell.cellpar(), atol=1e-9)
        assert 'vacuum' not in path.read_text()


def test_files_say_what_they_are_of(tmp_path):
    atoms = bulk('Al')
    atoms.info.update(score=np.float64(0.25), node='1234-abcd', rank=3, name='mine', note='it\'s "odd"', list=[1, 2])
    cif, poscar, extxyz = write_structures([('T1_000007', atoms)], tmp_path, ['cif', 'poscar', 'extxyz'])
    lines = cif.read_text().splitlines()
    assert lines[0] == 'data_T1_000007'
    for line in ("_oodal_name 'T1_000007'", '_oodal_score 0.25', "_oodal_node '1234-abcd'", '_oodal_rank 3'):
        assert line in lines
    assert poscar.read_text().splitlines()[0].startswith('T1_000007 score=0.25 node=1234-abcd rank=3')
    assert ase.io.read(extxyz).info['node'] == '1234-abcd'
    for path in (cif, poscar):
        assert len(ase.io.read(path)) == 1


def test_atoms_held_along_one_axis_are_written_or_the_file_says_that_they_are_not(tmp_path):
    box, tilted = bulk('Al', cubic=True), bulk('Al').repeat(2)
    for atoms in (box, tilted):
        atoms.set_constraint([FixCartesian([1], (False, False, True)), FixAtoms([0])])
    first, second = write_structures([('box', box), ('tilted', tilted)], tmp_path, ['poscar'])
    rows = first.read_text().splitlines()[9:]
    assert [row.split()[3:] for row in rows[:3]] == [['F', 'F', 'F'], ['T', 'T', 'F'], ['T', 'T', 'T']]
    assert 'held along x, y or z only are free here' in second.read_text().splitlines()[0]


def test_matrices_for_each_atom_become_columns(tmp_path):
    atoms = bulk('Al', cubic=True)
    atoms.arrays['born'] = np.arange(36.0).reshape(4, 3, 3)
    (path,) = write_structures([('x', atoms)], tmp_path, ['extxyz'])
    assert ase.io.read(path).arrays['born'].tolist() == np.arange(36.0).reshape(4, 9).tolist()


def test_an_unknown_structure_format_names_those_there_are(tmp_path):
    with pytest.raises(OodalError, match="'pdb'; there is cif, extxyz, poscar"):
        write_structures([('x', bulk('Al'))], tmp_path, ['pdb'])
