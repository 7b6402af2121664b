"""From atoms to structures, flags, shards, arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.scores import METRICS, OodScores, aggregate


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_aggregates_are_those_of_each_structure(sizes: list[int], data: st.DataObject) -> None:
    values = data.draw(arrays(float, sum(sizes), elements=st.floats(-1e6, 1e6)))
    offsets = np.cumsum([0, *sizes])
    found = aggregate(values, offsets)
    for i, part in enumerate(np.split(values, offsets[1:-1])):
        assert found['mean'][i] == pytest.approx(part.mean(), abs=1e-6)
        assert found['max'][i] == part.max()
        assert found['p95'][i] == pytest.approx(np.percentile(part, 95), abs=1e-6)


def test_infinite_atoms_make_infinite_structures() -> None:
    inf = np.inf
    found = aggregate(np.array([1.0, inf, inf, inf, 2.0, 3.0]), np.array([0, 2, 4, 6]))
    assert found['mean'].tolist() == [inf, inf, 2.5]
    assert found['max'].tolist() == [inf, inf, 3.0]
    assert found['p95'] == pytest.approx([inf, inf, 2.95])
    assert aggregate(np.array([1.0, inf] + [0.0] * 19), np.array([0, 21]))['p95'].tolist() == [1.0]


def test_flags_are_above_the_thresholds(real_scores) -> None:
    scores = real_scores('test600')
    for metric in scores.metrics:
        limit = scores.thresholds.structure(metric, 'mean', 0.9)
        assert np.array_equal(scores.flags(metric, 'mean', 0.9), scores.of(metric) > limit)
    own = scores.thresholds.of_atoms('knn', 0.95, scores.numbers)
    assert len(np.unique(own)) == len(np.unique(scores.numbers))
    assert np.array_equal(scores.atom_flags('knn'), scores.per_atom['knn'] > own)
    with pytest.raises(OodalError, match=r"no 'energy_std' by 'max' among the scores: variance \(mean/max/p95\)"):
        scores.of('energy_std', 'max')
    with pytest.raises(OodalError, match="no 'energy_std' per atom"):
        scores.atom_flags('energy_std')


def test_every_score_is_described_and_the_flaw_of_the_raw_variance_is_stated(real_scores) -> None:
    assert set(real_scores('test300').metrics) == set(METRICS)
    assert 'flaw' in METRICS['variance']


def test_shards_and_arrays_give_the_same_scores(reference, real_set, real_scores) -> None:
    latents, whole = real_set('test600'), real_scores('test600')
    parts = [reference.score(latents.select(part)) for part in (np.arange(5), np.arange(5, 14))]
    joined = OodScores.concatenate(parts)
    again = OodScores.from_arrays(joined.to_arrays())
    for scores in (joined, again):
        assert scores.labels == whole.labels
        assert np.array_equal(scores.offsets, whole.offsets)
        assert np.array_equal(scores.structure_index, whole.structure_index)
        for metric in whole.metrics:
            for kind, values in whole.per_structure[metric].items():
                assert np.allclose(scores.of(metric, kind), values, rtol=1e-10, atol=1e-13)
            assert np.array_equal(scores.flags(metric), whole.flags(metric))
        assert set(scores.per_atom) == set(whole.per_atom)
    assert all(values.dtype != object for values in joined.to_arrays().values())
    with pytest.raises(OodalError, match='damaged or of another kind'):
        OodScores.from_arrays({name: v for name, v in joined.to_arrays().items() if name != 'offsets'})
    with pytest.raises(OodalError, match='differ in their models or metrics'):
        OodScores.concatenate([whole, reference.score(latents, ['knn'])])
