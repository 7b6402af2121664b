import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_oodal.workchains.screen_inputs import split_into_shards, validate_screen


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60), limit=st.integers(1, 400))
def test_shards_cover_the_set_once_and_are_no_larger_than_they_must_be(sizes, limit):
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    shards = split_into_shards(offsets, limit)
    assert [stop for _, stop in shards[:-1]] == [start for start, _ in shards[1:]]
    assert (shards[0][0], shards[-1][1]) == (0, len(sizes))
    for start, stop in shards:
        assert start < stop
        # Even cuts fall inside structures: one structure more than the limit at most.
        assert offsets[stop] - offsets[start] < limit + max(sizes) + 1
    assert len(shards) <= -(-int(offsets[-1]) // limit)


@pytest.mark.parametrize(
    ('ensembles', 'targets', 'name'),
    [(('A', 'A_B'), ('B_C', 'C'), 'A_B_C'), (('A', 'A_hot'), ('hot_reference',), 'A_hot_reference')],
)
def test_names_that_are_the_same_when_put_together_are_refused(ensembles, targets, name):
    inputs = {'ensembles': {key: {} for key in ensembles}, 'targets': {key: {} for key in targets}}
    problem = validate_screen(inputs, None)
    assert f'are both called {name!r}: rename one' in problem
