from __future__ import annotations

import dataclasses
import json

import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.model_info import check_ensemble
from aiida_oodal.engine.mace.models import open_model


def test_a_description_goes_into_json(alcu_models):
    described = json.loads(json.dumps(open_model(alcu_models['w2'], label='w2').info.as_dict()))
    assert (described['label'], described['file'], described['elements']) == ('w2', 'w2.model', ['Al', 'Cu'])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'cutoff': 5.0}, 'cutoff 4.2 angstrom and 5.0 angstrom'),
        ({'elements': ('Al',)}, 'elements Al Cu and Al;'),
        ({'layout': ('8x0e', '8x0e')}, 'layout 16x0e 16x0e and 8x0e 8x0e'),
    ],
)
def test_mismatched_ensembles_are_refused(change, message, alcu_models):
    first = open_model(alcu_models['w1'], label='w1').info
    other = dataclasses.replace(first, label='w2', **change)
    with pytest.raises(OodalError, match=f'models w1 and w2 are no ensemble: {message}'):
        check_ensemble({'w1': first, 'w2': other})


def test_an_ensemble_of_seeds_is_accepted(alcu_models):
    check_ensemble({label: open_model(path, label=label).info for label, path in alcu_models.items()})
    with pytest.raises(OodalError, match='at least one model'):
        check_ensemble({})
