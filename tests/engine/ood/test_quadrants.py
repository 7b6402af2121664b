"""Names of the quadrants."""

import numpy as np

from aiida_oodal.engine.ood.quadrants import DEFINITION, QUADRANTS, quadrants


def test_names_follow_from_the_two_flags(real_scores) -> None:
    for name in ('test300', 'test600', 'test1200'):
        scores = real_scores(name)
        found = quadrants(scores, distance='knn', aggregate='max', level=0.9)
        high, far = scores.flags('aligned_variance', 'max', 0.9), scores.flags('knn', 'max', 0.9)
        expected = np.select(
            [high & far, high & ~far, ~high & far], ['alien', 'hidden danger', 'confident novelty'], 'known'
        )
        assert found == expected.tolist()
    assert set(quadrants(real_scores('test1200'))) == {'alien'}
    assert quadrants(real_scores('test300')).count('known') > 12


def test_every_name_is_defined_for_the_user() -> None:
    assert all(f'{name}: the models' in DEFINITION for name in QUADRANTS.values())
