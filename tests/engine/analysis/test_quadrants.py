"""Names of the quadrants."""

import numpy as np

from aiida_oodal.engine.analysis.quadrants import DEFINITION, QUADRANTS, flag_judges, quadrants
from aiida_oodal.engine.ood.reference import OodReference


def expected(high, far):
    return np.select([high & far, high & ~far, ~high & far], ['alien', 'hidden danger', 'confident novelty'], 'known')


def test_names_follow_from_the_two_flags(real_scores) -> None:
    for name in ('test300', 'test600', 'test1200'):
        scores = real_scores(name)
        found = quadrants(scores, aggregate='max', level=0.9)
        high, far = scores.flags('aligned_variance', 'max', 0.9), scores.flags('mahalanobis', 'max', 0.9)
        assert found == expected(high, far).tolist()
    assert set(quadrants(real_scores('test1200'))) == {'alien'}
    assert quadrants(real_scores('test300')).count('known') > 12


def test_out_is_what_is_not_known(real_scores) -> None:
    for name in ('test300', 'test600'):
        for level in (0.9, 0.95):
            scores = real_scores(name)
            flags = flag_judges(scores, level=level)
            out = scores.flags('overall', 'either', level)
            assert np.array_equal(flags['aligned_variance'] | flags['mahalanobis'], out)
            named = quadrants(scores, level=level)
            assert named == expected(flags['aligned_variance'], flags['mahalanobis']).tolist()
            assert [each != 'known' for each in named] == out.tolist()


def test_there_are_no_quadrants_without_both_scores(made_up) -> None:
    fitted = OodReference.fit(made_up(60), made_up(30, 1), settings={'metrics': ['mahalanobis']})
    scores = fitted.score(made_up(5, 2))
    assert quadrants(scores) is None
    assert list(flag_judges(scores)) == ['mahalanobis']


def test_every_name_is_defined_for_the_user() -> None:
    assert all(f'{name}: the models' in DEFINITION for name in QUADRANTS.values())
