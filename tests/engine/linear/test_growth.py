from __future__ import annotations

from dataclasses import replace

import pytest

from aiida_oodal.engine.linear.growth import Form, Limits, grow

LIMITS = Limits(force_tolerance=0.01, max_functions=300, max_cutoff=0.0, n_labels=100_000, n_elements=2)
START = Form(60, 5.0)


def run(error, start=START, limits=LIMITS):
    """Grow a potential whose error (eV/angstrom) is a function of its form; return forms tried, form kept, reason."""
    kept, steps, reason = grow(start, limits, lambda form: (error(form), form))
    tried = [(step.form.number_of_functions, step.form.cutoff) for step in steps]
    assert kept == next(step.form for step in reversed(steps) if step.kept)
    return tried, kept, reason


def test_a_good_fit_does_not_grow():
    tried, _kept, reason = run(lambda form: 0.009)
    assert tried == [(60, 5.0)]
    assert reason.endswith('9.0 meV/angstrom on the training forces, within the tolerance of 10')


def test_functions_are_doubled_up_to_the_largest_number():
    tried, kept, reason = run(lambda form: 3.0 / form.number_of_functions)
    assert tried == [(60, 5.0), (120, 5.0), (240, 5.0), (300, 5.0)]
    assert kept == Form(300, 5.0)
    tried, kept, reason = run(lambda form: 6.0 / form.number_of_functions)
    assert kept == Form(300, 5.0)
    assert reason.endswith(
        '20.0 meV/angstrom on the training forces, above the tolerance of 10; it may not grow further'
    )


def test_what_does_not_help_is_not_kept():
    tried, kept, reason = run(lambda form: 0.05 if form.number_of_functions < 200 else 0.046)
    assert (tried, kept) == ([(60, 5.0), (120, 5.0)], Form(60, 5.0))
    assert '120 functions and 5 angstrom gave 50.0, not worth their price' in reason


def test_the_cutoff_grows_after_the_functions():
    limits = replace(LIMITS, max_cutoff=6.2)
    tried, kept, _ = run(lambda form: 0.03 * 120 / min(form.number_of_functions, 120) / form.cutoff, limits=limits)
    assert tried == [(60, 5.0), (120, 5.0)]
    errors = {5.0: 0.05, 5.5: 0.03, 6.0: 0.02, 6.2: 0.019}
    tried, kept, _ = run(lambda form: errors[form.cutoff], start=Form(300, 5.0), limits=limits)
    assert tried == [(300, 5.0), (300, 5.5), (300, 6.0), (300, 6.2)]
    assert kept == Form(300, 6.0)


def test_few_labels_carry_few_functions():
    tried, kept, reason = run(lambda form: 6.0 / form.number_of_functions, limits=replace(LIMITS, n_labels=800))
    assert (tried, kept) == ([(60, 5.0), (100, 5.0)], Form(100, 5.0))
    assert reason.endswith('800 labels do not carry more than 100 functions per element')


@pytest.mark.parametrize('limit', [10, 60])
def test_what_was_learned_does_not_shrink(limit):
    _tried, kept, _ = run(lambda form: 1.0, limits=replace(LIMITS, max_functions=limit))
    assert kept == Form(60, 5.0)
