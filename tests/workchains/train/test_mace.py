"""The trainer of MACE ensembles: real trainings of tiny models, and the reference that belongs to them."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, Float, Str, to_aiida_type
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.calculations.labels.sets import hold_out
from aiida_oodal.calculations.train_mace import combine_results
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.operations.launch import require_valid
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.train.mace import MaceTrainWorkChain

SETTINGS = {
    'updates': 30,
    'evaluations': 3,
    'batch_size': 4,
    'learning_rate': 0.05,
    'device': 'cpu',
    'overrides': {'num_channels': 8, 'r_max': 4.0, 'num_radial_basis': 4, 'radial_MLP': [8]},
}


@pytest.fixture(scope='module')
def cells():
    crystals = strained_crystals(count=30, repeat=(1, 1, 1), strain=0.03, rattle=(0.05, 0.2), seed=5)
    labelled = [label_structure(atoms, EMT(asap_cutoff=False)) for atoms in crystals]
    atom = label_structure(Atoms('Al', cell=[12, 12, 12]), EMT(asap_cutoff=False))
    return [atom, *labelled]


@pytest.fixture
def builder(engine_code, localhost):
    return MaceTrainWorkChain.get_builder_from_protocol(
        code=engine_code, computer=localhost, protocol='quick', overrides={'settings': SETTINGS, 'seeds': [3, 5]}
    )


def test_the_same_structures_are_held_out_whenever_a_set_is_split(aiida_profile, cells):
    first, second = StructureSetData(cells[:11]), StructureSetData(cells[11:])
    alone = hold_out(fraction=Float(0.2), set_a=first)
    both = hold_out(fraction=Float(0.2), set_a=first, set_b=second)
    assert (alone['heldout'].n_structures, alone['training'].n_structures) == (2, 9)
    assert both['heldout'].n_structures == 6
    held = [atoms.positions for atoms in both['heldout']]
    for atoms in alone['heldout']:
        assert any(np.array_equal(atoms.positions, other) for other in held if other.shape == atoms.positions.shape)
    assert min(len(atoms) for atoms in both['heldout']) > 1
    assert min(len(atoms) for atoms in both['training']) == 1
    few, node = hold_out.run_get_node(fraction=Float(0.1), set_a=StructureSetData(cells[1:3]))
    assert not few
    assert 'leaves none for the heldout set' in node.exit_message


def test_what_cannot_be_learned_is_refused_before_labels_are_paid(aiida_profile, cells):
    given = {'settings': Dict({'protocol': 'quick', **SETTINGS})}
    whole = StructureSetData(cells[1:])
    bare = StructureSetData([Atoms('Al4', positions=cells[1].positions, cell=cells[1].cell, pbc=True)])
    check = MaceTrainWorkChain.check_labels
    assert check(given, {'known': StructureSetData(cells)}, None) is None
    assert 'no energy of an isolated atom of Al' in check(given, {'known': whole}, None)
    assert check(given, {}, None, StructureSetData(cells)) is None
    assert 'validation has neither REF_energy' in check(given, {'known': StructureSetData(cells)}, bare)
    with_e0 = {'settings': Dict({'protocol': 'quick', **SETTINGS, 'E0s': {'Al': 3.28}})}
    assert check(with_e0, {'known': whole}, None) is None
    assert MaceTrainWorkChain.forecast(given, ['Al', 'Al']).cutoff == 4.0
    frozen = {'settings': Dict({'protocol': 'quick', **SETTINGS, 'freeze': 'embedding'}), 'start_from': Str('last')}
    assert 'need a model from the first training on' in check(frozen, {'known': StructureSetData(cells)}, None)
    assert check({**frozen, 'learned': {'ensemble': {}}}, {'known': StructureSetData(cells)}, None) is None


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        ({'seeds': [1, 1]}, 'two models of one seed never disagree'),
        ({'seeds': []}, 'give one whole number'),
        ({'start_from': 'scrach'}, 'is none of scratch, last, foundation'),
        ({'heldout_fraction': 0.7}, 'must lie above 0'),
    ],
)
def test_wrong_inputs_are_refused(builder, inputs, message):
    for name, value in inputs.items():
        with pytest.raises(ValueError, match=message):
            setattr(builder, name, to_aiida_type(value))


@pytest.mark.parametrize(
    ('settings', 'inputs', 'message'),
    [
        ({}, {'start_from': 'foundation'}, r"start_from = 'foundation' needs the model as `foundation`: MaceModelData"),
        ({'freeze': 'embedding'}, {}, "freeze = 'embedding' needs models to start from, but start_from = 'scratch'"),
        ({'E0s': 'foundation'}, {}, "E0s = 'foundation' needs a model to start from, but start_from = 'scratch'"),
        ({}, {'seeds': [1], 'metrics': ['aligned_variance']}, 'aligned_variance needs two models or more.*`metrics`'),
    ],
)
def test_inputs_that_do_not_fit_each_other_are_refused(builder, cells, settings, inputs, message):
    builder.labels = {'start': StructureSetData(cells)}
    builder.settings = Dict({**builder.settings.get_dict(), **settings})
    builder.fit.settings = Dict({'metrics': inputs.pop('metrics', ['mahalanobis'])})
    for name, value in inputs.items():
        setattr(builder, name, to_aiida_type(value))
    with pytest.raises(OodalError, match=message):
        require_valid(MaceTrainWorkChain, builder._inputs(prune=True))


def test_a_campaign_refuses_forces_of_a_model_that_no_seed_makes(engine_code, localhost, cells):
    builder = CampaignWorkChain.get_builder_from_protocol(
        code=engine_code,
        computer=localhost,
        protocol='quick',
        trainer='oodal.train.mace',
        initial_labels=StructureSetData(cells),
        walkers={
            'hot': {
                'structure': StructureSetData([bulk('Al', cubic=True).repeat(3)]),
                'settings': {'temperature': 300, 'steps': 10},
            }
        },
        overrides={
            'label': {'calculator': {'calculator': 'emt'}},
            'train': {'seeds': [1, 2], 'settings': SETTINGS},
        },
    )
    builder.ensemble.settings = {'forces': 'w2'}
    require_valid(CampaignWorkChain, builder._inputs(prune=True))
    builder.ensemble.settings = {'forces': 'w3'}
    with pytest.raises(OodalError, match="forces = 'w3': there are w1, w2, mean"):
        require_valid(CampaignWorkChain, builder._inputs(prune=True))


def test_one_seed_has_scores_of_one_model(engine_code, localhost):
    given = {'code': engine_code, 'computer': localhost, 'protocol': 'quick'}
    builder = MaceTrainWorkChain.get_builder_from_protocol(**given, overrides={'seeds': [1]})
    assert list(builder.fit.settings['metrics']) == ['mahalanobis', 'predicted_error']
    with pytest.raises(OodalError, match=r'seeds = 2: give a list with a seed for each model, such as \[1, 2, 3, 4\]'):
        MaceTrainWorkChain.get_builder_from_protocol(**given, overrides={'seeds': 2})


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'freeze': 'embedding'}, 'freeze is a setting of the models: give it in `settings`'),
        ({'settings': {'heldout_fraction': 0.2}}, 'heldout_fraction stands beside `settings`'),
        ({'foundation': 'small'}, "foundation = 'small' is no model: give a node, such as MaceModelData"),
    ],
)
def test_what_stands_in_the_wrong_place_is_told_the_right_one(engine_code, localhost, overrides, message):
    with pytest.raises(OodalError, match=message):
        MaceTrainWorkChain.get_builder_from_protocol(code=engine_code, computer=localhost, overrides=overrides)


def test_a_single_atom_that_is_periodic_is_isolated_if_it_is_called_so(aiida_profile, cells):
    given, alone = {'settings': Dict({'protocol': 'quick', **SETTINGS})}, cells[0].copy()
    assert len(alone) == 1
    alone.pbc = True
    for name, refused in (('', True), ('IsolatedAtom', False)):
        alone.info['config_type'] = name
        found = MaceTrainWorkChain.check_labels(given, {'known': StructureSetData([alone, *cells[1:]])}, None)
        assert ('no energy of an isolated atom' in (found or '')) == refused


def test_reports_of_seeds_and_judges_become_one(aiida_profile):
    report = {'training': {'force_rmse': 20.0, 'n_atoms': 4}, 'validation': {'force_rmse': 30.0}}
    other = {'training': {'force_rmse': 30.0, 'n_atoms': 4}, 'validation': {'force_rmse': 50.0}}
    judged = Dict({'force_rmse': 44.0})
    combined = combine_results(
        reference=Dict({'notes': []}),
        w1=Dict(report),
        w2=Dict(other),
        judged_validation=judged,
        judged_anchor_a_b=judged,
    ).get_dict()
    assert combined['training'] == {'force_rmse': 25.0, 'n_atoms': 4}
    assert combined['heldout'] == {'force_rmse': 40.0}
    assert combined['validation'] == {'role': 'validation', 'force_rmse': 44.0}
    assert combined['parts']['a_b'] == {'role': 'anchor', 'force_rmse': 44.0}
    assert combined['seeds'] == {'w1': report, 'w2': other}


@pytest.mark.slow
def test_an_ensemble_and_its_reference_and_a_warm_start(builder, cells):
    require('mace')
    builder.labels = {'start': StructureSetData(cells[:25])}
    builder.validation = StructureSetData(cells[25:])
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    ensemble, results = outputs['learned']['ensemble'], outputs['results'].get_dict()
    assert sorted(ensemble['models']) == ['w1', 'w2']
    assert len({model.sha256 for model in ensemble['models'].values()}) == 2
    assert ensemble['reference'].base.attributes.get('elements') == [13]
    assert [results['seeds'][label]['seed'] for label in ('w1', 'w2')] == [3, 5]
    assert results['training']['force_rmse'] > 0
    # the mean of the two models on cells that neither saw
    assert results['validation']['n_structures'] == 6
    assert results['validation']['force_rmse'] == results['parts']['validation']['force_rmse'] > 0

    builder.learned.ensemble.models = dict(ensemble['models'])
    builder.learned.ensemble.reference = ensemble['reference']
    builder.start_from = Str('last')
    outputs, again = run_get_node(builder)
    assert again.is_finished_ok, again.exit_message
    kept = [results['seeds'][label]['kept_loss'] for label in ('w1', 'w2')]
    begun = [outputs['results']['seeds'][label]['initial_loss'] for label in ('w1', 'w2')]
    assert begun == pytest.approx(kept, rel=1e-3)
    assert outputs['learned']['ensemble']['reference'].uuid != ensemble['reference'].uuid
