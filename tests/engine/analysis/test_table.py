"""One row a structure."""

import numpy as np
import pytest

from aiida_oodal.engine.analysis.table import WorkList, score_table
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.reference import OodReference


@pytest.fixture
def two(made_up):
    """Score one set against two references: the second has seen shifted environments too."""
    target = made_up(30, 5, shift=2.0)
    a = OodReference.fit(made_up(60), made_up(40, 1)).score(target)
    b = OodReference.fit(made_up(60, 2, shift=2.0), made_up(40, 3, shift=2.0)).score(target)
    return target, a, b


def test_what_one_works_through_comes_first(two) -> None:
    _, a, _ = two
    work = WorkList(
        'hot',
        candidates={4: 1, 2: 2},
        reasons={4: 'far', 2: 'near', 7: 'no candidate: it is structure 3 of the reference set'},
        info={'config_type': [f'c{i}' for i in range(30)], 'rank': list(range(30))},
    )
    table, n_work = score_table({'A': a}, work)
    own = ['config_type', 'info_rank']
    names = ['name', 'candidate', 'verdict', 'because', 'rank', 'reason', *own, 'structure', 'n_atoms']
    assert list(table)[:n_work] == names
    assert table['name'][4] == 'hot_000004'
    assert table['candidate'][:5] == [None, None, 2, None, 1]
    assert table['reason'][7] == 'no candidate: it is structure 3 of the reference set'
    assert table['config_type'][7] == 'c7'
    assert [verdict == 'out' for verdict in table['verdict']] == a.flags('overall', 'either').tolist() == table['out_A']
    order = np.argsort(table['rank'])
    assert np.all(np.diff(a.of('overall', 'either')[order]) <= 0)
    for i, text in enumerate(table['because']):
        assert text == '; '.join(map(str, a.looks_above()[i]))
    assert ' by the mean over its atoms (limit ' in table['because'][4]
    assert '(limit ' in table['because'][4]
    # The flawed score is the last one.
    scores = [name for name in table if name.endswith('_rank_A')]
    assert scores[:3] == ['overall_rank_A', 'aligned_variance_rank_A', 'mahalanobis_rank_A']
    assert scores[-1] == 'variance_rank_A'


def test_references_stand_side_by_side(two) -> None:
    target, a, b = two
    table, _ = score_table({'A': a, 'B': b}, first='B')
    assert {len(column) for column in table.values()} == {30}
    assert [verdict == 'out' for verdict in table['verdict']] == table['out_B']
    for name, scores in (('A', a), ('B', b)):
        for metric in set(scores.metrics) - {'overall'}:
            assert table[f'{metric}_{name}'] == scores.of(metric).tolist()
            assert table[f'{metric}_above_95_{name}'] == scores.flags(metric, 'either').tolist()
            order = np.argsort(table[f'{metric}_rank_{name}'])
            assert np.all(np.diff(scores.of(metric, 'either')[order]) <= 0)
        assert table[f'overall_{name}'] == scores.of('overall', 'either').tolist()
        assert table[f'knn_max_{name}'] == scores.of('knn', 'max').tolist()
    assert 'energy_std_A' in table
    assert 'energy_std_max_A' not in table
    assert np.all(np.array(table['n_C']) + table['n_O'] == table['n_atoms'])
    assert np.sum(table['n_O']) == np.count_nonzero(target.numbers == 8)
    # far from A, at home in B
    assert np.mean(table['out_A']) > 0.9
    assert np.mean(table['out_B']) < 0.3
    assert table['out_for_all'] == np.logical_and(table['out_A'], table['out_B']).tolist()
    assert set(table['quadrant_A']) <= {'known', 'confident novelty', 'alien', 'hidden danger'}
    assert table['quadrant_B'].count('known') > 20


def test_ranks_and_percentiles(two) -> None:
    _, a, _ = two
    table, _ = score_table({'': a}, aggregate='max')
    worst = int(np.argmax(a.of('mahalanobis', 'max')))
    assert table['mahalanobis_max'][worst] == max(table['mahalanobis_max'])
    assert table['mahalanobis_rank'][worst] == 1
    assert table['mahalanobis_percentile'][worst] == 100.0
    assert min(table['mahalanobis_percentile']) == pytest.approx(100 / 30)
    assert table['mahalanobis'] == a.of('mahalanobis').tolist()
    assert 'quadrant' in table
    plain = {name: column for name, column in table.items() if name != 'candidate'}
    assert all(isinstance(value, int | float | bool | str) for column in plain.values() for value in column)


def test_scores_of_a_single_kind(two, made_up) -> None:
    target, _, _ = two
    fitted = OodReference.fit(made_up(60), settings={'metrics': ['aligned_variance', 'force_std']})
    table, _ = score_table({'A': fitted.score(target)})
    assert 'quadrant_A' not in table
    assert table['out_A'] == table['aligned_variance_above_95_A']
    table, _ = score_table({'A': fitted.score(target, ['force_std'])})
    assert table['out_A'] == table['force_std_above_95_A']


def test_other_structures_are_refused(two, made_up) -> None:
    _, a, b = two
    with pytest.raises(OodalError, match='one reference at least'):
        score_table({})
    other = OodReference.fit(made_up(60)).score(made_up(30, 6))
    with pytest.raises(OodalError, match="'B' are of other structures"):
        score_table({'A': a, 'B': other})
    with pytest.raises(OodalError, match="column 'uuid' has 3 entries, but structure 29 was scored"):
        score_table({'A': a, 'B': b}, WorkList(info={'uuid': [1, 2, 3]}))
