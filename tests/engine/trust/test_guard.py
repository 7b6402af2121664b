"""What counts as worse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.trust.guard import GuardSettings, factors_by_part, find_forbidden, find_worsened


def part(error, **others):
    return {'force_rmse': error, **others}


def test_only_what_both_report_is_compared():
    before = {'parts': {'start': part(20.0), 'old': part(1.0)}}
    after = {'parts': {'start': part(40.0), 'new': part(500.0)}}
    (worse,) = find_worsened(before, after)
    assert (worse.part, worse.element, worse.before, worse.after) == ('start', None, 0.02, 0.04)
    assert str(worse) == 'start: 20.0 -> 40.0 meV/angstrom'


def test_an_element_that_is_lost_in_the_mean_is_found_unless_it_is_rare():
    elements = {'Cu': part(11.0, n_atoms=300), 'Au': part(60.0, n_atoms=300), 'H': part(1.0, n_atoms=3)}
    forgotten = {'Cu': part(39.0, n_atoms=300), 'Au': part(30.0, n_atoms=300), 'H': part(90.0, n_atoms=3)}
    before = {'parts': {'start': part(45.0, by_element=elements)}}
    after = {'parts': {'start': part(36.0, by_element=forgotten)}}
    (worse,) = find_worsened(before, after)
    assert (worse.part, worse.element) == ('start', 'Cu')
    assert str(worse) == 'start, Cu: 11.0 -> 39.0 meV/angstrom'


@pytest.mark.parametrize(
    ('action', 'forbidden'),
    [
        ('tell', set()),
        ('keep_anchors', {'anchor_slab', 'validation'}),
        ('refuse', {'anchor_slab', 'validation', 'initial_labels', 'round_1'}),
    ],
)
def test_what_a_training_may_not_forget_is_what_the_user_said(action, forbidden):
    names = ('anchor_slab', 'validation', 'initial_labels', 'round_1')
    worse = find_worsened(*({'parts': {name: part(error) for name in names}} for error in (20.0, 40.0)))
    assert {each.part for each in find_forbidden(worse, GuardSettings(action=action))} == forbidden
    assert GuardSettings().action == 'keep_anchors'


def test_of_clusters_the_core_counts():
    elements = {'Cu': part(1.0, n_atoms=300)}
    before = {'parts': {'round_1': part(100.0, core=part(20.0), by_element=elements)}}
    buffer = {'parts': {'round_1': part(900.0, core=part(20.0), by_element={'Cu': part(99.0, n_atoms=300)})}}
    core = {'parts': {'round_1': part(100.0, core=part(50.0), by_element=elements)}}
    assert find_worsened(before, buffer) == []
    assert [each.after for each in find_worsened(before, core)] == [0.05]


def test_results_without_parts_are_compared_by_validation():
    before, after = {'validation': part(20.0)}, {'validation': part(26.0)}
    assert [each.part for each in find_worsened(before, after)] == ['validation']
    assert find_worsened({'validation': None}, after) == []
    assert find_worsened({}, after) == []


@given(st.floats(0.0, 1e3), st.floats(0.0, 1e3), st.floats(1.0, 10.0), st.floats(0.0, 1.0))
def test_the_tolerance_and_the_floor(before, after, tolerance, floor):
    settings = GuardSettings(tolerance=tolerance, floor=floor)
    worse = find_worsened({'parts': {'a': part(before)}}, {'parts': {'a': part(after)}}, settings)
    expected = after / 1000.0 > floor and after / 1000.0 > tolerance * (before / 1000.0)
    assert bool(worse) == expected


def test_factors_of_parts_and_the_worst_first():
    before = {'parts': {'a': part(20.0), 'b': part(20.0, by_element={'Al': part(10.0, n_atoms=99)}), 'c': part(0.0)}}
    after = {'parts': {'a': part(40.0), 'b': part(50.0, by_element={'Al': part(90.0, n_atoms=99)}), 'c': part(11.0)}}
    worse = find_worsened(before, after)
    assert [(each.part, each.element) for each in worse] == [('c', None), ('b', 'Al'), ('b', None), ('a', None)]
    assert factors_by_part(worse) == {'a': 2.0, 'b': pytest.approx(9.0), 'c': float('inf')}


def test_wrong_settings_are_named():
    with pytest.raises(OodalError, match=r'guard: tolerance = 0.9'):
        GuardSettings.load({'tolerance': 0.9})
