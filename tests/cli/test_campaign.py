"""The commands on whole campaigns, and what a campaign that goes on begins with."""

import subprocess
import sys

import ase.io
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState, run_get_node
from ase.build import bulk
from click.testing import CliRunner
from toys import ToyLabelWorkChain, ToyTrainWorkChain

from aiida_oodal.cli import main
from aiida_oodal.cli.campaign import campaign as group
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.campaign.control import ask_to_stop
from aiida_oodal.operations.campaign.extend import build_extension
from aiida_oodal.operations.campaign.status import read_status
from aiida_oodal.queue import enqueue
from aiida_oodal.report.campaign.left import read_left
from aiida_oodal.workchains.calls import CAMPAIGN, CAMPAIGN_NAME, STOP
from aiida_oodal.workchains.campaign import CampaignWorkChain


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, ['campaign', *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return ' '.join(result.output.split())


def make_node(state, exit_status=None):
    """Return the node of a campaign that was begun by another version."""
    node = orm.WorkChainNode(process_type=CampaignWorkChain.build_process_type())
    node.set_process_label('CampaignWorkChain')
    node.store()
    node.set_process_state(state)
    if exit_status is not None:
        node.set_exit_status(exit_status)
    return node


def test_settings_of_walkers_are_filled_and_their_schedules_left_alone(aiida_profile):
    node = orm.WorkChainNode(process_type=CampaignWorkChain.build_process_type())
    node.set_process_label('CampaignWorkChain')
    inputs = {
        'max_rounds': orm.Int(3),
        'walkers__hot__settings': orm.Dict({'temperature': 300, 'steps': 70}),
        'walkers__hot__schedule': orm.List([{'steps': 80}, {'steps': 90}]),
    }
    for label, data in inputs.items():
        node.base.links.add_incoming(data.store(), LinkType.INPUT_WORK, label)
    node.store().set_process_state(ProcessState.KILLED)
    given, whole = invoke('compare', node.pk), invoke('compare', node.pk, '--all')
    for said in (given, whole):
        assert 'walkers.hot.steps 70' in said
        assert 'walkers.hot.schedule' in said
    assert 'walkers.hot.timestep_ps 0.001' in whole
    assert 'walkers.hot.timestep_ps' not in given


class StoppingTrainWorkChain(ToyTrainWorkChain):
    """Asks its campaign to stop as soon as the first round has taught something."""

    def train(self):
        super().train()
        if {'start', 'round_1'} <= set(self.inputs.labels) and 'initial_start' not in self.inputs.labels:
            ask_to_stop(self.node.caller, 'that is enough')


@pytest.fixture
def crystal():
    return StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)])


@pytest.fixture
def stopped(entry_points, engine_code, localhost, crystal):
    """Return a campaign that was asked to stop in its first round."""
    entry_points.add(ToyLabelWorkChain, 'aiida.workflows:oodal.label.toy')
    entry_points.add(StoppingTrainWorkChain, 'aiida.workflows:oodal.train.stopping')
    builder = CampaignWorkChain.get_builder_from_protocol(
        code=engine_code,
        computer=localhost,
        labeller='oodal.label.toy',
        trainer='oodal.train.stopping',
        protocol='quick',
        initial_structures=crystal,
        walkers={'hot': {'structure': crystal, 'settings': {'temperature': 3000, 'steps': 400}}},
        overrides={
            'label': {'stiffness': 0.125},
            'thresholds': {'gamma_select': 1.9, 'gamma_ceiling': 1e4},
            'select': {'max_clusters': 1},
        },
        options={'max_wallclock_seconds': 1234},
    )
    builder.metadata.label = 'to be stopped'
    return run_get_node(builder)[1]


def check_that_a_walker_can_be_added(campaign, crystal, folder):
    ase.io.write(folder / 'slab.extxyz', crystal.get_atoms(0))
    command = ['extend', campaign.pk, '--dry-run', '--walker', f'slab={folder / "slab.extxyz"}']
    assert 'It begins with' in invoke(*command, '--set', 'walkers.slab.temperature=600')
    assert 'slab.cif does not exist' in invoke('extend', campaign.pk, '--dry-run', '--walker', 'slab=slab.cif', code=1)
    assert 'write it as NAME=FILE' in invoke('extend', campaign.pk, '--dry-run', '--walker', 'slab.cif', code=1)
    assert "walkers: 'slab' is not known" in invoke(
        'extend', campaign.pk, '--dry-run', '--set', 'walkers.slab.temperature=600', code=1
    )
    walkers = build_extension(campaign, {'walkers': {'slab': {'structure': crystal, 'temperature': 600}}}).walkers
    assert set(walkers) == {'hot', 'slab'}
    assert walkers['slab']['structure'].uuid == crystal.uuid
    of_the_other = campaign.inputs.walkers.hot.settings.get_dict()
    assert walkers['slab']['settings'].get_dict() == of_the_other | {'temperature': 600}
    assert walkers['hot']['settings'].get_dict() == of_the_other


def test_one_that_was_stopped_keeps_all_and_another_goes_on_with_it(
    stopped, crystal, localhost, aiida_profile, tmp_path
):
    assert stopped.exit_status == 504
    assert stopped.exit_message.startswith('stopped after round 1, because somebody asked for it (that is enough): ')
    assert f'`aiida-oodal campaign extend {stopped.pk}`' in stopped.exit_message
    assert set(stopped.outputs.labels) == {'start', 'round_1'}

    left = read_left(stopped)
    assert {name: node.uuid for name, node in left.labels.items()} == {
        name: node.uuid for name, node in stopped.outputs.labels.items()
    }
    assert left.learned['potential'].uuid == stopped.outputs.potential.uuid
    assert (left.is_behind, left.waiting) == (False, {})

    says = invoke('extend', stopped.pk, '--dry-run', '--rounds', 3, '--set', 'md.steps=500')
    n_labels = sum(node.n_structures for node in left.labels.values())
    assert f'{n_labels} labelled structures, the last potential; at most 3 rounds' in says
    shown = invoke('status', stopped.pk)
    assert 'round 1 of at most 12' in shown
    assert f'queue {n_labels} LABELLED' in shown
    assert 'hot: UNCERTAIN' in shown
    assert f'`aiida-oodal campaign extend {stopped.pk}` goes on' in shown
    listed = invoke('list', '-n', '1')
    assert f'{stopped.pk} to be stopped ended [504] 1' in listed
    check_that_a_status_waits_for_aiida_only(stopped, aiida_profile)

    check_that_a_walker_can_be_added(stopped, crystal, tmp_path)

    # one that it had asked for, and that nobody has labelled
    waiting = orm.StructureData(ase=bulk('Al', a=4.3, cubic=True)).store()
    level = ToyLabelWorkChain.get_level(stopped.inputs.label['inputs'])
    key = enqueue([waiting], level, campaign=stopped.uuid)[waiting.uuid].key
    changes = {'thresholds': {'gamma_break': 6.0}, 'walkers': {'hot': {'steps': 300}}, 'md': {'temperature': 2000}}
    builder = build_extension(stopped, changes, rounds=1)
    assert builder.md.metadata.options['max_wallclock_seconds'] == 1234
    assert builder.md.metadata.computer.uuid == localhost.uuid
    assert builder.thresholds.get_dict() == {'gamma_select': 1.9, 'gamma_ceiling': 1e4, 'gamma_break': 6.0}
    assert {name: builder.walkers['hot']['settings'][name] for name in ('steps', 'temperature', 'ensemble')} == {
        'steps': 300,
        'temperature': 2000,
        'ensemble': 'npt',
    }
    extension = run_get_node(builder)[1]
    assert extension.exit_status == 501, extension.exit_message
    assert 'the budget is spent (1 of 1 rounds)' in extension.exit_message
    calls = extension.base.links.get_outgoing().all_link_labels()
    assert 'label_0' in calls
    first = extension.base.links.get_outgoing(link_label_filter='label_0').one().node
    assert list(first.inputs.clusters) == [key]
    training = extension.base.links.get_outgoing(link_label_filter='train_0').one().node
    assert set(training.inputs.labels) == {'initial_start', 'initial_round_1', 'start'}
    assert training.inputs.learned.potential.uuid == stopped.outputs.potential.uuid
    shown = invoke('compare', stopped.pk, extension.pk)
    assert f'campaign {stopped.pk} {extension.pk}' in shown
    assert 'force RMSE [meV/Å]' in shown or not any(read_status(stopped).force_rmse)
    assert 'max_rounds 12 1' in shown
    assert 'walkers.hot.steps 400 300' in shown
    assert 'thresholds.gamma_break 5.0 6.0' in shown  # 5 is the default
    assert 'thresholds.gamma_ceiling' not in shown
    # and one that goes on from that does not take a name twice
    again = build_extension(extension, rounds=1)
    assert len(again.initial.labels) == len(read_left(extension).labels) + 2


def test_what_cannot_be_extended_is_refused_with_a_way_out():
    running = make_node(ProcessState.RUNNING)
    with pytest.raises(OodalError, match=rf'has not ended: `aiida-oodal campaign stop {running.pk}`'):
        build_extension(running)
    running.set_process_state(ProcessState.KILLED)  # else others take it for active
    healed = make_node(ProcessState.FINISHED, 0)
    with pytest.raises(OodalError, match='has converged: say what is to be different, such as --set'):
        build_extension(healed)
    killed = make_node(ProcessState.KILLED)
    with pytest.raises(OodalError, match='begun by a version that did not keep computers and options'):
        build_extension(killed)


def test_a_campaign_is_known_by_the_names_that_looks_use():
    assert (CampaignWorkChain.build_process_type(), CampaignWorkChain.get_name()) == (CAMPAIGN, CAMPAIGN_NAME)


def check_that_a_status_waits_for_aiida_only(campaign, profile):
    heavy = ['ase', 'scipy', 'plotly', 'rich', 'aiida_oodal.data', 'aiida_oodal.calculations.explained']
    code = (
        'import sys\nfrom aiida_oodal.cli import main\n'
        f"main(['campaign', 'status', '{campaign.pk}', '-p', '{profile.name}'], standalone_mode=False)\n"
        f'print([name for name in {heavy!r} if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == '[]', done.stderr
    assert 'round       1 of at most 12' in done.stdout
    assert 'hot: UNCERTAIN at step ' in done.stdout


def test_of_one_campaign_all_settings_are_shown(campaign):
    assert 'give each campaign once' in invoke('compare', campaign.pk, campaign.pk, code=1)
    given = invoke('compare', campaign.pk)
    whole = invoke('compare', campaign.pk, '--all')
    assert 'guard.tolerance 1.2' in whole
    assert 'guard.tolerance' not in given
    shown = invoke('compare', campaign.pk)
    assert 'max_rounds' in shown
    assert 'the same in all' not in shown


def test_stop_pause_and_resume_want_one_that_runs():
    ended = make_node(ProcessState.KILLED)
    for command in ('stop', 'pause', 'resume'):
        assert f'aiida-oodal campaign extend {ended.pk}' in invoke(command, ended.pk, code=1)
    running = make_node(ProcessState.RUNNING)
    invoke('stop', running.pk, '--reason', 'it is late')
    assert running.base.extras.get(STOP) == 'it is late'
    invoke('resume', running.pk)
    assert STOP not in running.base.extras.all
    running.set_process_state(ProcessState.KILLED)  # else others take it for active


def test_without_a_daemon_nobody_can_be_told_to_pause(stopped_daemon_client):
    running = make_node(ProcessState.RUNNING)
    said = invoke('pause', running.pk, code=1)
    assert (
        f'CampaignWorkChain<{running.pk}> has not ended: no daemon is running. Start it with `verdi daemon start'
        in said
    )
    running.set_process_state(ProcessState.KILLED)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('gamma_break=8', 'write it as NAME=VALUE, such as thresholds.gamma_break=8'),
        ('thresholds.gamma_break', 'write it as NAME=VALUE'),
        ('thresholds.gamma_break=[', 'is not YAML'),
    ],
)
def test_settings_that_cannot_be_read_are_named(text, message):
    ended = make_node(ProcessState.KILLED)
    assert message in invoke('extend', ended.pk, '--set', text, code=1)


def test_a_value_has_no_names_below_it():
    ended = make_node(ProcessState.KILLED)
    said = invoke('extend', ended.pk, '--set', 'md.steps=5', '--set', 'md.steps.most=5', code=1)
    assert '--set md.steps.most=5: steps was set to 5 before' in said


@pytest.mark.parametrize('name', sorted(set(group.commands) - {'watch', 'report'}))
def test_every_help_has_an_example_of_this_command(name):
    assert f'aiida-oodal campaign {name} ' in invoke(name, '--help')
