"""Quantiles, thresholds, force errors."""

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.calibration import LEVELS, ErrorScale, Thresholds
from aiida_oodal.engine.ood.looks import LOOKS, Looks, quantiles


@pytest.mark.parametrize('n', [30, 99, 500])
@pytest.mark.parametrize('level', LEVELS)
def test_a_new_value_is_above_as_often_as_promised(n: int, level: float) -> None:
    """Whatever the distribution is: the ranks alone decide."""
    rng = np.random.default_rng(n)
    draws = rng.lognormal(sigma=1.5, size=(20000, n + 1))
    limits = np.quantile(draws[:, :n], level, axis=1, method='weibull')
    above = np.mean(draws[:, n] > limits)
    expected = max(1 - level, 1 / (n + 1))
    # Between two order statistics of a skewed distribution the share is a little smaller.
    assert expected * 0.8 < above < expected * 1.1
    assert quantiles(draws[0, :n], [level])[0] == limits[0]


def test_thresholds_of_structures_and_elements() -> None:
    rng = np.random.default_rng(0)
    numbers = np.repeat([6, 8], [300, 100])
    atoms = rng.random(400) + (numbers == 8)
    structures = {'mean': rng.random(50), 'max': 1 + rng.random(50)}
    found = Thresholds.fit(
        numbers,
        {'knn': atoms},
        {'knn': structures, 'energy_std': {'mean': np.arange(50.0)}},
        ('mean', 'max'),
        np.array([1, 6, 8]),
    )
    assert found.n_structures == 50
    assert found.n_atoms.tolist() == [0, 300, 100]
    assert found.structure('knn', 'max', 0.9) == quantiles(structures['max'], [0.9])[0]
    assert found.structure('energy_std', 'mean', 0.95) == pytest.approx(47.45)
    assert np.isnan(found.structure('energy_std', 'max', 0.95))
    limits = found.of_atoms('knn', 0.95, np.array([8, 6, 1, 14]))
    assert limits[0] == quantiles(atoms[300:], [0.95])[0]
    assert limits[1] == quantiles(atoms[:300], [0.95])[0]
    assert limits[2] == quantiles(atoms, [0.95])[0]  # none held out
    assert limits[3] == 0.0  # unknown: everything is above
    assert found.resolves(0.95)
    assert not found.resolves(0.99)
    again = Thresholds.from_arrays(found.to_arrays())
    assert np.array_equal(again.of_structures, found.of_structures, equal_nan=True)
    assert again.metrics == found.metrics == ('knn', 'energy_std', 'overall')
    assert again.aggregates == ('mean', 'max', 'either')
    assert found.structure('knn', 'either', 0.95) == pytest.approx(1.0)
    assert np.array_equal(again.looks.units, found.looks.units)
    assert again.n_structures == 50
    with pytest.raises(OodalError, match=r'level 0\.5 has no threshold; there are 0\.9, 0\.95, 0\.99'):
        found.structure('knn', 'mean', 0.5)
    with pytest.raises(OodalError, match="score 'gmm' has no threshold; there are knn, energy_std, overall"):
        found.structure('gmm')


def test_disagreement_becomes_an_error_in_the_right_units() -> None:
    rng = np.random.default_rng(0)
    numbers = np.repeat([1, 8], 5000)
    disagreement = rng.uniform(0.5, 2.0, 10000)
    errors = disagreement * np.where(numbers == 1, 0.1, 0.7) * np.abs(rng.normal(size=10000))
    errors[::3] = np.nan
    scale = ErrorScale.fit(numbers, disagreement, errors, np.array([1, 8, 14]), 0.9)
    assert scale.scales[:2] == pytest.approx([0.1, 0.7], rel=0.05)
    assert scale.scales[2] == pytest.approx(np.sqrt((0.1**2 + 0.7**2) / 2), rel=0.05)  # no label: all together
    # |x| < 1 of a normal distribution 68 %, 90 % below 1.645
    assert scale.covered == pytest.approx(0.68, abs=0.02)
    assert scale.factor == pytest.approx(1.645, rel=0.04)
    predicted = scale(np.array([1, 8, 3]), np.array([2.0, 2.0, 0.0]))
    assert predicted[:2] == pytest.approx(scale.scales[:2] * 2)
    assert predicted[2] == np.inf
    with pytest.raises(OodalError, match='no held-out atom has both'):
        ErrorScale.fit(numbers, disagreement, np.full(10000, np.nan), np.array([1, 8]), 0.9)


@pytest.mark.parametrize('n', [30, 200])
def test_several_looks_flag_no_more_than_one(n: int) -> None:
    """Whatever the distributions are, and whether the looks go together or not."""
    rng = np.random.default_rng(n)
    for shared in (0.0, 0.7, 1.0):
        above = []
        for _ in range(300):
            common = rng.normal(size=(1, n + 200))
            own = shared * common + (1.0 - shared) * rng.normal(size=(4, n + 200))
            values = np.stack([np.exp(own[0]), 3.0 + own[1], np.exp(0.2 * own[2]), own[3] - 5.0])
            kinds = [dict(zip(LOOKS, values[2 * m : 2 * m + 2], strict=True)) for m in range(2)]
            per_structure = dict(zip(('aligned_variance', 'mahalanobis'), kinds, strict=True))

            def part(which: slice, scores: dict = per_structure) -> dict:
                return {m: {k: v[which] for k, v in own.items()} for m, own in scores.items()}

            looks = Looks.fit(part(slice(n)))
            new = looks.combine(part(slice(n, None)))['overall']['either']
            above.append(np.mean(new > 1.0))
        assert 0.03 < np.mean(above) < (0.09 if n == 30 else 0.065), shared


def test_the_combined_number_of_one_look_is_the_score_over_its_threshold() -> None:
    values = np.random.default_rng(0).lognormal(size=100)
    looks = Looks.fit({'energy_std': {'mean': values}})
    new = np.array([0.0, 1.0, 7.0])
    found = looks.combine({'energy_std': {'mean': new}})
    limit = quantiles(values, (0.95,))[0]
    assert found['energy_std']['either'] == pytest.approx(new / limit)
    assert found['overall']['either'] == pytest.approx(new / limit)
    assert looks.limit('energy_std', 'mean', 1.0, 'overall') == pytest.approx(limit)
    assert looks.judges == ('energy_std',)


def test_held_out_structures_without_spread_make_everything_else_far() -> None:
    looks = Looks.fit({'knn': {'mean': np.zeros(20), 'max': np.full(20, 2.0)}})
    found = looks.combine({'knn': {'mean': np.array([0.0, 0.1]), 'max': np.array([2.0, 2.0])}})
    assert found['knn']['either'][0] <= 1.0 < 50.0 < found['knn']['either'][1]
