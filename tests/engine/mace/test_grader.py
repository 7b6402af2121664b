"""Cells are graded by an ensemble, and by one model, as its reference judges."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.grader import MaceGrader
from aiida_oodal.engine.mace.models import open_model

require('mace')

TINY = runpy.run_path(str(Path(__file__).parents[2] / 'workchains' / 'tiny_ensemble.py'))


@pytest.mark.parametrize(
    ('labels', 'judge'), [(('w1', 'w2', 'w3', 'w4'), 'aligned_variance'), (('w2',), 'mahalanobis')]
)
def test_cells_are_graded_by_the_score_that_judges(labels, judge) -> None:
    reference = TINY['fit'](labels)
    assert reference.judge == judge
    models = {label: TINY['MODELS'][label] for label in labels}
    grader = MaceGrader(models, reference, level=0.99, settings={'device': 'cpu'})
    known = bulk('Al', a=4.0, cubic=True)
    strange = known.copy()
    strange.positions[0] += 1.2
    graded = grader.grade([known, strange, Atoms('Ag')])
    latents = TINY['latents_of']([known, strange], labels)
    expected = reference.score(latents, [judge]).per_atom[judge]
    assert np.concatenate([one.scores for one in graded[:2]]) == pytest.approx(expected, rel=1e-3)
    for one in graded[:2]:
        assert np.allclose(one.gamma, one.scores / one.threshold)
        assert one.descriptor.shape == (latents.n_features,)
    assert graded[0].gamma.max() < 1.0 < graded[1].gamma[0]
    assert 'the models could not evaluate it' in graded[2]
    assert grader.cutoff == open_model(models['w2'], label='w2', device='cpu').info.cutoff
    with pytest.raises(OodalError, match='the models are other, but the reference was made of'):
        MaceGrader({'other': models['w2']}, reference, level=0.99, settings={})
