"""Which structures become candidates, and why."""

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.candidates import CandidateOptions, choose_candidates, select_candidates, summarise

SCORES = np.array([0.1, 0.9, 0.5, 0.8, 0.2, 0.7])


def taken(candidates) -> list[int]:
    return [c.index for c in sorted((c for c in candidates if c.taken), key=lambda c: c.order)]


def test_the_largest_scores() -> None:
    found = select_candidates(SCORES, n=3)
    assert taken(found) == [1, 3, 5]
    assert [c.index for c in found] == list(range(6))
    assert [c.rank for c in found] == [6, 1, 4, 2, 5, 3]
    assert found[3].reason == 'number 2 by score'
    assert found[2].reason == 'eligible, but top took 3 others'
    assert taken(select_candidates(SCORES, n=10)) == [1, 3, 5, 2, 4, 0]


def test_limits_come_first() -> None:
    found = select_candidates(SCORES, threshold=0.5, n=5)
    assert taken(found) == [1, 3, 5]
    assert found[2].reason == 'not above the threshold 0.5'
    found = select_candidates(SCORES, quantile=0.8)
    assert taken(found) == [1]
    assert found[3].reason == 'not above 0.8, the 80 % quantile of the set'
    found = select_candidates(SCORES, threshold=0.5, quantile=0.8, n=1)
    assert 'threshold' in found[0].reason
    assert 'quantile' in found[5].reason
    assert taken(select_candidates(SCORES, threshold=2.0)) == []
    assert taken(select_candidates(np.array([1.0, np.inf]), n=1)) == [1]


@pytest.mark.parametrize('method', ['kmeans', 'farthest'])
def test_diverse_ones_cover_groups_that_are_eligible(method: str) -> None:
    rng = np.random.default_rng(0)
    groups = np.array([[0, 0], [10, 0], [0, 10], [50, 50.0]])
    points = np.concatenate([g + rng.normal(0, 0.3, (20, 2)) for g in groups])
    scores = np.concatenate([np.full(20, 1.0), np.full(20, 2.0), np.full(20, 3.0), np.full(20, 0.0)])
    found = select_candidates(scores, threshold=0.5, n=3, method=method, descriptors=points)
    assert {index // 20 for index in taken(found)} == {0, 1, 2}
    assert found[70].reason == 'not above the threshold 0.5'
    assert all(c.reason for c in found)
    assert len(taken(select_candidates(scores, n=100, method=method, descriptors=points))) == 80
    assert taken(select_candidates(scores, threshold=9.0, n=3, method=method, descriptors=points)) == []


def test_what_is_known_or_doubled_is_left_out() -> None:
    points = np.array([[0.0], [5.0], [5.1], [9.0], [20.0], [9.05]])
    found = select_candidates(SCORES, n=6, descriptors=points, known=np.array([[20.1]]), tolerance=0.2)
    assert taken(found) == [1, 3, 0]
    assert found[2].reason == 'within 0.1 of structure 1 (tolerance 0.2)'
    assert found[5].reason == 'within 0.05 of structure 3 (tolerance 0.2)'
    assert found[4].reason == 'within 0.1 of known structure 0 (tolerance 0.2)'
    found = select_candidates(SCORES, n=1, method='farthest', descriptors=points, known=np.array([[20.0]]))
    assert taken(found) == [0]


def test_contradictions_are_refused() -> None:
    for choice, message in (
        ({'n': 0}, '0 candidates were asked for'),
        ({'quantile': 1.0}, 'quantile = 1.0: it must be between 0 and 1'),
        ({'method': 'best', 'n': 1}, "'best' is not a way to choose; there are top, kmeans, farthest"),
        ({'method': 'kmeans'}, "'kmeans' needs the number of candidates"),
        ({'method': 'farthest', 'n': 2}, 'need descriptors, one row for each of the 6 structures'),
        ({'n': 2, 'tolerance': 0.1}, 'need descriptors'),
        ({'method': 'farthest', 'n': 2, 'descriptors': np.zeros((5, 2))}, 'need descriptors'),
    ):
        with pytest.raises(OodalError, match=message):
            select_candidates(SCORES, **choice)
    with pytest.raises(OodalError, match='are not numbers'):
        select_candidates(np.array([1.0, np.nan]), n=1)


def test_structures_that_are_known_are_no_candidates() -> None:
    found = select_candidates(SCORES, n=2, threshold=0.5, excluded={1: 'it is in the reference set'})
    assert taken(found) == [3, 5]
    assert found[1].reason == 'it is in the reference set'
    assert found[1].rank == 1


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({}, 'candidate settings: say which structures to take'),
        ({'level': 0.5}, 'level = 0.5: there are thresholds for 0.9, 0.95, 0.99'),
        ({'level': 0.95, 'threshold': 2.0}, 'give one of them'),
        ({'level': 0.95, 'method': 'kmeans'}, "method = 'kmeans' needs n"),
        ({'n': 0}, 'n = 0'),
        ({'n': 2, 'metric': 'entropy'}, "metric = 'entropy' is no score; there are overall, variance"),
        ({'n': 2, 'aggregate': 'max'}, "aggregate = 'max': 'overall' has 'either' only"),
    ],
)
def test_wrong_options_are_refused_at_submission(values: dict, message: str) -> None:
    assert message in CandidateOptions.check(values)


def test_by_default_either_look_at_either_score_makes_a_candidate(reference, real_set, real_scores) -> None:
    scores = real_scores('test600')
    found = choose_candidates(scores, CandidateOptions.load({'level': 0.95}))
    assert [each.taken for each in found] == scores.flags('overall', 'either').tolist()
    best = max(found, key=lambda each: each.score)
    spoken = scores.looks_above()[best.index][0]
    assert best.reason == f'{spoken}; number 1 by score'
    assert 'atom' in best.reason
    assert '(limit ' in best.reason
    summary = summarise(scores, found, CandidateOptions.load({'level': 0.95}))
    n = sum(each.taken for each in found)
    assert summary['summary'] == f'{n} of 14 structures are candidates by overall (either)'
    assert summary['taken'][0]['structure'] == scores.structure_index[best.index]
    assert sum(summary['left_out'].values()) == 14 - n
    by_max = choose_candidates(scores, CandidateOptions.load({'level': 0.9, 'metric': 'knn', 'aggregate': 'max'}))
    assert [each.taken for each in by_max] == scores.flags('knn', 'max', 0.9).tolist()
    energy = choose_candidates(scores, CandidateOptions.load({'n': 3, 'metric': 'energy_std'}))
    assert taken(energy) == np.argsort(-scores.of('energy_std'))[:3].tolist()


def test_real_candidates_are_the_hot_ones(reference, real_scores, real_set) -> None:
    scores = np.concatenate([real_scores(name).of('aligned_variance') for name in ('test300', 'test1200')])
    descriptors = np.concatenate([reference.structure_consensus(real_set(name)) for name in ('test300', 'test1200')])
    limit = reference.thresholds.structure('aligned_variance')
    for method in ('top', 'farthest'):
        found = select_candidates(scores, threshold=limit, n=4, method=method, descriptors=descriptors)
        assert len(taken(found)) == 4
        # one of the sixteen at 300 K is above the threshold, and far from the hot ones
        assert sum(index >= 16 for index in taken(found)) >= 3
