from __future__ import annotations

import numpy as np
import pytest

from aiida_oodal.engine.ace.files import AceHeader, check_active_set, read_ace_header
from aiida_oodal.engine.errors import OodalError

BASIS = """
global:
  DeltaSplineBins: 0.001
species:
  - speciesblock: Cu
    rcutij: 5
    nbody:
      - {type: Cu Cu, nr: [1], nl: [0], c: [0.1]}
      - {type: Cu Cu Cu, nr: [1, 1], nl: [0, 0], c: [0.2]}
  - speciesblock: Cu Al
    rcutij: 5.5
    nbody:
      - {type: Cu Al, nr: [1], nl: [0], c: [0.3]}
  - speciesblock: Al
    rcutij: 6
    nbody:
      - {type: Al Al, nr: [1], nl: [0], c: [0.4]}
"""
TABULATED = """
elements: [Al]
E0: [0]
bonds:
  [0, 0]: {nradmax: 6}
functions:
  0:
    - {mu0: 0}
"""
HEADER = AceHeader(('Al', 'Cu'), 6.0, {'Al': 1, 'Cu': 3}, n_densities={'Al': 1, 'Cu': 1})


def save(path, **sets):
    with path.open('wb') as stream:
        np.savez(stream, **sets)
    return path


def test_a_basis_tells_elements_cutoff_and_functions_of_each_central_atom(tmp_path):
    path = tmp_path / 'potential.yaml'
    path.write_text(BASIS)
    assert read_ace_header(path) == HEADER
    assert read_ace_header(BASIS) == HEADER


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (TABULATED, r'wrong\.yaml is the tabulated \.yace form: give the \.yaml'),
        ('just words', 'holds no YAML mapping'),
        ('a: [1', r'wrong\.yaml cannot be read as YAML'),
        ('a: 1', "has no 'species' list"),
        ('species: [{speciesblock: Al}]', 'not a complete ACE B-basis'),
        ('species: [{speciesblock: Zz, rcutij: 5, nbody: [{type: Zz Zz}]}]', 'Zz is no element'),
        ('species: [Al]', 'not a complete ACE B-basis'),
        (BASIS.replace('rcutij: 5.5', 'rcutij: far'), 'not a complete ACE B-basis'),
    ],
)
def test_a_file_that_is_no_basis_is_named(tmp_path, text, message):
    path = tmp_path / 'wrong.yaml'
    path.write_text(text)
    with pytest.raises(OodalError, match=message):
        read_ace_header(path)


def test_files_that_are_missing_or_binary_are_named(tmp_path):
    with pytest.raises(OodalError, match=r'none\.yaml cannot be read'):
        read_ace_header(tmp_path / 'none.yaml')
    with pytest.raises(OodalError, match=r'set\.asi cannot be read as text'):
        read_ace_header(save(tmp_path / 'set.asi', Al=np.eye(60)))


def test_a_yaml_file_cannot_run_code(tmp_path):
    path = tmp_path / 'evil.yaml'
    path.write_text(f'species: !!python/object/apply:pathlib.Path.touch [{tmp_path}/done]')
    with pytest.raises(OodalError, match='cannot be read as YAML'):
        read_ace_header(path)
    assert not (tmp_path / 'done').exists()


def test_the_active_set_of_the_basis_is_accepted(tmp_path):
    check_active_set(save(tmp_path / 'a.asi', Al=np.eye(1), Cu=np.eye(3)), HEADER)


@pytest.mark.parametrize(
    ('sets', 'message'),
    [
        ({'Al': np.eye(1)}, r'is the active set for Al and the basis for Al Cu: give the \.asi'),
        ({'Al': np.eye(1), 'Ni': np.eye(3)}, 'is the active set for Al Ni'),
        ({'Al': np.eye(1), 'Cu': np.eye(4)}, r'Cu has the shape \(4, 4\) and the basis 3 functions'),
        ({'Al': np.eye(1), 'Cu': np.ones((3, 2))}, r'Cu has the shape \(3, 2\)'),
        ({'Al': np.eye(1), 'Cu': np.full((3, 3), np.nan)}, 'Cu holds values that are not finite'),
        ({'Al': np.eye(1), 'Cu': np.full((3, 3), 'x')}, 'Cu holds values that are not finite'),
        ({'Al': np.eye(1), 'Cu': np.full((3, 3), None)}, 'cannot be read as an active set'),
    ],
)
def test_another_active_set_is_refused(tmp_path, sets, message):
    with pytest.raises(OodalError, match=message):
        check_active_set(save(tmp_path / 'a.asi', **sets), HEADER)


def test_damaged_files_are_named(tmp_path):
    path = save(tmp_path / 'a.asi', Al=np.eye(1), Cu=np.eye(3))
    content = path.read_bytes()
    with pytest.raises(OodalError, match=r'none\.asi does not exist'):
        check_active_set(tmp_path / 'none.asi', HEADER)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(OodalError, match=r'a\.asi is no npz archive'):
        check_active_set(path, HEADER)
    damaged = bytearray(content)
    damaged[180] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(OodalError, match=r'a\.asi cannot be read as an active set'):
        check_active_set(path, HEADER)


def test_the_active_set_of_a_nonlinear_potential_is_told_from_one_of_another_basis(tmp_path):
    header = AceHeader(('Al',), 6.0, {'Al': 3}, n_densities={'Al': 2})
    with pytest.raises(OodalError, match=r'is a nonlinear active set: Al has 2 densities.*give the linear active set'):
        check_active_set(save(tmp_path / 'potential.asi.nonlinear', Al=np.eye(6)), header)
    check_active_set(save(tmp_path / 'potential.asi', Al=np.eye(3)), header)
    with pytest.raises(OodalError, match='Al has the shape'):
        check_active_set(save(tmp_path / 'other.asi', Al=np.eye(5)), header)


def test_densities_and_atom_energies_are_read():
    text = BASIS.replace('rcutij: 6', 'rcutij: 6\n    ndensityi: 2')
    header = read_ace_header(text + 'metadata:\n  atom_energies: \'{"Al": -1.5, "Cu": 0.25}\'\n')
    assert header.n_densities == {'Al': 2, 'Cu': 1}
    assert header.atom_energies == {'Al': -1.5, 'Cu': 0.25}
