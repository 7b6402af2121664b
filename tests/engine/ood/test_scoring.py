"""Which scores can be computed, and their plain definitions."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.candidates import CandidateOptions, choose_candidates
from aiida_oodal.engine.ood.metrics import FITS, SCORES, Fit, Score, Seen
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
    assert set(scores.per_structure['energy_std']) == {'mean', 'either'}


def test_scores_that_cannot_be_computed_say_what_they_lack(made_up) -> None:
    latents = made_up(40)
    reference = OodReference.fit(latents, settings={'metrics': ['aligned_variance', 'force_std', 'energy_std']})
    bare = replace(latents, energies=None, forces=None)
    assert reference.score(latents).metrics == ('aligned_variance', 'force_std', 'energy_std', 'overall')
    assert reference.score(bare).metrics == ('aligned_variance', 'overall')
    wanted = ['energy_std', 'aligned_variance']
    assert reference.score(latents, wanted).metrics == ('aligned_variance', 'energy_std', 'overall')
    assert reference.score(latents, ['energy_std']).metrics == ('energy_std',)
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
    # Held-out structures had no forces: there is no threshold, and nothing that can be said.
    assert OodReference.fit(bare).score(latents).metrics == (
        'variance',
        'aligned_variance',
        'mahalanobis',
        'gmm',
        'knn',
        'overall',
    )


@dataclass(frozen=True, eq=False)
class Largest:
    """The largest latent of each element in the reference set, shape (n_elements,)."""

    elements: np.ndarray
    values: np.ndarray


class LargestFit:
    """Fits :class:`Largest`."""

    LOOKS = 1

    def __init__(self, latents, options) -> None:
        self.found = dict.fromkeys(np.unique(latents.numbers).tolist(), -np.inf)

    def look(self, chunk) -> None:
        for z in self.found:
            self.found[z] = max(self.found[z], chunk.latents[:, chunk.numbers == z].max(initial=-np.inf))

    def look_again(self, chunk, consensus) -> None:
        raise AssertionError('one look is enough')

    def finish(self) -> dict:
        return {'largest': Largest(np.array(list(self.found)), np.array(list(self.found.values())))}


def over_largest(seen: Seen) -> np.ndarray:
    part = seen.parts.fitted['largest']
    return seen.chunk.latents.max(axis=(0, 2)) - part.values[np.searchsorted(part.elements, seen.chunk.numbers)]


def test_a_new_score_is_a_line_of_the_registry(made_up, monkeypatch) -> None:
    monkeypatch.setitem(FITS, 'largest', Fit(LargestFit, {'largest': Largest}))
    score = Score('how far a latent is over all known ones', over_largest, fit='largest')
    monkeypatch.setitem(SCORES, 'over_largest', score)
    latents = made_up(40)
    fitted = OodReference.fit(latents, made_up(20, 1), settings={'metrics': ['over_largest', 'mahalanobis']})
    again = OodReference.from_arrays(fitted.to_arrays())
    scores = again.score(made_up(10, 2, shift=3.0))
    rows = np.stack([np.asarray(rows) for rows in made_up(10, 2, shift=3.0).latents]).max(axis=(0, 2))
    known = np.stack([np.asarray(rows) for rows in latents.latents]).max(axis=(0, 2))
    expected = rows - np.where(
        scores.numbers == 6, known[latents.numbers == 6].max(), known[latents.numbers == 8].max()
    )
    assert np.allclose(scores.per_atom['over_largest'], expected)
    assert scores.flags('over_largest', 'max').shape == (10,)
    chosen = choose_candidates(scores, CandidateOptions.load({'metric': 'over_largest', 'n': 2}))
    assert sum(each.taken for each in chosen) == 2
