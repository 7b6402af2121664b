"""One row a structure."""

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.table import rows, score_table


@pytest.fixture
def two(made_up):
    """Score one set against two references: the second has seen shifted environments too."""
    target = made_up(30, 5, shift=2.0)
    a = OodReference.fit(made_up(60), made_up(40, 1)).score(target)
    b = OodReference.fit(made_up(60, 2, shift=2.0), made_up(40, 3, shift=2.0)).score(target)
    return target, a, b


def test_references_stand_side_by_side(two) -> None:
    target, a, b = two
    table = score_table({'A': a, 'B': b}, info={'uuid': [f'u{i}' for i in range(30)]})
    assert {len(column) for column in table.values()} == {30}
    assert list(table)[:5] == ['structure', 'uuid', 'n_atoms', 'n_C', 'n_O']
    for name, scores in (('A', a), ('B', b)):
        for metric in scores.metrics:
            values = scores.of(metric)
            assert table[f'{metric}_{name}'] == values.tolist()
            assert table[f'{metric}_above_95_{name}'] == scores.flags(metric).tolist()
            order = np.argsort(table[f'{metric}_rank_{name}'])
            assert np.all(np.diff(values[order]) <= 0)
        assert table[f'knn_max_{name}'] == scores.of('knn', 'max').tolist()
    assert 'energy_std_A' in table
    assert 'energy_std_max_A' not in table
    assert np.all(np.array(table['n_C']) + table['n_O'] == table['n_atoms'])
    assert np.sum(table['n_O']) == np.count_nonzero(target.numbers == 8)
    # far from A, at home in B
    assert np.mean(table['out_A']) > 0.9
    assert np.mean(table['out_B']) < 0.3
    assert table['out_for_all'] == np.logical_and(table['out_A'], table['out_B']).tolist()
    assert set(table['quadrant_A']) <= {'confident novelty', 'alien'}
    assert table['quadrant_B'].count('known') > 20


def test_ranks_and_percentiles(two) -> None:
    _, a, _ = two
    table = score_table({'': a}, aggregate='max')
    worst = int(np.argmax(a.of('mahalanobis', 'max')))
    assert table['mahalanobis'][worst] == max(table['mahalanobis'])
    assert table['mahalanobis_rank'][worst] == 1
    assert table['mahalanobis_percentile'][worst] == 100.0
    assert min(table['mahalanobis_percentile']) == pytest.approx(100 / 30)
    assert 'mahalanobis_mean' in table
    assert 'quadrant' in table
    assert all(isinstance(value, int | float | bool | str) for column in table.values() for value in column)


def test_rows_are_the_columns(two) -> None:
    _, a, _ = two
    table = score_table({'A': a})
    listed = list(rows(table))
    assert len(listed) == 30
    assert listed[7] == {name: column[7] for name, column in table.items()}


def test_scores_of_a_single_kind(two, made_up) -> None:
    target, _, _ = two
    fitted = OodReference.fit(made_up(60), settings={'metrics': ['aligned_variance', 'force_std']})
    table = score_table({'A': fitted.score(target)})
    assert 'quadrant_A' not in table
    assert table['out_A'] == table['aligned_variance_above_95_A']
    table = score_table({'A': fitted.score(target, ['force_std'])})
    assert 'out_A' not in table
    assert not any(table['out_for_all'])


def test_other_structures_are_refused(two, made_up) -> None:
    _, a, b = two
    with pytest.raises(OodalError, match='one reference at least'):
        score_table({})
    other = OodReference.fit(made_up(60)).score(made_up(30, 6))
    with pytest.raises(OodalError, match="'B' are of other structures"):
        score_table({'A': a, 'B': other})
    with pytest.raises(OodalError, match="column 'uuid' has 3 entries for 30 structures"):
        score_table({'A': a, 'B': b}, info={'uuid': [1, 2, 3]})
