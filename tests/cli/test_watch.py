"""What a user reads of a campaign that was killed; following one to its end is tried by the quickstart."""

import runpy
import subprocess
import time
from io import StringIO
from pathlib import Path

import pytest
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from aiida.orm import Dict, Str, WorkChainNode
from ase.build import bulk
from rich.console import Console

from aiida_oodal.cli.watch import rounds_table, show_rounds
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.operations.campaign.control import pause_campaign, resume_campaign
from aiida_oodal.operations.campaign.extend import build_extension
from aiida_oodal.operations.launch import submit_process
from aiida_oodal.operations.processes import find_active
from aiida_oodal.report import read_history, write_report

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'
SCRIPT = Path(__file__).parents[1] / 'workchains' / 'small_campaign.py'


def shown(history):
    console = Console(file=StringIO(), width=120)
    console.print(rounds_table(history))
    return console.file.getvalue()


def process(caller, call, state, inputs=None, **results):
    """Return a process that somebody called and that ended in a state."""
    node = WorkChainNode()
    for name, given in (inputs or {}).items():
        node.base.links.add_incoming(given, LinkType.INPUT_WORK, name)
    node.base.links.add_incoming(caller, LinkType.CALL_WORK, call)
    node.store()
    node.set_process_state(state)
    for name, output in results.items():
        output.store().base.links.add_incoming(node, LinkType.RETURN, name)
    return node


def labelled(a):
    crystal = bulk('Al', a=a)
    crystal.info['queue_key'] = f'q{a}'
    return crystal


@pytest.fixture
def killed():
    """Return a campaign that was killed, with walkers that ended in every way."""
    campaign = WorkChainNode()
    crystal = StructureSetData([bulk('Al', a=4.0, cubic=True)]).store()
    for name in ('one', 'two', 'three', 'four', 'five'):
        campaign.base.links.add_incoming(crystal, LinkType.INPUT_WORK, f'walkers__{name}__structure')
    campaign.base.links.add_incoming(crystal, LinkType.INPUT_WORK, 'initial__structures')
    for stage, workflow in (('label', 'oodal.label.ase'), ('train', 'oodal.train.ace')):
        campaign.base.links.add_incoming(Str(workflow).store(), LinkType.INPUT_WORK, f'{stage}__workflow')
    settings = Dict({'max_functions': 30}).store()
    campaign.base.links.add_incoming(settings, LinkType.INPUT_WORK, 'train__inputs__settings')
    campaign.store()
    driven = {'md__potential': AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi').store()}
    process(campaign, 'explore_1_one', ProcessState.KILLED, driven)
    process(process(campaign, 'explore_1_two', ProcessState.FINISHED, driven), 'md', ProcessState.KILLED)
    process(process(campaign, 'explore_1_three', ProcessState.FINISHED, driven), 'md', ProcessState.FINISHED)
    done = Dict({'outcome': 'COMPLETED', 'message': '', 'last_step': 10, 'max_gamma': 1.0})
    process(process(campaign, 'explore_1_four', ProcessState.FINISHED, driven, results=done), 'md', ProcessState.KILLED)
    campaign.set_process_state(ProcessState.KILLED)
    return campaign


def test_only_what_failed_is_called_failed(killed, tmp_path):
    rows = [line.split('│')[3:5] for line in shown(read_history(killed)).splitlines() if line.startswith('│')]
    assert {tuple(cell.strip() for cell in row) for row in rows} == {
        ('one', 'KILLED'),
        ('two', 'KILLED'),
        ('three', 'FAILED'),
        ('four', 'COMPLETED'),
        ('five', 'not started'),
    }
    page = write_report(killed, tmp_path / 'report.html').read_text()
    assert page.count('<td>KILLED</td>') == 2
    assert page.count('<td>FAILED</td>') == 1


def test_what_a_killed_campaign_left_is_named(killed, tmp_path, capsys):
    """Nothing can be attached to it any more, and nothing is lost."""
    show_rounds(read_history(killed))
    assert 'It ended before anything was labelled or learned.' in capsys.readouterr().out
    killed.set_process_state(ProcessState.RUNNING)
    nodes = {name: StructureSetData([labelled(a)]) for name, a in (('label_0', 4.0), ('label_1', 4.1))}
    cluster = {'clusters__q1': killed.inputs.initial.structures}
    for call, labels in nodes.items():
        process(killed, call, ProcessState.FINISHED, cluster, labels=labels)
    potential = AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi')
    process(killed, 'train_0', ProcessState.FINISHED, learned__potential=potential)
    process(killed, 'train_1', ProcessState.KILLED)
    assert read_history(killed).left == ''  # it runs
    killed.set_process_state(ProcessState.KILLED)
    left = read_history(killed).left
    assert left == (
        f'It has no outputs, but nothing is lost: there are the labels StructureSetData<{nodes["label_0"].pk}>, '
        f'StructureSetData<{nodes["label_1"].pk}> and the last potential AcePotentialData<{potential.pk}>. '
        f'`aiida-oodal campaign extend {killed.pk}` goes on with them in a new campaign; one of your own takes them as '
        '`initial_labels` (by any key) and as `initial_potential` or `initial_ensemble`.'
    )
    show_rounds(read_history(killed))
    assert left in capsys.readouterr().out
    assert f'AcePotentialData&lt;{potential.pk}&gt;' in write_report(killed, tmp_path / 'report.html').read_text()


@pytest.mark.slow
@pytest.mark.daemon
def test_walkers_of_a_killed_campaign_did_not_fail(campaign, started_daemon_client, aiida_profile):
    node = submit_process(runpy.run_path(str(SCRIPT))['build_campaign']())
    end = time.monotonic() + 600
    while 'ExploreWorkChain' not in {p.process_label for p in find_active() if p.caller and p.caller.pk == node.pk}:
        assert time.monotonic() < end, node.process_state
        time.sleep(0.2)
    # one that is paused begins nothing new; its jobs are left alone, as AiiDA cannot let them go on
    paused = pause_campaign(node)
    assert node.pk in {process.pk for process in paused}
    assert {type(process) for process in paused} == {WorkChainNode}
    assert node.paused
    assert {process.pk for process in resume_campaign(node)[0]} <= {process.pk for process in paused}
    assert not node.paused
    verdi = ['verdi', '-p', aiida_profile.name, 'process', 'kill', '--timeout', '60', str(node.pk)]
    done = subprocess.run(verdi, capture_output=True, text=True, check=False)
    while not node.is_terminated:
        assert time.monotonic() < end, done.stdout + done.stderr
        time.sleep(0.2)
    assert node.is_killed
    table = shown(read_history(node))
    assert 'KILLED' in table
    assert 'FAILED' not in table
    # and another campaign goes on with what it has labelled and learned
    training = node.base.links.get_outgoing(link_label_filter='train_0').one().node
    initial = build_extension(node)._inputs(prune=True)['initial']
    assert initial['potential'].uuid == training.outputs.learned.potential.uuid
    assert [labels.uuid for labels in initial['labels'].values()] == [
        labels.uuid for labels in training.inputs.labels.values()
    ]
    assert not initial['train'].value
    assert not {'structures', 'clusters'} & set(initial)
