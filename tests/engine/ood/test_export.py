import math

import ase.io
import numpy as np
import pandas
import pytest
from ase.build import bulk, molecule

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.export import write_structures, write_table

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


def test_an_unknown_structure_format_names_those_there_are(tmp_path):
    with pytest.raises(OodalError, match="'pdb'; there is cif, extxyz, poscar"):
        write_structures([('x', bulk('Al'))], tmp_path, ['pdb'])
