"""When the walks of a campaign are enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.trust.convergence import ConvergenceSettings


def test_without_a_limit_gamma_is_not_looked_at():
    assert ConvergenceSettings().find_doubtful([1e9]) is None


def test_a_quantile_forgives_what_is_rare_and_the_largest_does_not():
    run = np.full(1000, 1.5)
    run[:5] = 4.0
    assert ConvergenceSettings(gamma=2.0).find_doubtful(run) is None
    assert ConvergenceSettings(gamma=2.0, gamma_quantile=1.0).find_doubtful(run) == 4.0
    run[:50] = 4.0
    assert ConvergenceSettings(gamma=2.0).find_doubtful(run) == 4.0


def test_samples_without_gamma_do_not_count():
    settings = ConvergenceSettings(gamma=2.0, gamma_quantile=1.0)
    assert settings.find_doubtful([np.nan, np.nan]) is None
    assert settings.find_doubtful([np.nan, 3.0]) == 3.0


@given(st.lists(st.floats(0.0, 100.0), min_size=1), st.floats(0.01, 100.0), st.floats(0.01, 1.0))
def test_what_is_doubtful_is_above_the_limit_and_in_the_run(run, limit, quantile):
    found = ConvergenceSettings(gamma=limit, gamma_quantile=quantile).find_doubtful(run)
    if found is None:
        assert np.quantile(run, quantile) <= limit
    else:
        assert limit < found <= max(run)


@pytest.mark.parametrize(
    ('errors', 'is_flat'),
    [
        ([], False),
        ([50.0, 49.9, 49.8], False),  # three trainings after the first are wanted
        ([50.0, 49.9, 49.8, 49.7], True),
        ([50.0, 49.9, 30.0, 60.0], False),  # it fell in between
        ([50.0, 60.0, 70.0, 80.0], True),
        ([90.0, 50.0, 49.9, 49.8, 49.7], True),
        ([90.0, 50.0, 49.9, 49.8], False),
        ([50.0, 49.0, 48.0, 47.4], False),
    ],
)
def test_an_error_is_flat_if_its_lowest_hardly_falls(errors, is_flat):
    assert ConvergenceSettings(flat_share=0.05, flat_rounds=3).is_flat(errors) == is_flat
    assert not ConvergenceSettings(flat_rounds=3).is_flat(errors)


@pytest.mark.parametrize('values', [{'rounds': 0}, {'gamma': 0.0}, {'gamma_quantile': 1.5}, {'flat_share': 1.0}])
def test_values_without_a_meaning_are_refused(values):
    (name,) = values
    with pytest.raises(OodalError, match=f'convergence: {name} = '):
        ConvergenceSettings.load(values)
