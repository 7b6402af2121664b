"""Which scores can be computed, and their plain definitions."""

from dataclasses import replace

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.reference import OodReference


def test_plain_scores_are_what_their_names_say(reference, real_set, real_arrays, real_atoms) -> None:
    scores = reference.score(real_set('test300'))
    raw = real_arrays['latents'][:, real_atoms('test300')].astype(float)
    forces = real_arrays['forces'][:, real_atoms('test300')].astype(float)
    assert np.allclose(scores.per_atom['variance'], np.var(raw, axis=0, ddof=1).mean(axis=1))
    assert np.allclose(scores.per_atom['force_std'] ** 2, forces.var(axis=0, ddof=1).sum(axis=1) / 3)
    predicted = reference.error_scale(scores.numbers, scores.per_atom['aligned_variance'])
    assert np.allclose(scores.per_atom['predicted_error'], predicted)
    assert 'energy_std' not in scores.per_atom
    assert set(scores.per_structure['energy_std']) == {'mean'}


def test_scores_that_cannot_be_computed_say_what_they_lack(made_up) -> None:
    latents = made_up(40)
    reference = OodReference.fit(latents, settings={'metrics': ['aligned_variance', 'force_std', 'energy_std']})
    bare = replace(latents, energies=None, forces=None)
    assert reference.score(latents).metrics == ('aligned_variance', 'force_std', 'energy_std')
    assert reference.score(bare).metrics == ('aligned_variance',)
    assert reference.score(latents, ['energy_std', 'aligned_variance']).metrics == ('aligned_variance', 'energy_std')
    for metric, reason in (
        ('force_std', 'latents computed with forces'),
        ('energy_std', 'latents computed with energies'),
        ('knn', "a reference fitted for 'knn'"),
        ('predicted_error', "a reference fitted for 'predicted_error'"),
    ):
        with pytest.raises(OodalError, match=f"the score '{metric}' needs {reason}"):
            reference.score(bare, [metric])
    with pytest.raises(OodalError, match=r"'kmn' is not a score; there are variance, aligned_variance"):
        reference.score(latents, ['kmn'])
    poor = OodReference.fit(bare, settings={'metrics': ['aligned_variance', 'energy_std', 'predicted_error']})
    with pytest.raises(OodalError, match="'energy_std' needs a reference set with energies"):
        poor.score(latents, ['energy_std'])
    with pytest.raises(OodalError, match='needs a reference fitted with reference_forces'):
        poor.score(latents, ['predicted_error'])
