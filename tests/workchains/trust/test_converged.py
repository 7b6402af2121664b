"""Rounds that pass: the schedule goes on, velocities change, and the campaign says what ended it."""

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState, run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from ase.build import bulk
from machine import require
from toys import ACE_AL

from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.campaign.extend import build_extension
from aiida_oodal.operations.campaign.status import read_status
from aiida_oodal.report import read_history, write_report
from aiida_oodal.report.campaign.left import read_left
from aiida_oodal.workchains.explore import ExploreWorkChain

require('lammps', 'pyace')

QUIET = {'gamma_select': 1e3, 'gamma_break': 2e3, 'gamma_ceiling': 1e4}
COLD = {'temperature': 100, 'steps': 20, 'ensemble': 'nvt'}


@pytest.fixture
def build(build_toy_campaign):
    """Return a function that makes the builder of a campaign whose walkers run to their end in no time."""

    def make(walker=None, **overrides):
        return build_toy_campaign({'cold': {'settings': COLD, **(walker or {})}}, {'thresholds': QUIET, **overrides})

    return make


@pytest.fixture
def campaign(build):
    """Return a function that makes the process of a campaign, set up and not run."""

    def make(walker=None, **overrides):
        process = instantiate_process(get_manager().get_runner(), build(walker, **overrides))
        process.setup()
        return process

    return make


def go_through(process, *, passed, error=None):
    """Let a process take a round as if its walkers had passed or halted, and something was learned of it."""
    process.ctx.round += 1
    process.ctx.passed, process.ctx.halted = passed, not passed
    process.conclude_round()
    if error is not None:
        process.ctx.errors.append(error)
    return process.should_explore()


def test_a_campaign_without_a_schedule_ends_when_a_round_passes(campaign):
    process = campaign()
    assert process.is_last_pass()
    assert go_through(process, passed=False)
    assert not go_through(process, passed=True)
    assert process.finish() is None
    end = process.outputs['convergence'].get_dict()
    assert end == {
        'converged': True,
        'ended_by': 'walkers',
        'reason': 'every walker ran to its end in round 2',
        'leg': 1,
        'legs': 1,
        'passed': [{'leg': 1, 'round': 2}],
        'in_a_row': 1,
        'reseeded': 1,
    }


def test_rounds_have_to_pass_in_a_row_and_in_every_leg(campaign):
    process = campaign({'schedule': [{'steps': 30}]}, convergence={'rounds': 2})
    where = []
    for passed in (True, False, True, True, True, False, True, True):
        where.append((process.ctx.leg, process.is_last_pass()))
        more = go_through(process, passed=passed)
    assert where == [(1, False)] * 4 + [(2, False), (2, True), (2, False), (2, True)]
    assert not more
    process.finish()
    end = process.outputs['convergence'].get_dict()
    assert end['reason'] == 'every walker ran to its end in round 8 of leg 2 of 2, 2 times in a row'
    assert [(each['leg'], each['round']) for each in end['passed']] == [(1, 1), (1, 3), (1, 4), (2, 5), (2, 7), (2, 8)]


def test_walkers_take_the_settings_of_the_leg_and_other_velocities_when_a_round_passed(campaign):
    process = campaign({'schedule': [{'steps': 30}]}, convergence={'rounds': 2})
    walker = process.inputs.walkers['cold']
    taken = []
    for passed in (False, True, True, True):
        settings = process.prepare_walker(walker, shift=0)['settings']
        taken.append((settings['steps'], settings.get_dict().get('velocity_seed')))
        go_through(process, passed=passed)
    assert taken == [(20, None), (20, None), (20, 1_000_004), (30, 2_000_007)]
    # nothing new is stored where nothing changes
    assert campaign().prepare_walker(walker, shift=0)['settings'] is walker['settings']


@pytest.mark.parametrize(
    ('rounds', 'sentence'),
    [
        ([], 'no walker was sent out'),
        ([False], 'walkers still halt in leg 1 of 2'),
        ([True], '1 of 2 rounds in a row passed in leg 1 of 2'),
        ([True, True], 'leg 2 of 2 was not begun'),
        ([True, True, False], 'walkers still halt in leg 2 of 2'),
    ],
)
def test_a_spent_budget_says_how_far_it_came(campaign, rounds, sentence):
    process = campaign({'schedule': [{'steps': 30}]}, convergence={'rounds': 2}, budget={'hours': 1e-9})
    for passed in rounds:
        go_through(process, passed=passed)
    assert not process.should_explore()
    code = process.finish()
    assert code.status == 501
    assert f'hours) and {sentence}: the last potential' in code.message
    end = process.outputs['convergence'].get_dict()
    assert (end['converged'], end['ended_by']) == (False, 'budget')
    assert end['reason'].endswith(f'and {sentence}: the last potential and all labels are attached.')


def test_an_error_that_stopped_falling_ends_it_but_not_across_legs(build):
    (labelled,) = StructureSetData([bulk('Al', a=4.05, cubic=True)])
    labelled.info['REF_energy'], labelled.arrays['REF_forces'] = 0.0, 0.0 * labelled.positions
    builder = build({'schedule': [{'steps': 30}]}, convergence={'flat_share': 0.1, 'flat_rounds': 2})
    builder.validation = StructureSetData([labelled])
    process = instantiate_process(get_manager().get_runner(), builder)
    process.setup()
    process.ctx.errors.append(100.0)
    assert go_through(process, passed=False, error=99.0)
    assert go_through(process, passed=True)
    # the harder leg begins with what was known
    assert go_through(process, passed=False, error=98.0)
    assert not go_through(process, passed=False, error=97.0)
    code = process.finish()
    assert code.status == 505
    assert '(99.0, 98.0, 97.0 meV/angstrom in the last trainings), and walkers still halt in leg 2 of 2' in code.message
    assert process.outputs['convergence']['ended_by'] == 'validation'


@pytest.mark.slow
def test_a_schedule_is_walked_to_its_end_and_extended(build, tmp_path):
    builder = build(
        {'replicas': 2, 'schedule': [{'steps': 30}, {'steps': 40, 'temperature': [100, 150]}]},
        audit={'tolerance': 50.0, 'frames': 1},
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    links = {link.link_label: link.node for link in node.base.links.get_outgoing().all()}
    # the audit is done once, and nothing was trained in between
    assert [name for name in links if name.startswith(('audit', 'train'))] == ['train_0', 'audit_3']
    walks = [links[f'explore_{number}_cold_{replica}'] for number in (1, 2, 3) for replica in (1, 2)]
    assert [walk.outputs.results['last_step'] for walk in walks] == [20, 20, 30, 30, 40, 40]
    seeds = [walk.inputs.md.settings['velocity_seed'] for walk in walks]
    assert seeds == [1, 2, 1_000_004, 1_000_005, 2_000_007, 2_000_008]
    assert [walk.description for walk in walks[::2]] == ['leg 1 of 3', 'leg 2 of 3', 'leg 3 of 3']
    assert outputs['convergence']['reason'] == 'every walker ran to its end in round 3 of leg 3 of 3'

    history = read_history(node)
    assert [entry.name for entry in history.rounds] == ['1 (leg 1)', '2 (leg 2)', '3 (leg 3)']
    page = write_report(node, tmp_path / 'page.html', history).read_text()
    assert 'Now it has converged: every walker ran to its end in round 3 of leg 3 of 3.' in page
    assert 'then steps 40, temperature 100 to 150' in page
    status = read_status(node)
    assert (status.leg, status.state) == ('leg 3 of 3', 'healed: every walker ran to its end in round 3 of leg 3 of 3')

    # What has passed is not repeated: only what is new, or what is changed.
    left = read_left(node)
    assert (left.passed, left.reseeded) == (3, 3)
    first, second = [{'steps': 30}], [{'steps': 30}, {'steps': 99}]
    assert build_extension(node, {'schedule': first}).initial.progress.get_dict() == {'leg': 2, 'reseeded': 3}
    assert build_extension(node, {'schedule': second}).initial.progress['leg'] == 3
    assert build_extension(node, {'schedule': []}).initial.progress['leg'] == 1
    assert build_extension(node, {'convergence': {'rounds': 2}}).initial.progress['leg'] == 3
    assert build_extension(node, {'walkers': {'cold_2': {'steps': 50}}}).initial.progress['leg'] == 1
    assert build_extension(node, {'md': {'temperature': 90}}).initial.progress['leg'] == 1
    own = build_extension(node, {'walkers': {'cold_1': {'schedule': [*second, {'steps': 70}]}}}, rounds=2)
    assert own.initial.progress['leg'] == 3
    assert [len(own.walkers[name]['schedule'].get_list()) for name in ('cold_1', 'cold_2')] == [3, 2]
    with pytest.raises(OodalError, match='max_rounds = 1 is too few: 2 legs of the schedule'):
        build_extension(node, {'schedule': [*first, *second]}, rounds=1)
    with pytest.raises(OodalError, match="schedule of walker 'cold_1': give a list of settings"):
        build_extension(node, {'schedule': {'steps': 5}})


def test_of_a_killed_campaign_the_legs_before_that_of_its_last_round_have_passed():
    node = orm.WorkChainNode()
    progress = orm.Dict({'leg': 2, 'reseeded': 4}).store()
    node.base.links.add_incoming(progress, LinkType.INPUT_WORK, 'initial__progress')
    node.store()
    node.set_process_state(ProcessState.KILLED)
    left = read_left(node)
    assert (left.passed, left.reseeded) == (1, 4)
    for number, leg in ((1, 2), (2, 3)):
        walk = orm.WorkChainNode(description=f'leg {leg} of 4')
        walk.base.links.add_incoming(node, LinkType.CALL_WORK, f'explore_{number}_hot')
        walk.store()
        walk.set_process_state(ProcessState.KILLED)
    left = read_left(node)
    assert (left.passed, left.reseeded) == (2, 6)


@pytest.mark.slow
def test_a_walker_that_ran_to_its_end_with_a_large_gamma_is_learned_from(engine_code, localhost):
    place = {'code': engine_code, 'metadata': {'computer': localhost}}
    start = StructureSetData([bulk('Al', a=4.05, cubic=True).repeat(2)])
    settings = {'steps': 60, 'temperature': 600, 'gamma_every': 10, 'sample_every': 10}
    potential = AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi')
    found = {}
    for gamma in (1e-3, 1e3):
        _, node = run_get_node(
            ExploreWorkChain,
            md={**place, 'structure': start, 'settings': settings, 'potential': potential},
            thresholds={'gamma_select': 1e-3, 'gamma_break': 1e3, 'gamma_ceiling': 1e4},
            carve={**place, 'settings': {'radius': 3.0, 'buffer': 3.0}},
            convergence={'gamma': gamma, 'gamma_quantile': 0.5},
        )
        assert node.is_finished_ok, node.exit_message
        assert node.outputs.results['outcome'] == 'COMPLETED'
        found[gamma] = 'clusters' in node.outputs
    assert found == {1e-3: True, 1e3: False}


def test_a_round_does_not_pass_while_gamma_is_large(campaign):
    def walk(*gamma):
        node = orm.WorkChainNode()
        node.store()
        node.set_process_state(ProcessState.FINISHED)
        node.set_exit_status(0)
        results = orm.Dict({'outcome': 'COMPLETED'}).store()
        series = orm.ArrayData({'max_gamma': np.array(gamma)}).store()
        for name, output in (('results', results), ('series', series)):
            output.base.links.add_incoming(node, LinkType.RETURN, name)
        return node

    process = campaign(convergence={'gamma': 1500.0, 'gamma_quantile': 1.0})
    process.ctx.round = 1
    process.judge_walks({'calm': walk(0.5, 1400.0), 'wild': walk(0.5, 1600.0)})
    assert not process.ctx.passed
    assert process.has_halted()
    assert process.explain_open() == (
        "of walker 'wild', which ran to its end, gamma is 1.6e+03 at its quantile 1 (limit 1500)"
    )
    process.judge_walks({'calm': walk(0.5, 1400.0)})
    assert process.ctx.passed
    assert not process.has_halted()
