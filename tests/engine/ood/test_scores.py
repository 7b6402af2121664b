"""From atoms to structures, flags, shards, arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.metrics import SCORES, describe_scores
from aiida_oodal.engine.ood.scores import OodScores, aggregate


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
    for metric, kinds in scores.per_structure.items():
        for kind in kinds:
            limit = scores.thresholds.structure(metric, kind, 0.9)
            assert np.array_equal(scores.flags(metric, kind, 0.9), scores.of(metric, kind) > limit)
    with pytest.raises(
        OodalError, match=r"no 'energy_std' by 'max' among the scores: variance \(mean/max/p95/either\)"
    ):
        scores.of('energy_std', 'max')


def test_what_spoke_is_named_and_agrees_with_the_verdict(real_scores) -> None:
    scores = real_scores('test600')
    for metric in ('overall', 'mahalanobis', 'energy_std'):
        found = scores.looks_above(metric, 0.95)
        assert [bool(looks) for looks in found] == scores.flags(metric, 'either').tolist()
        for i, looks in enumerate(found):
            for look in looks:
                assert look.value == scores.of(look.metric, look.aggregate)[i] > look.limit
    spoken = {(look.metric, look.aggregate) for looks in scores.looks_above() for look in looks}
    assert spoken == {(m, a) for m in ('aligned_variance', 'mahalanobis') for a in ('mean', 'max')}
    assert {look.aggregate for looks in scores.looks_above('energy_std') for look in looks} <= {'mean'}


def test_every_score_is_described_and_the_flaw_of_the_raw_variance_is_stated(real_scores) -> None:
    assert set(real_scores('test300').metrics) == {*SCORES, 'overall'} == set(describe_scores())
    assert 'flaw' in describe_scores()['variance']
    assert real_scores('test300').verdict == ('overall', 'either')


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
                assert np.array_equal(scores.flags(metric, kind), whole.flags(metric, kind))
        assert set(scores.per_atom) == set(whole.per_atom)
    assert all(values.dtype != object for values in joined.to_arrays().values())
    with pytest.raises(OodalError, match='damaged or of another kind'):
        OodScores.from_arrays({name: v for name, v in joined.to_arrays().items() if name != 'offsets'})
    with pytest.raises(OodalError, match='differ in their models or metrics'):
        OodScores.concatenate([whole, reference.score(latents, ['knn'])])


def test_some_structures_are_taken_in_any_order(real_scores) -> None:
    scores = real_scores('test600')
    some = scores.take(np.array([4, 1]))
    assert some.structure_index.tolist() == scores.structure_index[[4, 1]].tolist()
    assert np.array_equal(some.of('knn', 'max'), scores.of('knn', 'max')[[4, 1]])
    assert np.array_equal(some.per_atom['knn'][:15], scores.per_atom['knn'][60:75])
    assert np.array_equal(aggregate(some.per_atom['knn'], some.offsets)['max'], some.of('knn', 'max'))
    assert len(scores.take(np.array([], dtype=int))) == 0
