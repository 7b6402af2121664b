"""What a user reads of the jobs of a campaign; following one to its end is tried by the quickstart."""

import random
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from aiida.common.datastructures import CalcJobState
from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, Log, WorkChainNode, load_node
from aiida.schedulers import JobState
from aiida.tools import delete_nodes
from aiida.tools.archive import create_archive, import_archive

from aiida_oodal.operations.daemon import find_daemon_processes
from aiida_oodal.operations.follow import describe_activity, follow


@pytest.fixture
def campaign(aiida_profile):
    node = WorkChainNode().store()
    node.set_process_state('waiting')
    yield node
    node.set_process_state('killed')
    node.seal()


@pytest.fixture
def job(campaign, localhost, tmp_path):
    node = CalcJobNode(computer=localhost)
    node.set_options({'output_filename': 'md.out', 'resources': {'num_machines': 1}})
    node.base.links.add_incoming(campaign, LinkType.CALL_CALC, 'explore_2_hot')
    node.store()
    node.set_process_state('waiting')
    node.set_remote_workdir(str(tmp_path))
    yield node
    node.unpause()
    node.set_process_state('killed')
    node.seal()


def test_without_jobs_the_daemon_is_at_work(campaign, started_daemon_client):
    assert describe_activity(campaign) == 'the daemon is taking the next step'


def test_without_a_daemon_nobody_is_at_work(campaign, stopped_daemon_client):
    psutil.wait_procs(find_daemon_processes(), timeout=60)  # its last process ends a moment later
    assert describe_activity(campaign) == 'no daemon is running: `verdi daemon start` lets it go on'


def test_a_paused_campaign_says_why_and_what_lets_it_go_on(campaign, job):
    campaign.set_process_status('Paused by a colleague')
    campaign.pause()
    said = describe_activity(campaign)
    campaign.unpause()
    assert said.endswith(
        f'<{campaign.pk}> is paused (Paused by a colleague): `verdi process play {campaign.pk}` lets it go on'
    )
    assert 'daemon' not in said


def test_a_paused_step_of_a_campaign_is_named(campaign):
    step = WorkChainNode()
    step.base.links.add_incoming(campaign, LinkType.CALL_WORK, 'explore_3_hot')
    step.store()
    step.set_process_state('waiting')
    step.pause()
    said = describe_activity(campaign)
    step.unpause()
    step.set_process_state('killed')
    step.seal()
    assert (
        said
        == f'explore 3 hot: {step.process_label}<{step.pk}> is paused: `verdi process play {step.pk}` lets it go on'
    )


def test_a_job_is_followed_from_the_daemon_to_its_output(campaign, job, tmp_path):
    assert describe_activity(campaign) == 'explore 2 hot: waits for a worker'
    job.set_state(CalcJobState.UPLOADING)
    assert describe_activity(campaign) == 'explore 2 hot: uploading'
    job.set_state(CalcJobState.WITHSCHEDULER)
    assert describe_activity(campaign) == 'explore 2 hot: submitted'
    job.set_scheduler_state(JobState.QUEUED)
    assert describe_activity(campaign) == 'explore 2 hot: queued'
    (tmp_path / 'md.out').write_text('begin\n step 700: temperature 300.0 K\n =-----=\n\n')
    assert describe_activity(campaign) == 'explore 2 hot: step 700: temperature 300.0 K'


def test_jobs_of_one_name_are_counted(campaign, localhost):
    label = WorkChainNode()
    label.base.links.add_incoming(campaign, LinkType.CALL_WORK, 'label_1')
    label.store()
    label.set_process_state('waiting')
    nodes = [label]
    for key in ('one', 'two'):
        scf = WorkChainNode()
        scf.base.links.add_incoming(label, LinkType.CALL_WORK, key)
        scf.store()
        scf.set_process_state('waiting')
        job = CalcJobNode(computer=localhost)
        job.set_options({'output_filename': 'pw.out', 'resources': {'num_machines': 1}})
        job.base.links.add_incoming(scf, LinkType.CALL_CALC, 'iteration_01')
        job.store()
        job.set_process_state('waiting')
        nodes += [scf, job]
    try:
        said = 'label 1, iteration 01: 2 of them, the oldest: waits for a worker'
        assert describe_activity(campaign) == said
    finally:
        for node in reversed(nodes):
            node.set_process_state('killed')
            node.seal()


def test_several_jobs_of_one_step_are_told_apart(campaign, localhost):
    training = WorkChainNode()
    training.base.links.add_incoming(campaign, LinkType.CALL_WORK, 'train_1')
    training.store()
    training.set_process_state('waiting')
    seeds = []
    for name in ('train_w1', 'train_w2'):
        seeds.append(CalcJobNode(computer=localhost))
        seeds[-1].set_options({'output_filename': 'engine.out', 'resources': {'num_machines': 1}})
        seeds[-1].base.links.add_incoming(training, LinkType.CALL_CALC, name)
        seeds[-1].store()
        seeds[-1].set_process_state('waiting')
    try:
        said = 'train 1, train w1: waits for a worker;  train 1, train w2: waits for a worker'
        assert describe_activity(campaign) == said
    finally:
        for node in (*seeds, training):
            node.set_process_state('killed')
            node.seal()


def test_a_paused_job_says_so_though_it_has_output(campaign, job, tmp_path):
    (tmp_path / 'md.out').write_text('step 700: temperature 300.0 K\n')
    job.pause()
    assert describe_activity(campaign) == 'explore 2 hot: paused, `aiida-oodal doctor` says why'


@pytest.fixture
def reported(aiida_profile):
    """Return a process that ended, with forty reports; as after an import, their PKs are in no order."""
    node = WorkChainNode().store()
    node.set_process_state('killed')
    node.seal()
    times = [datetime(2026, 11, 1, 12, tzinfo=UTC) + timedelta(seconds=i) for i in range(40)]
    for time in random.Random(1).sample(times, len(times)):
        Log(time, 'aiida', 'REPORT', node.pk, f'[1|Campaign|step]: second {(time - times[0]).seconds}').store()
    return node


def test_reports_come_in_the_order_of_their_time(reported):
    (reports,) = follow(reported, poll_seconds=0)
    assert reports == [f'second {i}' for i in range(40)]


@pytest.mark.filterwarnings('ignore:Object of type <DbGroup> not in session')  # AiiDA's import
def test_reports_come_in_the_order_of_their_time_from_an_archive(reported, tmp_path):
    create_archive([reported], filename=tmp_path / 'a.aiida')
    delete_nodes([reported.pk], dry_run=False)
    import_archive(tmp_path / 'a.aiida')
    (reports,) = follow(load_node(reported.uuid), poll_seconds=0)
    assert reports == [f'second {i}' for i in range(40)]


def test_each_report_comes_once_and_the_last_after_the_end(campaign):
    looks = follow(campaign, poll_seconds=0)
    assert next(looks) == []
    campaign.logger.report('[1|Campaign|step]: one')
    campaign.logger.report('[1|Campaign|step]: two: three')
    assert next(looks) == ['one', 'two: three']
    assert next(looks) == []
    campaign.logger.report('[1|Campaign|step]: last')
    campaign.set_process_state('killed')
    assert list(looks) == [['last']]
