"""Signs that a campaign does not get on."""

from aiida_oodal.workchains.trust.signs import (
    count_stuck,
    explain_failures,
    explain_refused,
    explain_rise,
    explain_stuck,
)

STUCK = {'outcome': 'UNCERTAIN', 'last_step': 0}


def test_a_walker_that_halts_at_its_first_step_again_and_again():
    first = count_stuck({}, {'a': STUCK, 'b': {'outcome': 'UNCERTAIN', 'last_step': 10}})
    assert first == {'a': 1}
    assert explain_stuck(first) == []
    second = count_stuck(first, {'a': STUCK, 'b': STUCK})
    (sentence,) = explain_stuck(second)
    assert "walker 'a' has halted at its very first step 2 rounds in a row" in sentence
    assert count_stuck(second, {'a': {'outcome': 'COMPLETED', 'last_step': 100}}) == {}


def test_a_queue_that_mostly_fails():
    assert explain_failures({}, 0) == []
    assert explain_failures({'a': 'no'}, 2) == ['1 of 3 structures have no label; the first: no']
    _, sentence = explain_failures({'a': 'no', 'b': 'no'}, 1)
    assert sentence.startswith('2 of 3 structures have no label')


def test_an_error_that_rises_twice():
    assert explain_rise([10.0, 20.0]) == []
    assert explain_rise([30.0, 10.0, 20.0]) == []
    (sentence,) = explain_rise([30.0, 10.0, 20.0, 30.0])
    assert '10.0, 20.0, 30.0 meV/angstrom' in sentence


def test_refusals_in_a_row():
    assert explain_refused([3], 7) == []
    (sentence,) = explain_refused([3, 4], 7)
    assert 'rounds 3, 4' in sentence
    assert '`aiida-oodal campaign extend 7 --walker' in sentence
