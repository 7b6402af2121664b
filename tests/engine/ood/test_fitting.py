"""Options, the split, and what is refused before anything is fitted."""

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.fitting import FitOptions, fit_parts, hold_out


def test_options_come_from_plain_values() -> None:
    options = FitOptions.load({'metrics': ['aligned_variance', 'knn'], 'seed': 3})
    assert options.metrics == ('aligned_variance', 'knn')
    assert options.seed == 3
    assert FitOptions.load(options) is options
    assert FitOptions.load(None) == FitOptions()
    with pytest.raises(OodalError, match='seeds, kmn: not known; options are metrics, whitening_eps'):
        FitOptions.load({'metrics': ['kmn'], 'seeds': 3})


def test_the_split_is_a_split_and_the_seed_decides() -> None:
    kept, out = hold_out(50, 0.2, 7)
    assert len(out) == 10
    assert np.array_equal(np.sort(np.concatenate([kept, out])), np.arange(50))
    assert np.array_equal(hold_out(50, 0.2, 7)[1], out)
    assert not np.array_equal(hold_out(50, 0.2, 8)[1], out)
    assert [len(part) for part in hold_out(2, 0.01, 0)] == [1, 1]
    assert [len(part) for part in hold_out(2, 0.99, 0)] == [1, 1]
    with pytest.raises(OodalError, match='two or more are needed'):
        hold_out(1, 0.2, 0)


def test_only_what_the_metrics_need_is_fitted(made_up) -> None:
    def fitted(*metrics: str) -> set[str]:
        parts = fit_parts(made_up(30), FitOptions(metrics=metrics))
        return {name for name, part in vars(parts).items() if part is not None}

    assert fitted('aligned_variance') == {'alignment'}
    assert fitted('mahalanobis', 'energy_std') == {'alignment', 'mahalanobis', 'energy_offsets'}
    assert fitted('knn') == {'alignment', 'subspace', 'neighbours'}


def test_the_sample_is_bounded_and_does_not_depend_on_chunks(made_up) -> None:
    latents = made_up(60)
    one, other = (
        fit_parts(latents, FitOptions(metrics=('knn',), sample_atoms=40, chunk_atoms=chunk)) for chunk in (5, 10**6)
    )
    assert one.neighbours.offsets.tolist() == [0, 40, 80]
    pairs = [
        np.linalg.norm(p.neighbours.points[:40, None] - p.neighbours.points[None, :40], axis=2) for p in (one, other)
    ]
    assert np.allclose(*pairs, atol=1e-8)


def test_too_few_reference_atoms_are_refused(made_up) -> None:
    latents = made_up(2)
    with pytest.raises(OodalError, match=r'has \d+ atoms for 12 latents: more atoms than latents'):
        fit_parts(latents.select([0]), FitOptions())
    latents = made_up(30)
    latents.numbers[:4] = 7
    with pytest.raises(OodalError, match=r'too few reference atoms of N \(4\): 10 of each element'):
        fit_parts(latents, FitOptions())
    assert len(fit_parts(latents, FitOptions(min_atoms=4)).mahalanobis.elements) == 3
