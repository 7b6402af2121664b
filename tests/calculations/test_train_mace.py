"""Real trainings of a tiny MACE in jobs of their own."""

from __future__ import annotations

import time

import pytest
from aiida.engine import run_get_node, submit
from aiida.orm import Dict, Int, RemoteData
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.calculations.train_mace import TrainMaceCalculation
from aiida_oodal.data import MaceModelData, StructureSetData
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals

require('mace')

#: Ends the program of a job after some evaluations, as a scheduler would.
END_IT = '(until grep -qs "epoch 6 of" engine.out; do sleep 0.2; done; pkill -9 -P $$ -f train-mace) &'
TINY = {'num_channels': 8, 'r_max': 4.0, 'num_radial_basis': 4, 'radial_MLP': [8]}


@pytest.fixture(scope='module')
def cells():
    crystals = strained_crystals(count=24, repeat=(1, 1, 1), strain=0.03, rattle=(0.05, 0.2), seed=5)
    return [label_structure(atoms, EMT(asap_cutoff=False)) for atoms in crystals]


@pytest.fixture
def inputs(engine_code, localhost, cells):
    """Return a factory for the inputs of a training; keywords beyond the ports are settings."""

    def make(structures=None, overrides=None, **given):
        settings = {
            'protocol': 'quick',
            'updates': 30,
            'evaluations': 3,
            'batch_size': 4,
            'learning_rate': 0.1,
            'E0s': {'Al': 3.28},
            'device': 'cpu',
        }
        ports = {name: given.pop(name) for name in ('start', 'replay', 'parent_folder', 'seed') if name in given}
        structures = cells if structures is None else structures
        return {
            'code': engine_code,
            'training': {'cold': StructureSetData(structures[:20])},
            'validation': StructureSetData(cells[20:]),
            'seed': Int(1),
            'settings': Dict(settings | given | {'overrides': TINY | (overrides or {})}),
            'metadata': {'computer': localhost},
            **ports,
        }

    return make


def test_a_model_and_what_it_is_good_for(inputs):
    outputs, node = run_get_node(TrainMaceCalculation, **inputs())
    assert node.is_finished_ok, node.exit_message
    assert isinstance(outputs['model'], MaceModelData)
    results = outputs['results'].get_dict()
    assert results['outcome'] == 'completed'
    assert results['model']['sha256'] == outputs['model'].sha256
    assert results['initial_loss'] > 2 * results['kept_loss']
    assert [part['file'] for part in results['training_parts']] == ['training_cold.npz']
    assert results['validation']['by_element']['Al']['n_atoms'] == 16
    # a second model of the ensemble, and a warm start
    warm = inputs(start=outputs['model'], seed=Int(2), learning_rate=0.02)
    _, again = run_get_node(TrainMaceCalculation, **warm)
    assert again.is_finished_ok, again.exit_message
    assert again.outputs.results['initial_loss'] == pytest.approx(results['kept_loss'], rel=1e-4)
    assert again.outputs.model.sha256 != outputs['model'].sha256


def test_a_diverging_training_has_a_code_of_its_own(inputs, cells):
    spoilt = [atoms.copy() for atoms in cells]
    spoilt[3].arrays['REF_forces'][1] = 1e25
    _, node = run_get_node(TrainMaceCalculation, **inputs(spoilt))
    assert node.exit_status == 410
    assert 'The training diverged: the loss became' in node.exit_message
    assert 'learning rate 0.1' in node.exit_message
    assert 'model' not in node.outputs
    assert node.outputs.results['outcome'] == 'diverged'


def test_a_model_that_became_no_better_is_attached_with_a_code(inputs):
    _, first = run_get_node(TrainMaceCalculation, **inputs())
    _, node = run_get_node(TrainMaceCalculation, **inputs(start=first.outputs.model, learning_rate=1.0, updates=5))
    assert node.exit_status == 411
    assert 'before training and' in node.exit_message
    assert isinstance(node.outputs.model, MaceModelData)


def test_what_mace_says_is_in_the_message(inputs):
    _, node = run_get_node(
        TrainMaceCalculation, **inputs(overrides={'hidden_irreps': '8x0e + 4x1o', 'num_channels': None, 'max_L': None})
    )
    assert node.exit_status == 430
    assert 'All channels must have the same dimension' in node.exit_message


def test_wrong_labels_are_an_input_error(inputs, cells):
    spoilt = [atoms.copy() for atoms in cells]
    spoilt[3].info['REF_energy'] = float('inf')
    _, node = run_get_node(TrainMaceCalculation, **inputs(spoilt))
    assert node.exit_status == 210
    assert 'training_cold.npz: structure 3: REF_energy is not finite' in node.exit_message


@pytest.mark.slow
@pytest.mark.daemon
def test_a_job_that_was_ended_goes_on_in_another(inputs, daemon_client, localhost):
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(2)
    given = inputs(updates=150, evaluations=30)
    given['metadata'] = given['metadata'] | {'options': {'prepend_text': END_IT}}
    node = finished(submit(TrainMaceCalculation, **given))
    assert node.exit_status == 400, node.exit_message
    assert 'ended from outside at update' in node.exit_message
    left = node.outputs.results.get_dict()
    assert not left['complete']
    assert 0 < left['updates'] < left['target_updates']
    del given['metadata']['options']
    again = finished(submit(TrainMaceCalculation, **given, parent_folder=node.outputs.remote_folder))
    assert again.is_finished_ok, again.exit_message
    results = again.outputs.results.get_dict()
    assert results['resumed_at_epoch'] > 0
    assert results['updates_here'] < results['target_updates']
    assert results['history'][: len(left['history'])] == left['history']


def finished(node):
    end = time.monotonic() + 600
    while not node.is_terminated:
        assert time.monotonic() < end, 'the daemon does not finish it'
        time.sleep(0.5)
    return node


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda given: given['settings'].update_dict({'updates': 0}), 'updates = 0'),
        (lambda given: given['settings'].update_dict({'overrides': {'max_el': 1}}), "did you mean 'max_ell'?"),
        (lambda given: given['settings'].update_dict({'E0s': {}}), 'no energy of an isolated atom of Al'),
        (lambda given: given['settings'].update_dict({'E0s': 'foundation'}), "E0s = 'foundation' needs a model"),
        (lambda given: given['settings'].update_dict({'freeze': 'products'}), "freeze = 'products' needs a model"),
        (lambda given: given.update(seed=Int(-1)), 'seed = -1 must lie in'),
        (lambda given: given.update(training={}), 'give at least one labelled set'),
        (
            lambda given: given.update(validation=StructureSetData([bulk('Al')])),
            'validation has neither REF_energy nor',
        ),
        (lambda given: given.update(replay=given['validation']), 'replay needs a model to start from'),
        (
            lambda given: given.update(validation=StructureSetData([label_structure(bulk('Cu'), EMT())])),
            'validation has Cu, which the training sets lack',
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_at_submission(inputs, change, message):
    given = inputs()
    change(given)
    with pytest.raises(ValueError, match=message):
        run_get_node(TrainMaceCalculation, **given)


def test_isolated_atoms_in_the_data_are_enough(inputs, cells):
    given = inputs(E0s={})
    given['training']['free'] = StructureSetData([label_structure(Atoms('Al'), EMT()), cells[0]])
    process = TrainMaceCalculation(given)
    assert process.inputs.training.free.n_structures == 2


def test_a_folder_of_another_computer_is_refused(inputs, aiida_computer):
    elsewhere = aiida_computer(label='elsewhere', transport_type='core.local', scheduler_type='core.direct')
    with pytest.raises(ValueError, match='parent_folder lies on elsewhere, the job runs on localhost'):
        run_get_node(
            TrainMaceCalculation, **inputs(parent_folder=RemoteData(computer=elsewhere, remote_path='/somewhere'))
        )
