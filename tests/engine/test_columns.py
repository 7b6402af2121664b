import re

import numpy as np
import pytest
from ase.spacegroup import Spacegroup
from hypothesis import given
from hypothesis import strategies as st

from aiida_oodal.engine.columns import Column, is_blank, plain_names
from aiida_oodal.engine.labels import LABEL_SHAPES, STRESS


def join(values, *, sizes=None, **options):
    column = Column("info 'x'", **options)
    for owner, value in enumerate(values):
        column.add(owner, value)
    return column.join(np.array(sizes or [1] * len(values)), lambda owner: f'frame {owner}')


@pytest.mark.parametrize(
    ('values', 'kept', 'note'),
    [
        ([1.5, 2.5], [1.5, 2.5], None),
        ([1, 2], [1, 2], None),
        (['a', 'bcd'], ['a', 'bcd'], None),
        ([1.5, None, 2.5], [1.5, np.nan, 2.5], None),
        ([1.5, 'none', 2.5], [1.5, np.nan, 2.5], r"dropped in 1 of 3 .*\(frame 1: 'none' stands for a missing number"),
        ([1.5, 'failed', 2], [1.5, np.nan, 2.0], r"dropped in 1 of 3 .*\(frame 1: 'failed' is no number\)"),
        ([1.5, 'failed'], [1.5, np.nan], "frame 1: 'failed' is no number"),
        ([1.5, '2.5', 3], [1.5, 2.5, 3.0], None),
        (['a1', 'b', 7], ['a1', 'b', '7'], 'text in most structures.* 1 of 3 where it is a number .first in frame 2'),
        (['none', 'none'], ['none', 'none'], None),
        ([None, 'a'], ['', 'a'], None),
        ([True, 2], [1, 2], None),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], None),
        ([[1, 2], [3, 4], [5, 6, 7]], [[1, 2], [3, 4], [np.nan, np.nan]], r'frame 2: its shape is \(3,\), not \(2,\)'),
        (
            [Spacegroup(225), Spacegroup(1)],
            None,
            r'dropped in 2 of 2 .*Spacegroup\(225, setting=1\).*and 1 other reason',
        ),
        ([{'a': 1}, 2.0], [np.nan, 2.0], r"frame 0: \{'a': 1\} \(dict\) is neither a number, a text nor an array"),
        ([[[1], [2, 3]], 2.0], [np.nan, 2.0], r'frame 0: \[\[1\], \[2, 3\]\] is no array'),
        ([np.array(['a', 'b'], dtype=object)] * 2, [['a', 'b'], ['a', 'b']], None),
        ([np.array([1, None], dtype=object)] * 2, [[1, np.nan], [1, np.nan]], None),
        ([10**30, 1], [1e30, 1.0], None),
        ([np.array([], dtype=int), 3.0], [np.nan, 3.0], None),
        ([b'abc', 1.0], [np.nan, 1.0], 'bytes'),
        ([2.0 + 1j, None], [2.0 + 1j, np.nan], None),
    ],
)
def test_what_is_kept_of_mixed_values(values, kept, note):
    joined = join(values)
    if kept is None:
        assert joined.values is None
    else:
        found = joined.values.astype(float) if joined.values.dtype.kind in 'iu' else joined.values
        if joined.present is not None:
            found[~joined.present] = np.nan
        np.testing.assert_array_equal(found, np.array(kept))
    if note is None:
        assert joined.note is None
    else:
        assert re.search(note, joined.note), joined.note
        assert joined.note.startswith("info 'x'")


def test_integers_and_truth_values_that_some_structures_lack_stay_what_they_are():
    for values, kind in (([None, 3, 0], 'i'), ([None, True, False], 'b')):
        joined = join(values)
        assert joined.values.dtype.kind == kind
        assert joined.values[1:].tolist() == values[1:]
        assert joined.present.tolist() == [False, True, True]
        assert joined.note is None
    tags = join([None, np.array([3, 2], dtype=np.int32)], sizes=[3, 2], per_atom=True)
    assert tags.values.tolist() == [0, 0, 0, 3, 2]
    assert (tags.values.dtype, tags.present.tolist()) == (np.int32, [False, True])


@pytest.mark.parametrize(
    ('value', 'kept'),
    [
        (-14.5, -14.5),
        (np.array([-14.5]), -14.5),
        (-14, -14.0),
        ('-14.5', -14.5),
        ('None', np.nan),
        ('failed', np.nan),
        (True, np.nan),
        ([1.0, 2.0], np.nan),
        ({'a': 1}, np.nan),
    ],
)
def test_an_energy_is_a_number_or_missing_and_never_text(value, kept):
    joined = join(['text'] * 3 + [value, -1.0], shape=())
    assert joined.values.dtype == np.float64
    np.testing.assert_array_equal(joined.values, [np.nan] * 3 + [kept, -1.0])
    assert 'is dropped in' in joined.note


def test_stresses_come_in_all_ways_of_writing():
    full = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    voigt = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    joined = join([full, full.ravel(), voigt, 'None'], shape=LABEL_SHAPES[STRESS])
    np.testing.assert_array_equal(joined.values, [voigt, voigt, voigt, [np.nan] * 6])
    assert "frame 3: 'None' stands for a missing number" in joined.note


@given(st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.booleans()), min_size=1))
def test_any_mixture_is_joined_to_something_that_can_be_stored(values):
    for shape in (None, ()):
        joined = join(values, shape=shape)
        if joined.values is not None:
            assert len(joined.values) == len(values)
            assert joined.values.dtype.kind in 'biufU'
            assert shape is None or joined.values.dtype == np.float64


@pytest.mark.parametrize(('values', 'blank'), [([np.nan], True), (['', ''], True), ([1.0, np.nan], False), ([], False)])
def test_blanks_are_told_from_values(values, blank):
    assert is_blank(np.array(values)) is blank


def test_names_for_keys_are_plain_and_differ():
    names = plain_names(['a-b', 'a.b', 'a_b', 'x y(z)/1', 'REF-energy', 'µ', 3, '', 'tags', 'move-mask'], ['move_mask'])
    assert names == {
        'a-b': 'a_b_2',
        'a.b': 'a_b_3',
        'a_b': 'a_b',
        'x y(z)/1': 'x_y_z__1',
        'REF-energy': 'REF_energy_2',
        'µ': 'key',
        3: '3',
        '': 'key_2',
        'tags': 'tags',
        'move-mask': 'move_mask_2',
    }
