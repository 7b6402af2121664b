"""A trainer that forgets: what was learned is compared with what was learned before, and refused."""

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from ase.build import bulk
from toys import ACE_AL

from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.operations.campaign.status import read_status
from aiida_oodal.report import read_history
from aiida_oodal.workchains.trust.guard import find_standard


@pytest.fixture
def build(build_toy_campaign):
    """Return a function that makes the builder of a campaign whose trainer may be forgetful."""

    def make(*, train, max_rounds=1, guard=None, **arguments):
        return build_toy_campaign(
            {'hot': {'settings': {'temperature': 3000, 'steps': 400}}},
            {
                'train': train,
                'max_rounds': max_rounds,
                'guard': {'action': 'refuse', **(guard or {})},
                'thresholds': {'gamma_ceiling': 1e4},
            },
            a=4.0,
            **arguments,
        )

    return make


def reports(node):
    return ' '.join(entry.message for entry in orm.Log.collection.get_logs_for(node))


def test_what_stays_worse_is_not_promoted_and_walkers_go_on_with_the_one_before(build):
    outputs, node = run_get_node(build(train={'forgetful': True}, max_rounds=2))
    assert node.exit_status == 501, node.exit_message
    found = outputs['guard'].get_dict()
    assert found['learned_in'] == 0
    assert found['refused'] == [1, 2]
    first = found['rounds']['1']
    assert not first['promoted']
    assert not first['trained_again']
    assert first['worse'] == [{'part': 'start', 'element': None, 'before': 0.02, 'after': 0.03}]
    links = {link.link_label: link.node for link in node.base.links.get_outgoing().all()}
    assert not [name for name in links if name.startswith('retrain')]
    learned = links['train_0'].outputs.learned.potential
    assert outputs['potential'].uuid == learned.uuid
    assert outputs['results'].uuid == links['train_0'].outputs.results.uuid
    walkers = [links[f'explore_{number}_hot'].inputs.md for number in (1, 2)]
    assert {walker.potential.uuid for walker in walkers} == {learned.uuid}
    seeds = [walker.settings.get_dict().get('velocity_seed', 1) for walker in walkers]
    assert seeds == [1, 1_000_004]
    assert {'start', 'round_1', 'round_2'} == set(outputs['labels'])
    assert 'not promoted; walkers go on with what was learned in round 0' in reports(node)
    assert 'what was learned in rounds 1, 2 was refused' in reports(node)
    worse, refused = read_status(node).guard
    assert worse.startswith('round 2: ToyTrainWorkChain<')
    assert 'start: 20.0 -> 30.0 meV/angstrom' in worse
    assert refused == 'not promoted: round 1, 2'
    history = read_history(node)
    assert [entry.potential.uuid for entry in history.rounds] == [learned.uuid] * 2


def test_another_training_with_stricter_inputs_is_promoted(build):
    outputs, node = run_get_node(build(train={'forgetful': True, 'curable': True}, max_rounds=2))
    # the same walkers under the same toy potential find the same clusters again
    assert node.exit_status == 502, node.exit_message
    found = outputs['guard'].get_dict()
    assert (found['learned_in'], found['refused']) == (1, [])
    assert found['rounds']['1'] == {'promoted': True, 'trained_again': True, 'worse': [], 'sentences': []}
    links = {link.link_label: link.node for link in node.base.links.get_outgoing().all()}
    assert links['train_1'].inputs.forgetful.value
    assert not links['retrain_1'].inputs.forgetful.value
    learned = links['retrain_1'].outputs.learned.potential
    assert links['explore_2_hot'].inputs.md.potential.uuid == outputs['potential'].uuid == learned.uuid
    assert [entry.potential.uuid for entry in read_history(node).rounds][1] == learned.uuid


@pytest.mark.parametrize('action', ['tell', 'keep_anchors'])
def test_what_is_only_told_is_promoted(build, action):
    outputs, node = run_get_node(build(train={'forgetful': True, 'curable': True}, guard={'action': action}))
    found = outputs['guard'].get_dict()
    assert found['refused'] == []
    assert found['rounds']['1']['promoted']
    assert not found['rounds']['1']['trained_again']
    assert found['rounds']['1']['sentences'] == ['start: 20.0 -> 30.0 meV/angstrom']
    assert 'start: 20.0 -> 30.0 meV/angstrom' in reports(node)


def test_walkers_that_end_with_what_later_labels_were_refused_for_are_no_convergence(build):
    process = instantiate_process(get_manager().get_runner(), build(train={'forgetful': True}))
    process.setup()
    process.ctx.round, process.ctx.converged = 3, True
    process.ctx.verdicts = {
        '0': {'sentences': []},
        '2': {'sentences': ['start: 20.0 -> 30.0 meV/angstrom']},
    }
    code = process.finish()
    assert code.status == 503
    assert 'in round 3, but with the potential or ensemble of round 0' in code.message
    assert 'worse on start: 20.0 -> 30.0 meV/angstrom' in code.message
    process.ctx.learned_in = 2
    assert process.finish() is None


def test_settings_of_the_guard_are_checked(build):
    builder = build(train={})
    with pytest.raises(ValueError, match="'tolerence' is not a setting; did you mean 'tolerance'"):
        builder.guard = {'tolerence': 2.0}


def test_what_is_known_of_a_potential_that_another_campaign_trained(localhost):
    sets = {name: StructureSetData([bulk('Al', a=a)]).store() for name, a in (('start', 4.0), ('other', 4.1))}
    parts = {'start': {'force_rmse': 20.0}, 'other': {'force_rmse': 5.0}, 'validation': {'force_rmse': 9.0}}
    job = orm.CalcJobNode(computer=localhost, process_type='aiida.calculations:oodal.train_ace')
    for name, node in sets.items():
        job.base.links.add_incoming(node, LinkType.INPUT_CALC, f'training__{name}')
    job.store()
    potential = AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi')
    results = orm.Dict({'parts': parts})
    potential.base.links.add_incoming(job, LinkType.CREATE, 'potential')
    results.base.links.add_incoming(job, LinkType.CREATE, 'results')
    potential.store()
    results.store()
    # only what both have, by the names that the sets have now
    known = find_standard(potential, {'initial_start': sets['start'], 'validation': sets['other'].clone().store()})
    assert known == {'parts': {'initial_start': {'force_rmse': 20.0}}}
    assert find_standard(None, sets) == find_standard(AcePotentialData(ACE_AL / 'Al.yaml'), sets) == {}
