"""What can be chosen, and what is refused at submission."""

import dataclasses
import typing

import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.fitting import FitOptions
from aiida_oodal.engine.ood.score_settings import CandidateSettings, Metric, ReferenceSettings
from aiida_oodal.engine.ood.scores import METRICS


def test_settings_are_the_options_of_the_fit() -> None:
    assert FitOptions.load(ReferenceSettings().fit_options()) == FitOptions()
    assert list(ReferenceSettings.model_fields) == [field.name for field in dataclasses.fields(FitOptions)]
    assert typing.get_args(Metric) == tuple(METRICS)
    changed = ReferenceSettings.load({'metrics': ['knn'], 'subspace': 4}).fit_options()
    assert FitOptions.load(changed) == FitOptions(metrics=('knn',), subspace=4)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'whitening_eps': 0.0}, 'whitening_eps = 0.0'),
        ({'metrics': []}, 'metrics'),
        ({'metrics': ['kmn']}, 'reference settings'),
        ({'neighbors': 3}, "did you mean 'neighbours'"),
    ],
)
def test_wrong_reference_settings(values: dict, message: str) -> None:
    assert message in ReferenceSettings.check(values)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({}, 'say which structures to take'),
        ({'level': 0.5}, 'level = 0.5: there are thresholds for 0.9, 0.95, 0.99'),
        ({'level': 0.95, 'threshold': 2.0}, 'give one of them'),
        ({'level': 0.95, 'method': 'kmeans'}, "method = 'kmeans' needs n"),
        ({'n': 0}, 'n = 0'),
    ],
)
def test_wrong_candidate_settings(values: dict, message: str) -> None:
    assert message in CandidateSettings.check(values)


def test_candidate_settings_as_users_write_them() -> None:
    assert CandidateSettings.load({'level': 0.95, 'n': 20, 'method': 'farthest'}).metric == 'aligned_variance'
    with pytest.raises(OodalError, match='candidate settings'):
        CandidateSettings.load({'n': 'many'})
