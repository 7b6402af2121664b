"""What a user reads of the jobs of a campaign; following one to its end is tried by the quickstart."""

import pytest
from aiida.common.datastructures import CalcJobState
from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, WorkChainNode
from aiida.schedulers import JobState

from aiida_oodal.cli.watch import describe_activity


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


def test_without_jobs_the_daemon_is_at_work(campaign):
    assert describe_activity(campaign) == 'the daemon is taking the next step'


def test_a_job_is_followed_from_the_daemon_to_its_output(campaign, job, tmp_path):
    assert describe_activity(campaign) == 'explore 2 hot: waits for a worker'
    job.set_state(CalcJobState.UPLOADING)
    assert describe_activity(campaign) == 'explore 2 hot: uploading'
    job.set_state(CalcJobState.WITHSCHEDULER)
    assert describe_activity(campaign) == 'explore 2 hot: submitted'
    job.set_scheduler_state(JobState.QUEUED)
    assert describe_activity(campaign) == 'explore 2 hot: queued'
    (tmp_path / 'md.out').write_text('begin\nstep 700: temperature 300.0 K\n')
    assert describe_activity(campaign) == 'explore 2 hot: step 700: temperature 300.0 K'


def test_a_paused_job_says_so_though_it_has_output(campaign, job, tmp_path):
    (tmp_path / 'md.out').write_text('step 700: temperature 300.0 K\n')
    job.pause()
    assert describe_activity(campaign) == 'explore 2 hot: paused, `aiida-oodal doctor` says why'
