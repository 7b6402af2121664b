"""Rows of files and of pieces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.rows import NpyRows, RunRows


def test_rows_of_a_file_are_those_of_the_array(tmp_path) -> None:
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.save(tmp_path / 'a.npy', values)
    rows = NpyRows(tmp_path / 'a.npy')
    assert rows.shape == (20, 3)
    assert rows.dtype == np.float32
    for part in (slice(0, 20), slice(7, 9), slice(19, 40), slice(5, 5)):
        assert np.array_equal(rows[part], values[part])
    assert np.array_equal(np.asarray(rows), values)
    np.save(tmp_path / 'b.npy', np.arange(4))
    assert NpyRows(tmp_path / 'b.npy').read().tolist() == [0, 1, 2, 3]


def test_files_that_are_cut_or_no_numbers_are_refused(tmp_path) -> None:
    path = tmp_path / 'a.npy'
    np.save(path, np.zeros((20, 3)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OodalError, match=r'a\.npy has 607 bytes where 608 are needed: the job was cut short'):
        NpyRows(path)
    path.write_bytes(b'\x93NUMPY')
    with pytest.raises(OodalError, match=r'a\.npy cannot be read as an \.npy file'):
        NpyRows(path)
    with pytest.raises(OodalError, match=r'none\.npy cannot be read'):
        NpyRows(tmp_path / 'none.npy')
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(OodalError, match='numbers in C order are needed'):
        NpyRows(path)
    np.save(path, np.asfortranarray(np.ones((3, 2))))
    with pytest.raises(OodalError, match='Fortran order'):
        NpyRows(path)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5), st.data())
def test_pieces_are_one_array(pieces: list[tuple[int, int]], data: st.DataObject) -> None:
    source = np.arange(40).reshape(20, 2)
    runs = [(source, start, start + length) for start, length in pieces]
    whole = np.concatenate([source[start:stop] for _, start, stop in runs])
    rows = RunRows(runs)
    assert rows.shape == whole.shape
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(0, len(whole)))
    assert np.array_equal(rows[first:last], whole[first:last])
    assert np.array_equal(np.asarray(rows), whole)
