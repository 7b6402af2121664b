"""Options, what is fitted for which scores, and what is refused before anything is fitted."""

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.fitting import FitOptions, choose_judge, fit_parts
from aiida_oodal.engine.ood.metrics import SCORES
from aiida_oodal.engine.ood.parts.alignment import Moments, shared_basis


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'whitening_eps': 0.0}, 'whitening_eps = 0.0'),
        ({'metrics': []}, 'metrics'),
        ({'metrics': ['kmn']}, 'reference settings: metrics: kmn is no score; there are variance, aligned_variance'),
        ({'neighbors': 3}, "did you mean 'neighbours'"),
    ],
)
def test_wrong_options_are_refused_at_submission(values: dict, message: str) -> None:
    assert message in FitOptions.check(values)


def test_all_scores_are_fitted_for_unless_one_model_cannot_have_them() -> None:
    assert FitOptions().for_models(2).metrics == tuple(SCORES)
    assert FitOptions().for_models(1).metrics == ('predicted_error', 'mahalanobis', 'gmm', 'knn')
    assert FitOptions(metrics=('knn',)).for_models(1).metrics == ('knn',)
    with pytest.raises(OodalError, match='metrics: aligned_variance needs two models or more, and there is one'):
        FitOptions(metrics=('knn', 'aligned_variance')).for_models(1)
    assert choose_judge(tuple(SCORES), 4) == 'aligned_variance'
    assert choose_judge(('mahalanobis', 'knn'), 4) == 'mahalanobis'
    assert choose_judge(('knn',), 4) == 'aligned_variance'
    assert choose_judge(('knn',), 1) == 'mahalanobis'


def test_only_what_the_metrics_need_is_fitted(made_up) -> None:
    def fitted(*metrics: str) -> set[str]:
        return set(fit_parts(made_up(30), FitOptions(metrics=metrics))[0].fitted)

    assert fitted('aligned_variance') == set()
    assert fitted('mahalanobis', 'energy_std') == {'mahalanobis', 'energy_offsets'}
    assert fitted('knn') == {'subspace', 'neighbours'}


def test_the_sample_is_bounded_and_does_not_depend_on_chunks(made_up) -> None:
    latents = made_up(60)
    one, other = (
        fit_parts(latents, FitOptions(metrics=('knn',), sample_atoms=40, chunk_atoms=chunk))[0].fitted['neighbours']
        for chunk in (5, 10**6)
    )
    assert one.offsets.tolist() == [0, 40, 80]
    pairs = [np.linalg.norm(p.points[:40, None] - p.points[None, :40], axis=2) for p in (one, other)]
    assert np.allclose(*pairs, atol=1e-8)


def test_too_few_reference_atoms_are_refused(made_up) -> None:
    latents, options = made_up(2), FitOptions().for_models(4)
    with pytest.raises(OodalError, match=r'has \d+ atoms for 12 latents: more atoms than latents'):
        fit_parts(latents.select([0]), options)
    latents = made_up(30)
    latents.numbers[:4] = 7
    with pytest.raises(OodalError, match=r'too few reference atoms of N \(4\): 10 of each element'):
        fit_parts(latents, options)
    few = FitOptions(metrics=('mahalanobis',), min_atoms=4)
    assert len(fit_parts(latents, few)[0].fitted['mahalanobis'].elements) == 3


def test_files_of_one_training_are_told_from_different_seeds(real_set) -> None:
    rng = np.random.default_rng(0)

    def relatives(latents: np.ndarray) -> np.ndarray:
        """Make the second model a little different from the first, as another stage of its training is."""
        return np.stack([latents[0], latents[0] + 0.05 * rng.normal(size=latents[0].shape), *latents[2:]])

    assert fit_parts(real_set('train'), FitOptions(metrics=('aligned_variance',)))[1] == []
    (note,) = fit_parts(real_set('train', relatives), FitOptions(metrics=('aligned_variance',)))[1]
    assert note.startswith('the models w1 and w2 are not different seeds')
    moments = Moments(4 * 64)
    for chunk in real_set('train').chunks():
        moments.add(chunk.latents.transpose(1, 0, 2).reshape(len(chunk.numbers), -1))
    alike = shared_basis(moments, 4)
    assert np.allclose(np.diagonal(alike), 1.0)
    raw = np.stack([np.asarray(rows) for rows in real_set('train').latents])
    first, second = (rows - rows.mean(axis=0) for rows in raw[:2])
    assert alike[0, 1] == pytest.approx(np.sum(first * second) / np.sqrt(np.sum(first**2) * np.sum(second**2)))
    assert np.abs(alike - np.eye(4)).max() < 0.3
