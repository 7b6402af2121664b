"""Decisions on candidates: every one has a reason."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_oodal.engine.carve.cluster import extract_cluster
from aiida_oodal.engine.carve.selection import select_by_maxvol, select_by_spread
from aiida_oodal.engine.content import content_key
from aiida_oodal.engine.errors import OodalError

INVERSE = {'Al': np.eye(3), 'Cu': np.eye(2)}


def test_a_reason_for_every_candidate() -> None:
    rows = [
        ([6.0, 0, 0], 'Al', 'a'),  # taken
        ([0, 0.9, 0], 'Al', 'b'),  # interpolates
        ([6.01, 0.01, 0], 'Al', 'c'),  # the worse of two near-duplicates: taken instead of candidate 0
        ([0, 500.0, 0], 'Al', 'd'),  # not physical
        ([0, 7.0, 0], 'Al', 'e'),  # in the queue
        ([0, 0, 3.0], 'Al', 'f'),  # taken
        ([0, 0, 2.5], 'Al', 'f'),  # the same content
        ([3.0, 0, 2.0], 'Al', 'g'),  # covered by 2 and 5
        ([0, 4.0], 'Cu', 'h'),  # another element
    ]
    decisions = select_by_maxvol(
        [np.array(p) for p, _, _ in rows],
        [e for _, e, _ in rows],
        INVERSE,
        max_select=5,
        gamma_min=2.0,
        gamma_ceiling=100.0,
        keys=[k for _, _, k in rows],
        known_keys={'e'},
    )
    assert [d.index for d in decisions] == list(range(9))
    assert [d.gamma for d in decisions] == [6.0, 0.9, 6.01, 500.0, 7.0, 3.0, 2.5, 3.0, 4.0]
    assert {d.index: d.rank for d in decisions if d.taken} == {2: 0, 8: 1, 5: 2}
    reasons = [d.reason for d in decisions]
    assert reasons[0] == 'within 0.00235 of candidate 2 (tolerance 0.05)'
    assert reasons[1] == 'the grade 0.9 is not above 2'
    assert reasons[2] == 'gamma 6.01 when it entered the active set'
    assert reasons[3] == 'the grade 500 is above 100: the frame is not physical'
    assert reasons[4] == 'the queue holds it already'
    assert reasons[6] == 'the same as candidate 5'
    assert reasons[7] == 'those taken cover it: gamma falls from 3 to 0.667'


def test_the_cap_takes_the_largest_gains_of_all_elements() -> None:
    rows = [np.array([3.0, 0, 0]), np.array([0, 5.0]), np.array([0, 4.0, 0]), np.array([2.0, 0])]
    decisions = select_by_maxvol(rows, ['Al', 'Cu', 'Al', 'Cu'], INVERSE, max_select=2)
    assert {d.index: d.rank for d in decisions if d.taken} == {1: 0, 2: 1}
    assert {d.reason for d in decisions if not d.taken} == {'over the cap of 2'}
    decisions = select_by_maxvol(rows, ['Al', 'Cu', 'Al', 'Cu'], INVERSE, max_select=1)
    assert [d.index for d in decisions if d.taken] == [1]
    assert {d.reason for d in decisions if not d.taken} == {'over the cap of 1'}
    assert select_by_maxvol([], [], INVERSE, max_select=1) == []


def test_spread_by_farthest_points_and_by_groups() -> None:
    points = np.array([[0.0, 0], [0.1, 0], [10, 0], [10, 0.1], [0, 10], [50, 50], [0, 0]])
    scores = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 99.0, 0.1])
    options = {'score_min': 0.5, 'score_ceiling': 50.0, 'duplicate_tolerance': 0.2}
    decisions = select_by_spread(points, scores, max_select=2, known=np.array([[0.0, 0.5]]), **options)
    assert [d.index for d in decisions if d.taken] == [3, 4]
    assert [d.reason for d in decisions] == [
        'within 0.1 of candidate 1 (tolerance 0.2)',
        'over the cap of 2: others are farther apart',
        'within 0.1 of candidate 3 (tolerance 0.2)',
        '10 from the nearest one known or taken',
        '9.5 from the nearest one known or taken',
        'the grade 99 is above 50: the frame is not physical',
        'the grade 0.1 is not above 0.5',
    ]
    near_known = select_by_spread(points, scores, max_select=9, known=np.array([[0.0, 10.1]]), **options)
    assert near_known[4].reason == 'within 0.1 of known structure 0 (tolerance 0.2)'
    decisions = select_by_spread(points, scores, max_select=3, method='kmeans', seed=1, **options)
    assert {d.index: d.rank for d in decisions if d.taken} == {3: 0, 1: 1, 4: 2}
    assert decisions[3].reason == 'stands for its group; score 3'


def test_nothing_left_to_choose_from() -> None:
    decisions = select_by_spread(np.ones((2, 2)), [1.0, 1.0], max_select=3, score_min=2.0)
    assert [d.taken for d in decisions] == [False, False]


def test_the_key_is_the_content(hot_al: Atoms) -> None:
    cluster = extract_cluster(hot_al, 223, 4.0, 3.0, cutoff=6.0, repair='drop')
    key = content_key(cluster)
    order = np.random.default_rng(0).permutation(np.arange(1, len(cluster)))
    assert content_key(cluster[np.concatenate([[0], order])]) == key
    moved = cluster.copy()
    moved.positions += [3.0, -1.0, 40.0]
    moved.wrap()
    assert content_key(moved) == key
    moved.arrays['gamma'] = moved.arrays['gamma'] + 1.0
    assert content_key(moved) == key
    wrapped = hot_al.copy()
    wrapped.positions += 0.3
    wrapped.wrap()
    assert content_key(extract_cluster(wrapped, 223, 4.0, 3.0, cutoff=6.0, repair='drop')) == key
    for change in ('position', 'element', 'cell', 'atom', 'pbc'):
        other = cluster.copy()
        if change == 'position':
            other.positions[5, 0] += 0.001
        elif change == 'element':
            other.numbers[5] = 14
        elif change == 'cell':
            other.set_cell(other.cell.array * 1.001)
        elif change == 'pbc':
            other.pbc = [True, True, False]
        else:
            del other[5]
        assert content_key(other) != key


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: select_by_maxvol([np.ones(3)], [], INVERSE, max_select=1), '1 candidates and 0 elements'),
        (
            lambda: select_by_maxvol([np.ones(3)], ['Fe'], INVERSE, max_select=1),
            'the active set has no Fe: it knows Al, Cu',
        ),
        (lambda: select_by_maxvol([np.ones(2)], ['Al'], INVERSE, max_select=1), 'they are of different potentials'),
        (lambda: select_by_maxvol([np.ones(3)], ['Al'], INVERSE, max_select=1, keys=[]), '1 candidates and 0 keys'),
        (
            lambda: select_by_maxvol([np.full(3, np.nan)], ['Al'], INVERSE, max_select=1),
            'grade of candidate 0 is not a finite number',
        ),
        (lambda: select_by_spread(np.ones((2, 2)), [1.0], max_select=1), r'shape \(2, 2\) and scores of shape \(1,\)'),
        (lambda: select_by_spread(np.ones((1, 2)), [1.0], max_select=1, method='best'), "method is 'best'"),
    ],
)
def test_bad_input_is_a_clear_error(call, message: str) -> None:
    with pytest.raises(OodalError, match=message):
        call()


def test_keys_of_ideal_crystals_do_not_depend_on_rounding() -> None:
    crystal = bulk('Al', cubic=True) * (4, 4, 4)
    keys = {content_key(extract_cluster(crystal, i, 4.0, 3.0, cutoff=6.0)) for i in range(0, 256, 15)}
    assert len(keys) == 1
