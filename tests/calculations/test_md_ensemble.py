"""An ensemble of MACE models drives and watches MD: real jobs."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict
from ase.build import bulk
from machine import require

from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import MaceModelData, OodReferenceData, StructureSetData
from aiida_oodal.engine.ood.identity import ModelIdentity

require('lammps', 'mace')


@pytest.fixture(scope='module')
def ensemble(aiida_profile):
    tiny = runpy.run_path(str(Path(__file__).parents[1] / 'workchains' / 'tiny_ensemble.py'))
    models = {label: MaceModelData(path).store() for label, path in tiny['MODELS'].items()}
    return {'models': models, 'reference': OodReferenceData(tiny['fit']()).store()}


@pytest.fixture
def ensemble_inputs(engine_code, localhost, ensemble):
    def factory(**settings):
        return {
            'code': engine_code,
            'ensemble': {**ensemble, 'settings': {'forces': 'w2', 'device': 'cpu'}},
            'structure': StructureSetData([bulk('Al', a=3.995, cubic=True).repeat(2)]),
            'settings': Dict({'temperature': 100, 'timestep_ps': 0.002, 'sample_every': 10, **settings}),
            'metadata': {'computer': localhost},
        }

    return factory


def test_a_hot_run_halts_and_gives_its_snapshots(ensemble_inputs):
    outputs, node = run_get_node(MdCalculation, **ensemble_inputs(temperature=4000, steps=2000))
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert results['outcome'] == 'UNCERTAIN', results['message']
    last = outputs['snapshots'].get_atoms(len(outputs['snapshots']) - 1)
    assert last.info['step'] == results['trigger_step']
    assert last.arrays['gamma'].max() == pytest.approx(results['max_gamma'], rel=1e-3)
    assert np.isfinite(outputs['series'].get_array('max_gamma')).all()
    names = node.base.repository.list_object_names()
    assert 'md.in' in names
    assert not {'reference.npz', 'w1.model'} & set(names)


def test_one_model_drives_and_halts_by_its_distance_from_what_it_knows(ensemble_inputs, ensemble):
    tiny = runpy.run_path(str(Path(__file__).parents[1] / 'workchains' / 'tiny_ensemble.py'))
    reference = OodReferenceData(tiny['fit'](('w2',))).store()
    assert reference.base.attributes.get('judge') == 'mahalanobis'
    one = {
        'models': {'w2': ensemble['models']['w2']},
        'reference': reference,
        'settings': {'forces': 'w2', 'device': 'cpu'},
    }
    for temperature, outcome in ((50, 'COMPLETED'), (4000, 'UNCERTAIN')):
        inputs = {**ensemble_inputs(temperature=temperature, steps=200), 'ensemble': one}
        outputs, node = run_get_node(MdCalculation, **inputs)
        assert node.is_finished_ok, node.exit_message
        assert outputs['results']['outcome'] == outcome, outputs['results']['message']


def test_what_does_not_fit_together_is_refused_at_submission(ensemble_inputs, potential):
    inputs = ensemble_inputs(steps=10)
    ensemble = inputs['ensemble']
    two = {label: node for label, node in ensemble['models'].items() if label in ('w1', 'w2')}
    tiny = runpy.run_path(str(Path(__file__).parents[1] / 'workchains' / 'tiny_ensemble.py'))
    others = OodReferenceData(tiny['fit'](models=dict.fromkeys(tiny['MODELS'], ModelIdentity(sha256='0' * 64))))
    for changes, message in (
        (
            {'ensemble': {**ensemble, 'models': two}},
            'fitted for the models w1, w2, w3, w4, not w1, w2',
        ),
        ({'ensemble': {**ensemble, 'settings': {'forces': 'w7'}}}, "forces = 'w7': there are w1, w2, w3, w4, mean"),
        ({'ensemble': {'models': two}}, 'ensemble.reference is missing'),
        (
            {'ensemble': {**ensemble, 'reference': others}},
            r'not of the same model w1: .* Fit a reference of these models: `oodal.fit_reference`, or a screening$',
        ),
        ({'ensemble': {**ensemble, 'models': ensemble['models'] | {'w2': two['w1']}}}, 'w1 and w2 are the same file'),
        ({'ensemble': {**ensemble, 'settings': {'head': 'dft'}}}, "w1 has the heads Default, and head = 'dft' is none"),
        ({'potential': potential}, 'forces come from potential and ensemble; give one of them'),
        ({'structure': StructureSetData([bulk('Ag', cubic=True)])}, 'the structure has Ag, but .* Al, Cu only'),
    ):
        with pytest.raises(ValueError, match=message):
            run_get_node(MdCalculation, **{**inputs, **changes})
