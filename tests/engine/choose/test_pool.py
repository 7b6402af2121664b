"""What all ways to choose share."""

import numpy as np
import pytest

from aiida_oodal.engine.choose.pool import Pool
from aiida_oodal.engine.errors import OodalError

GRADE = np.array([1.0, 5.0, 3.0, 5.0, np.inf])


def test_the_most_wanted_come_first_and_the_first_reason_stays():
    pool = Pool(GRADE)
    assert pool.members == [4, 1, 3, 2, 0]
    pool.refuse(GRADE <= 1.0, 'too small')
    pool.refuse({0: 'known', 4: 'not physical'})
    assert pool.members == [1, 3, 2]
    assert pool.reasons == {0: 'too small', 4: 'not physical'}
    with pytest.raises(OodalError, match='one number a thing is needed'):
        Pool(np.array([1.0, np.nan]), 'thing')


def test_duplicates_of_what_is_known_or_more_wanted_are_refused():
    points = np.array([[0.0], [1.0], [1.05], [7.0], [3.0]])
    pool = Pool(GRADE, 'structure')
    pool.refuse_duplicates(points, 0.1, known=np.array([[7.02]]))
    assert pool.reasons == {
        2: 'within 0.05 of structure 1 (tolerance 0.1)',
        3: 'within 0.02 of known structure 0 (tolerance 0.1)',
    }
    pool = Pool(GRADE)
    pool.refuse_duplicates(dict(enumerate(points)), 0.06, relative=True)
    assert list(pool.reasons) == [2]
    Pool(np.empty(0)).refuse_duplicates(np.empty((0, 1)), 0.1)


@pytest.mark.parametrize('method', ['farthest', 'kmeans'])
def test_spread_chooses_among_those_that_are_left(method):
    points = np.array([[0.0, 0], [0.1, 0], [10, 0], [10.1, 0], [0, 10]])
    pool = Pool(np.array([2.0, 1.0, 2.0, 1.0, 9.0]))
    pool.refuse({4: 'refused'})
    found = pool.spread(points, 2, method)
    assert len({index // 2 for index in found}) == 2
    assert 4 not in found
    assert Pool(np.empty(0)).spread(np.empty((0, 2)), 3, method) == {}
