"""Shares with confidence, separation, and its verdict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from aiida_oodal.engine.analysis.statistics import (
    auroc,
    compare_sets,
    find_contradictions,
    flag_shares,
    separation,
    wilson_interval,
)
from aiida_oodal.engine.errors import OodalError


def test_wilson_interval_of_textbooks() -> None:
    assert wilson_interval(7, 10) == pytest.approx((0.3968, 0.8922), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0


def test_auroc_counts_pairs() -> None:
    inside, outside = np.array([1.0, 2.0, 2.0]), np.array([2.0, 3.0])
    pairs = [(o > i) + 0.5 * (o == i) for i in inside for o in outside]
    assert auroc(inside, outside) == pytest.approx(np.mean(pairs))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40), rng.normal(0.7, 1, size=30)
    expected = roc_auc_score(np.repeat([0, 1], [40, 30]), np.concatenate([a, b]))
    assert auroc(a, b) == pytest.approx(expected)


@given(st.integers(2, 40), st.integers(2, 40), st.floats(0, 4), st.integers(0, 1000))
def test_the_interval_holds_the_area(n: int, m: int, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(size=n), rng.normal(shift, 1, size=m)
    found = separation(inside, outside)
    assert 0.0 <= found.low <= found.auroc + 1e-4
    assert found.auroc - 1e-4 <= found.high <= 1.0
    mirrored = separation(outside, inside)
    assert mirrored.low == pytest.approx(1 - found.high, abs=2e-4)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    true = 0.8556  # P(N(1.5, 1) > N(0, 1)) = Phi(1.5 / sqrt 2)
    found = [separation(rng.normal(size=40), rng.normal(1.5, 1, 40)) for _ in range(300)]
    assert 0.91 < np.mean([s.low <= true <= s.high for s in found]) < 0.99


def test_the_verdict_is_in_plain_words() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=60)
    assert 'separates the sets (AUROC 1.000, 95 % interval 0.9' in separation(base, base + 9).sentence
    assert 'separates nothing here (AUROC' in separation(base, rng.normal(size=60)).sentence
    assert 'separates nothing here' in separation(np.ones(60), np.ones(60)).sentence
    assert 'wrong way round' in separation(base, base - 9).sentence
    # three structures prove nothing
    assert 'separates nothing here' in separation(base[:2], base[:1] + 9).sentence
    with pytest.raises(OodalError, match='one structure or more'):
        separation(base, np.empty(0))


def test_sets_are_compared_to_the_one_in_distribution(real_scores) -> None:
    sets = {name: real_scores(name) for name in ('test300', 'test600', 'test1200')}
    assert {row.aggregate for row in compare_sets(sets, 'test300')} == {'either'}
    found = {(row.name, row.metric): row for row in compare_sets(sets, 'test300', aggregate='mean')}
    assert len(found) == 3 * 9
    assert found['test1200', 'overall'].separation.auroc == 1.0
    assert found['test300', 'knn'].separation is None
    hot = found['test1200', 'aligned_variance']
    assert hot.separation.auroc == 1.0
    assert hot.separation.sentence.startswith('aligned_variance (mean) of test1200 against test300: separates the sets')
    assert [share.level for share in hot.shares] == [0.9, 0.95, 0.99]
    assert all(share.n_above == 10 and share.low > 0.7 and share.high == 1.0 for share in hot.shares)
    assert 'wrong way round' in found['test1200', 'variance'].separation.sentence
    assert found['test600', 'energy_std'].aggregate == 'mean'
    assert 'nothing' in found['test600', 'energy_std'].separation.sentence  # made-up energies
    assert [row.name for row in compare_sets(sets, 'test600', ['energy_std'], 'max')] == list(sets)
    with pytest.raises(OodalError, match=r'no set .x.; there are test300, test600, test1200'):
        compare_sets(sets, 'x')


def test_shares_are_counted(real_scores) -> None:
    scores = real_scores('test600')
    for share in flag_shares(scores, 'mahalanobis', 'p95'):
        assert share.n_above == scores.flags('mahalanobis', 'p95', share.level).sum()
        assert share.low < share.share == share.n_above / 14 < share.high


def test_ties_and_infinite_scores_are_ranked() -> None:
    assert auroc(np.ones(3), np.ones(4)) == 0.5
    assert auroc(np.array([1.0, np.inf]), np.array([np.inf, np.inf])) == pytest.approx(0.75)


def test_scores_that_contradict_each_other_are_told() -> None:
    (sentence,) = find_contradictions({'mahalanobis': 15, 'aligned_variance': 1, 'knn': 5}, 15)
    assert 'above their 95% thresholds are, of 15 structures, mahalanobis 15, aligned_variance 1' in sentence
    assert 'knn' not in sentence
    assert find_contradictions({'mahalanobis': 15, 'aligned_variance': 12}, 15) == []
    assert find_contradictions({'mahalanobis': 1, 'aligned_variance': 0}, 15) == []
    # Nine of a hundred are more than by chance.
    assert find_contradictions({'mahalanobis': 100, 'aligned_variance': 12}, 100) == []
