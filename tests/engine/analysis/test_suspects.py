"""Outliers in a labelled set."""

import numpy as np
import pytest

from aiida_oodal.engine.analysis.suspects import leave_out_scores, outliers, suspect_labels
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents


def test_a_strange_structure_in_a_training_set_is_found(made_up) -> None:
    ordinary, strange = made_up(59), made_up(1, 9, shift=3.0)
    latents = EnsembleLatents.concatenate([ordinary.select(np.arange(20)), strange, ordinary.select(np.arange(20, 59))])
    scores = leave_out_scores(latents, settings={'metrics': ['aligned_variance', 'mahalanobis', 'knn']})
    assert np.array_equal(scores.numbers, latents.numbers)
    assert np.array_equal(scores.offsets, latents.offsets)
    assert np.array_equal(scores.structure_index, latents.structure_index)
    assert scores.thresholds.n_structures == 60
    assert scores.flags('knn', 'mean', 0.95).sum() in (2, 3)
    for metric in ('mahalanobis', 'knn'):
        assert np.argmax(scores.of(metric)) == 20
    found = outliers(scores.of('knn'), 'knn')
    assert found[0].structure == 20
    assert len(found) < 4
    assert found[0].reason.startswith('knn is ')
    # left in, it would hide behind itself
    assert scores.of('knn')[20] > 3 * np.median(scores.of('knn'))


def test_scores_are_in_the_order_of_the_set(made_up) -> None:
    latents = made_up(24)
    latents.energies[:, 5] += np.array([0.0, 50.0, 0.0, -50.0])
    scores = leave_out_scores(latents, folds=4, settings={'metrics': ['variance', 'energy_std']})
    assert np.argmax(scores.of('energy_std')) == 5
    raw = np.stack([np.asarray(rows) for rows in latents.latents])
    assert np.allclose(scores.per_atom['variance'], raw.var(axis=0, ddof=1).mean(axis=1))
    with pytest.raises(OodalError, match='25 folds of 24 structures'):
        leave_out_scores(latents, folds=25)


def test_a_wrong_label_is_an_error_without_disagreement(reference, real_set, real_arrays, real_atoms) -> None:
    atoms = real_atoms('train')
    labels = real_arrays['ref_forces'][atoms].astype(float)
    labels[7 * 15 : 8 * 15] += np.random.default_rng(0).normal(scale=3.0, size=(15, 3))
    mean_force = real_arrays['forces'][:, atoms].astype(float).mean(axis=0)
    squares = np.sum((mean_force - labels) ** 2, axis=1)
    errors = np.sqrt(squares.reshape(-1, 15).mean(axis=1))
    scores = reference.score(real_set('train'))
    found = suspect_labels(scores, errors)
    assert [suspect.structure for suspect in found] == [7]
    assert 'force error over predicted_error is' in found[0].reason
    with pytest.raises(OodalError, match=r'\(3,\) force errors for 24 structures'):
        suspect_labels(scores, errors[:3])


def test_outliers_are_judged_by_the_others() -> None:
    values = np.array([1.0, 1.2, 0.9, 1.1, 40.0, 1.0, 9.0])
    assert [suspect.structure for suspect in outliers(values, 'x')] == [4, 6]
    assert outliers(np.ones(5), 'x') == []
    assert outliers(np.empty(0), 'x') == []
    with pytest.raises(OodalError, match='x: one number >= 0 a structure'):
        outliers([1.0, -1.0], 'x')
