from __future__ import annotations

import bz2
import gzip
import lzma
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.stream import Failure, Structure, StructureStream
from aiida_oodal.engine.structures import StructureSet


@pytest.fixture
def structures():
    return [bulk('Cu', cubic=True), molecule('H2O'), bulk('Al'), molecule('CH4')]


@pytest.fixture
def text(tmp_path, structures):
    """Extended XYZ whose frames begin at lines 1, 7, 12 and 15."""
    write(tmp_path / 'set.extxyz', structures)
    return (tmp_path / 'set.extxyz').read_text()


def read(path, **options):
    return list(StructureStream(path, **options))


def same(atoms, other):
    np.testing.assert_allclose(atoms.positions, other.positions, atol=1e-8)
    np.testing.assert_allclose(atoms.cell.array, other.cell.array, atol=1e-8)
    return atoms.numbers.tolist() == other.numbers.tolist() and atoms.pbc.tolist() == other.pbc.tolist()


@pytest.mark.parametrize(
    ('suffix', 'compress'), [('', bytes), ('.gz', gzip.compress), ('.xz', lzma.compress), ('.bz2', bz2.compress)]
)
def test_text_is_read_plain_and_compressed(suffix, compress, tmp_path, text, structures):
    path = tmp_path / f'frames.extxyz{suffix}'
    path.write_bytes(compress(text.encode()))
    stream = StructureStream(path)
    items = list(stream)
    assert [item.index for item in items] == [0, 1, 2, 3]
    assert [item.line for item in items] == [1, 7, 12, 15]
    assert all(same(item.atoms, atoms) for item, atoms in zip(items, structures, strict=True))


def test_a_structure_set_is_read(tmp_path, structures):
    StructureSet.from_atoms(structures).save(tmp_path / 'set.npz')
    items = read(tmp_path / 'set.npz')
    assert [(item.index, item.line) for item in items] == [(0, None), (1, None), (2, None), (3, None)]
    assert all(same(item.atoms, atoms) for item, atoms in zip(items, structures, strict=True))


@pytest.mark.parametrize('kind', ['extxyz', 'npz'])
@pytest.mark.parametrize(
    ('start', 'stop', 'expected'),
    [(0, 2, [0, 1]), (1, 3, [1, 2]), (2, None, [2, 3]), (2, 2, []), (1, 99, [1, 2, 3]), (9, None, [])],
)
def test_a_range_is_read(kind, start, stop, expected, tmp_path, text, structures):
    path = tmp_path / f'frames.{kind}'
    if kind == 'npz':
        StructureSet.from_atoms(structures).save(path)
    else:
        path.write_text(text)
    items = read(path, start=start, stop=stop)
    assert [item.index for item in items] == expected
    assert all(same(item.atoms, structures[item.index]) for item in items)


def test_a_part_of_a_set_is_counted_in_the_set(tmp_path, structures):
    StructureSet.from_atoms(structures).part(1, 4).save(tmp_path / 'part.npz')
    items = read(tmp_path / 'part.npz', start=2, stop=9, first=1)
    assert [item.index for item in items] == [2, 3]
    assert all(same(item.atoms, atoms) for item, atoms in zip(items, structures[2:], strict=True))
    write(tmp_path / 'part.extxyz', structures[1:])
    assert [item.index for item in read(tmp_path / 'part.extxyz', start=2, stop=3, first=1)] == [2]
    (tmp_path / 'junk.extxyz').write_text('junk\n')
    with pytest.raises(OodalError, match='is no extended XYZ file'):
        read(tmp_path / 'junk.extxyz', start=1, first=1)
    for first in (1, -1):
        with pytest.raises(OodalError, match=f'the range start = {first - 1}, stop = 2 must rise'):
            StructureStream(tmp_path / 'part.npz', start=first - 1, stop=2, first=first)
    with pytest.raises(OodalError, match='the range start = -1, stop = None must rise'):
        StructureStream(tmp_path / 'part.npz', start=-1, first=-1)


@pytest.mark.parametrize('kind', ['extxyz', 'npz'])
def test_the_share_that_is_read_grows_to_one(kind, tmp_path, structures):
    if kind == 'npz':
        StructureSet.from_atoms(structures * 100).save(tmp_path / 'set.npz')
    else:
        write(tmp_path / 'set.extxyz', structures * 100)
    stream = StructureStream(tmp_path / f'set.{kind}')
    shares = [stream.share_read for _ in stream]
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < 0.9
    assert shares[-1] == 1.0


def damaged(text, line, new):
    lines = text.splitlines(keepends=True)
    lines[line - 1 : line] = [new] if new else []
    return ''.join(lines)


@pytest.mark.parametrize(
    ('line', 'new', 'lost', 'failing_line', 'message'),
    [
        (9, 'O x y z\n', 1, 7, 'cannot be read'),
        (9, 'O 0.0 nan 0.1\n', 1, 9, r'atom 0 is at \[0.0, nan, 0.1\]: positions must be finite'),
        (10, 'Qq 0.0 0.0 0.1\n', 1, 7, 'cannot be read'),
        (8, 'Properties=species:S:1:pos:R:3 Lattice="1 2"\n', 1, 7, 'cannot be read'),
        (10, '', 1, 7, 'cannot be read'),
        (7, 'three\n', 1, 7, "'three' is not a number of atoms: 5 lines are passed over"),
        (10, 'H 0.1 0.2 0.3\nH 0.1 0.2 0.3\n', 2, 12, 'is not a number of atoms: 1 lines are passed over'),
    ],
)
def test_a_damaged_frame_is_named_and_the_others_are_read(
    line, new, lost, failing_line, message, tmp_path, text, structures
):
    (tmp_path / 'set.extxyz').write_text(damaged(text, line, new))
    items = read(tmp_path / 'set.extxyz')
    (failure,) = [item for item in items if isinstance(item, Failure)]
    assert (failure.index, failure.line) == (lost, failing_line)
    assert re.search(message, failure.message)
    kept = [item for item in items if isinstance(item, Structure)]
    assert len(kept) >= 3
    assert same(kept[0].atoms, structures[0])
    assert all(same(item.atoms, atoms) for item, atoms in zip(kept[-2:], structures[-2:], strict=True))


def test_empty_frames_are_named(tmp_path, text):
    (tmp_path / 'set.extxyz').write_text('0\nProperties=species:S:1:pos:R:3\n' + text)
    first, *others = read(tmp_path / 'set.extxyz')
    assert first == Failure(0, 1, 'the frame has no atoms')
    assert [item.line for item in others] == [3, 9, 14, 17]
    StructureSet.from_atoms([Atoms(), bulk('Al')]).save(tmp_path / 'set.npz')
    first, second = read(tmp_path / 'set.npz')
    assert first == Failure(0, None, 'the structure has no atoms')
    assert second.index == 1


def test_a_file_that_ends_too_early_keeps_what_it_has(tmp_path, text):
    (tmp_path / 'set.extxyz').write_text(''.join(text.splitlines(keepends=True)[:18]))
    items = read(tmp_path / 'set.extxyz')
    assert [type(item) for item in items] == [Structure, Structure, Structure, Failure]
    assert items[3] == Failure(3, 15, 'the file ends after 2 of 5 atoms')


def test_a_compressed_file_that_is_cut_keeps_what_it_has(tmp_path):
    random = np.random.default_rng(0)
    frames = [Atoms('H8', random.normal(size=(8, 3))) for _ in range(500)]
    write(tmp_path / 'set.extxyz', frames)
    data = gzip.compress((tmp_path / 'set.extxyz').read_bytes())
    (tmp_path / 'set.extxyz.gz').write_bytes(data[: len(data) // 2])
    *items, last = read(tmp_path / 'set.extxyz.gz')
    assert len(items) > 50
    assert all(isinstance(item, Structure) for item in items)
    assert last.index == len(items)
    assert 'what follows is lost' in last.message


def test_blank_lines_between_frames_and_windows_line_ends_do_no_harm(tmp_path, text):
    lines = text.splitlines()
    lines.insert(6, '')
    (tmp_path / 'set.extxyz').write_bytes('\r\n'.join([*lines, '', '']).encode())
    assert [item.line for item in read(tmp_path / 'set.extxyz')] == [1, 8, 13, 16]


def test_plain_xyz_is_read(tmp_path):
    write(tmp_path / 'plain.xyz', [molecule('H2O'), molecule('CH4')], format='xyz')
    assert [len(item.atoms) for item in read(tmp_path / 'plain.xyz')] == [3, 5]


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('set.extxyz', b'data_image0\n_cell 1\n', 'is no extended XYZ file: line 1'),
        ('set.extxyz.gz', b'3\nwater\n', 'cannot be read'),
        ('set.npz', b'3\nwater\n', 'cannot be read as a structure set'),
    ],
)
def test_files_of_another_kind_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OodalError, match=message):
        read(tmp_path / name)


def test_cut_structure_sets_and_wrong_ranges_are_refused(tmp_path, structures):
    path = tmp_path / 'set.npz'
    StructureSet.from_atoms(structures).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(OodalError, match='was the job cut short'):
        read(path)
    with pytest.raises(OodalError, match='start = 3, stop = 1 must rise'):
        StructureStream(path, start=3, stop=1)
    with pytest.raises(OodalError, match='does not exist'):
        StructureStream(tmp_path / 'absent.npz')
