"""The trainer of ACE: what it refuses, and what it hands on to its job."""

from __future__ import annotations

import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.calculations.train_ace import TrainAceCalculation
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.workchains.protocols import load_protocol
from aiida_oodal.workchains.train.ace import AceTrainWorkChain

SMALL = {'number_of_functions': 6, 'max_functions': None, 'cutoff': 4.5, 'spline_spacing': 0.01}


@pytest.fixture(scope='module')
def cells():
    return [label_structure(atoms, EMT()) for atoms in strained_crystals(count=4, rattle=(0.05, 0.15), seed=3)]


@pytest.fixture
def builder(engine_code, localhost):
    return AceTrainWorkChain.get_builder_from_protocol(
        code=engine_code, computer=localhost, protocol='quick', overrides=SMALL
    )


@pytest.mark.parametrize('protocol', ['quick', 'balanced', 'careful'])
def test_protocols_let_the_potential_grow(protocol):
    settings = AceFitSettings.load(load_protocol('train_ace', protocol))
    assert settings.max_functions >= 2 * settings.number_of_functions
    assert settings.fit_atom_energies
    assert settings.repulsion == 'zbl'


def test_the_forecast_is_the_largest_cutoff(localhost):
    inputs = {'settings': Dict({'cutoff': 5.0, 'max_cutoff': 7.0})}
    assert AceTrainWorkChain.forecast(inputs, ['Cu', 'Al', 'Cu']).cutoff == 7.0


def test_data_without_labels_end_with_an_exit_code_and_no_job(builder, cells):
    builder.labels = {'start': StructureSetData(cells), 'round_1': StructureSetData([bulk('Al')])}
    _, node = run_get_node(builder)
    assert node.exit_status == 401
    assert node.exit_message.startswith('Nothing was submitted: round_1: structure 0 has no REF_energy')
    assert node.called == []


def test_a_campaign_can_ask_before_it_pays(cells):
    labels, bare = {'start': StructureSetData(cells)}, StructureSetData([bulk('Al')])
    settings = {'settings': Dict(SMALL)}
    assert AceTrainWorkChain.check_labels(settings, labels, None) is None
    assert AceTrainWorkChain.check_labels(settings, labels, bare).startswith('validation: structure 0 has no')
    assert AceTrainWorkChain.check_labels(settings, {}, bare, bare).startswith('validation: structure 0 has no')
    assert AceTrainWorkChain.check_labels(settings, {}, None, bare) is None


def test_what_was_learned_goes_on(builder, cells):
    require('pyace')
    builder.labels = {'start': StructureSetData(cells[:2])}
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    builder.labels = {'start': StructureSetData(cells[:2]), 'round_1': StructureSetData(cells[2:])}
    builder.anchors = {'cold': StructureSetData(cells[:1])}
    builder.learned.potential = outputs['learned']['potential']
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    (job,) = (called for called in node.called if called.process_class is TrainAceCalculation)
    assert job.inputs.learned == builder.learned.potential
    assert sorted(outputs['results']['parts']) == ['cold', 'round_1', 'start']


def test_a_stricter_training_weighs_what_it_is_trained_on_only(cells):
    inputs = {'settings': Dict(SMALL), 'labels': {'start': StructureSetData(cells)}}
    changed = AceTrainWorkChain.stricter(inputs, {'start': 1.5, 'validation': 3.0})
    assert set(changed) == {'settings'}
    settings = AceFitSettings.load(changed['settings'].get_dict())
    assert settings.part_weights == {'start': 2.0}
    assert settings.max_functions == 9
    assert (
        AceTrainWorkChain.stricter({**inputs, 'settings': Dict({'number_of_functions': 1000})}, {'validation': 2.0})
        is None
    )
