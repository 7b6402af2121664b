"""What gamma means in eV/angstrom: a bound that rises, keeps its promise on new atoms, and places gamma_break."""

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.engine.trust.bound import ErrorBound
from aiida_oodal.engine.trust.calibration import (
    CalibrationSettings,
    Sample,
    calibrate,
    cover,
    explain_break,
    fit_bound,
    place_break,
)


def draw(count, seed, scale=1.0):
    """Atoms whose error is that of a chi distribution with a width that rises with gamma."""
    rng = np.random.default_rng(seed)
    gamma = rng.lognormal(0.0, 0.7, count)
    return Sample(gamma, scale * 0.1 * gamma**0.5 * np.linalg.norm(rng.normal(size=(count, 3)), axis=1))


@pytest.mark.parametrize('coverage', [0.8, 0.9, 0.95])
def test_the_promise_is_kept_on_new_atoms_at_every_gamma(coverage):
    known, new = draw(4000, 1), draw(20000, 2)
    bound = ErrorBound.fit(known.gamma, known.error, coverage)
    assert cover(bound, new) == pytest.approx(coverage, abs=0.015)
    for low, high in ((0.2, 0.6), (0.6, 1.5), (1.5, 4.0)):
        some = (new.gamma > low) & (new.gamma < high)
        assert cover(bound, Sample(new.gamma[some], new.error[some])) == pytest.approx(coverage, abs=0.04)


@given(arrays(float, st.integers(1, 300), elements=st.floats(0.0, 100.0)), st.integers(0, 2**31))
def test_a_bound_never_falls_and_is_inverted(gamma, seed):
    error = np.random.default_rng(seed).exponential(size=len(gamma))
    bound = ErrorBound.fit(gamma, error, 0.9)
    values = bound(np.sort(gamma))
    assert (np.diff(values) >= 0.0).all()
    assert error.min() <= values[0]
    assert values[-1] <= error.max()
    for limit in (0.5 * bound.error[0], np.mean(bound.error[[0, -1]]), 2.0 * bound.error[-1]):
        place = bound.find_gamma(limit)
        assert 0.0 <= place <= bound.largest
        assert place == 0.0 or bound(place) <= limit * (1 + 1e-6) + 1e-12
    again = ErrorBound.from_plain(bound.plain())
    np.testing.assert_array_equal(again(gamma), bound(gamma))


def test_atoms_of_unknown_elements_have_an_infinite_gamma():
    sample = draw(300, 1)
    sample.gamma[:100] = np.inf
    bound = ErrorBound.fit(sample.gamma, sample.error, 0.9)
    assert np.isfinite([*bound.gamma, *bound.error, bound.largest]).all()
    assert bound(np.inf) == bound.error[-1]
    assert place_break(Thresholds(), bound, 1e3).gamma_break < Thresholds().gamma_ceiling


def in_parts(sample, count):
    parts = (np.array_split(each, count) for each in (sample.gamma, sample.error))
    return [Sample(*part) for part in zip(*parts, strict=True)]


def test_the_bound_before_is_tested_on_labels_it_has_not_seen():
    settings = CalibrationSettings()
    first = calibrate([draw(500, 1)], settings)
    assert (first['on_labels'], first['on_validation'], first['n_labels'], first['n_atoms']) == (None, None, 500, 500)
    second = calibrate([draw(400, 2)], settings, earlier=[draw(500, 1)], before=first)
    assert second['on_labels'] == pytest.approx(0.9, abs=0.05)
    assert (second['n_labels'], second['n_atoms']) == (400, 900)
    worse = calibrate([draw(400, 4, scale=3.0)], settings, before=second)
    assert worse['on_labels'] < 0.5
    assert f'{100 * worse["on_labels"]:.0f} % of 400 atoms that were labelled in this round' in worse['sentences'][-1]


def draw_alike(count, atoms, seed):
    """Structures that differ more from each other than their atoms do."""
    scales = np.random.default_rng(seed).lognormal(0.0, 0.3, count)
    return [draw(atoms, 1000 * seed + row, scale) for row, scale in enumerate(scales)]


def test_a_few_structures_of_many_atoms_promise_no_more_than_they_know():
    shares = {'atoms': [], 'structures': []}
    new = Sample.join(draw_alike(2000, 20, 99))
    for seed in range(40):
        known = draw_alike(12, 100, seed)
        joined = Sample.join(known)
        shares['atoms'].append(cover(ErrorBound.fit(joined.gamma, joined.error, 0.9), new))
        shares['structures'].append(cover(fit_bound(known, 0.9), new))
    assert np.mean(np.array(shares['structures']) < 0.88) < 0.6 * np.mean(np.array(shares['atoms']) < 0.88)
    assert 0.9 < np.mean(shares['structures']) < 0.95


def test_many_structures_that_are_alike_get_the_quantile_itself():
    known = in_parts(draw(20000, 1), 200)
    joined = Sample.join(known)
    strict, plain = fit_bound(known, 0.9), ErrorBound.fit(joined.gamma, joined.error, 0.9)
    assert cover(strict, joined) - cover(plain, joined) == pytest.approx(0.0021, abs=0.001)  # sqrt(0.9 * 0.1 / 20000)
    one = fit_bound([joined], 0.9)
    assert one.plain() == plain.plain()  # one structure says nothing of the spread


def test_the_bound_is_never_that_of_all_atoms():
    strange = [draw(100, 1), draw(100, 2, scale=100.0)]
    joined = Sample.join(strange)
    assert cover(fit_bound(strange, 0.9), joined) < 0.97


def test_a_validation_set_tests_bounds_that_were_fitted_without_it():
    settings = CalibrationSettings()
    validation = in_parts(draw(1500, 3), 15)
    found = calibrate([draw(100, 2)], settings, validation=validation)
    assert found['on_validation'] == pytest.approx(0.9, abs=0.03)
    assert (found['n_validation'], found['n_atoms']) == (1500, 1500)
    assert 'observed: 9' in found['sentences'][1]
    # Errors that nothing else has are not below a bound that has not seen them.
    strange = [Sample(each.gamma, 100.0 * each.error) for each in validation[::5]]
    validation[::5] = strange
    assert calibrate([draw(100, 2)], settings, validation=validation)['on_validation'] < 0.85
    assert calibrate([draw(200, 2)], settings, validation=validation[:4])['on_validation'] is None
    assert calibrate([draw(90, 2)], settings, validation=in_parts(draw(11, 5), 5))['on_validation'] is None


def test_labels_count_where_the_validation_set_knows_nothing():
    settings = CalibrationSettings()
    validation = in_parts(Sample(np.linspace(0.1, 2.0, 400), np.full(400, 0.1)), 10)
    labels = [Sample(np.array([1.0, 2.0, 3.0, np.inf] * 30), np.array([9.0, 9.0, 0.5, 0.5] * 30))]
    found = calibrate(labels, settings, earlier=labels, validation=validation)
    bound = ErrorBound.from_plain(found['bound'])
    assert found['n_atoms'] == 400 + 2 * 60
    assert bound([1.0, 1.5, np.inf]) == pytest.approx([0.1, 0.1, 0.5])
    few = calibrate(labels, settings, validation=validation[:2])
    assert few['n_atoms'] == 80 + 120  # a validation set of 80 atoms does not count alone


def test_too_few_atoms_say_nothing_and_leave_the_bound_before():
    settings = CalibrationSettings(least_atoms=100)
    few = calibrate([draw(99, 1)], settings)
    assert few['bound'] is None
    assert few['sentences'] == ['99 judged atoms are too few to say what gamma means in eV/angstrom']
    known = calibrate([draw(100, 1)], settings)
    later = calibrate([draw(99, 2)], settings, before=known)
    assert later['bound'] == known['bound']
    assert later['on_labels'] == pytest.approx(0.9, abs=0.1)
    assert calibrate([draw(200, 3)], settings, before=few)['on_labels'] is None


def test_a_validation_set_has_a_sample_for_each_structure():
    arrays = {
        'gamma': np.arange(6.0),
        'force_error': np.arange(6.0) / 10,
        'structure': np.array([0, 0, 1, 2, 2, 2]),
    }
    samples = Sample.of_arrays(arrays)
    assert [sample.gamma.tolist() for sample in samples] == [[0.0, 1.0], [2.0], [3.0, 4.0, 5.0]]
    assert [len(sample.error) for sample in samples] == [2, 1, 3]


def test_core_atoms_of_clusters_and_all_atoms_of_frames_count():
    frame, cluster = (Atoms('Al3', np.eye(3)) for _ in range(2))
    for atoms in (frame, cluster):
        atoms.set_array('gamma', np.array([1.0, 2.0, 3.0]))
        atoms.set_array('force_error', np.array([0.1, 0.2, 0.3]))
    cluster.set_array('force_mask', np.array([1.0, 0.0, 1.0]))
    samples = Sample.of_structures([frame, cluster])
    assert [sample.gamma.tolist() for sample in samples] == [[1.0, 2.0, 3.0], [1.0, 3.0]]
    assert [sample.error.tolist() for sample in samples] == [[0.1, 0.2, 0.3], [0.1, 0.3]]
    assert len(Sample.join(Sample.of_structures([])).gamma) == 0


def test_gamma_break_is_where_the_bound_passes_the_error_between_the_other_thresholds():
    limits = Thresholds(gamma_select=2.0, gamma_break=5.0, gamma_ceiling=50.0)
    bound = ErrorBound(np.array([1.0, 4.0, 16.0]), np.array([0.1, 0.2, 0.4]), largest=40.0)
    assert place_break(limits, bound, 0.2).gamma_break == pytest.approx(4.0)
    assert place_break(limits, bound, 0.3).gamma_break == pytest.approx(8.0)
    assert place_break(limits, bound, 0.05).gamma_break == pytest.approx(2.002)
    assert place_break(limits, bound, 1.0).gamma_break == pytest.approx(40.0)
    known_further = ErrorBound(bound.gamma, bound.error, largest=400.0)
    assert place_break(limits, known_further, 1.0).gamma_break == pytest.approx(50.0 / 1.001)
    for halt_error in (0.05, 0.2, 0.3, 1.0):
        changed = place_break(limits, bound, halt_error)
        assert (changed.gamma_select, changed.gamma_ceiling) == (2.0, 50.0)
    assert explain_break(place_break(limits, bound, 0.3).gamma_break, 0.3) == (
        'MD halts above gamma 8 from now on, for halt_error = 0.3 eV/angstrom'
    )


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'coverage': 1.0}, 'calibration: coverage = 1.0: Input should be less than or equal to 0.99'),
        ({'halt_error': 0.0}, 'calibration: halt_error = 0.0: Input should be greater than 0'),
        ({'halterror': 0.3}, "'halterror' is not a setting; did you mean 'halt_error'?"),
    ],
)
def test_settings_that_cannot_work_are_refused(values, message):
    assert message in CalibrationSettings.check(values)
