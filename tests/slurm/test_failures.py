"""Everything that Slurm does to a job ends in a stated outcome."""

from pathlib import Path

import pytest
from aiida.engine import submit

from aiida_oodal.workchains.md_base import MdBaseWorkChain

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

SLEEPS = 'touch started; sleep 100'


@pytest.fixture
def started(job_of, wait_until):
    """Return a function that waits until the script of a job runs, and returns the id of the job.

    Slurm calls a job running while it still looks for the user's environment; who is cancelled then writes nothing.
    """

    def wait(node):
        job = job_of(node)
        wait_until(lambda: (Path(node.get_remote_workdir()) / 'started').exists(), f'the script of {node} runs')
        return job

    return wait


def test_md_on_a_node_that_fails_is_run_again(md_builder, wait_until, job_of, slurm):
    md = md_builder(steps=400)
    node = submit(MdBaseWorkChain, md=md._inputs(prune=True))
    first = wait_until(lambda: node.called and node.called[0], 'the first MD is there')
    job_of(first)
    slurm('scontrol', 'update', 'nodename=localhost', 'state=down', 'reason=test')
    try:
        wait_until(lambda: first.is_terminated, 'the lost job is noticed')
    finally:
        slurm('scontrol', 'update', 'nodename=localhost', 'state=resume')
    wait_until(lambda: node.is_terminated, f'{node} ends')
    assert node.is_finished_ok, node.exit_message
    assert node.outputs.results['last_step'] == 400
    assert not node.called[0].is_finished_ok
    assert [call.is_finished_ok for call in node.called[1:]] == [True]


def test_a_node_that_fails_under_other_jobs(label_builder, wait_until, started, slurm):
    node = submit(label_builder(prepend_text=SLEEPS))
    started(node)
    slurm('scontrol', 'update', 'nodename=localhost', 'state=down', 'reason=test')
    try:
        wait_until(lambda: node.is_terminated, 'the lost job is noticed')
    finally:
        slurm('scontrol', 'update', 'nodename=localhost', 'state=resume')
    assert node.exit_status == 140, node.exit_message
    assert 'Submit it again' in node.exit_message


def test_a_cancelled_job_says_so(label_builder, wait_until, started, slurm):
    node = submit(label_builder(prepend_text=SLEEPS))
    slurm('scancel', started(node))
    wait_until(lambda: node.is_terminated, f'{node} ends')
    assert node.exit_status == 145, node.exit_message
    assert 'Submit it again if that was not meant' in node.exit_message


def test_a_job_over_its_walltime_says_what_to_change(label_builder, wait_until):
    # Slurm counts in minutes: this takes one.
    node = submit(label_builder(prepend_text='sleep 200', max_wallclock_seconds=5))
    wait_until(lambda: node.is_terminated, f'{node} ends')
    assert node.exit_status == 120, node.exit_message
    assert 'limit of 5 s' in node.exit_message
    assert '`max_wallclock_seconds`' in node.exit_message


def test_a_job_out_of_memory_says_what_to_change(label_builder, wait_until):
    # Captured from a cluster with cgroups, which this one cannot have.
    said = (
        'slurmstepd: error: Detected 1 oom-kill event(s) in StepId=4711.batch. '
        'Some of your processes may have been killed by the cgroup out-of-memory handler.'
    )
    node = submit(label_builder(prepend_text=f'echo "{said}" >&2; kill -9 $$'))
    wait_until(lambda: node.is_terminated, f'{node} ends')
    assert node.exit_status == 110, node.exit_message
    assert '61440 MB' in node.exit_message
    assert '`max_memory_kb`' in node.exit_message


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'queue_name': 'a10'}, "no partition 'a10'; there are a100, h200"),
        ({'max_memory_kb': 2 * 1024**3}, 'asks for 2097152 MB, nodes of partition .a100. have 1048576 MB'),
        ({'max_wallclock_seconds': 10**6}, 'over the limit of partition .a100., 604800 s'),
        ({'custom_scheduler_commands': '#SBATCH --gres=gpu:v100:1'}, 'have no gpu:v100, but gpu:a100, gpu:h200'),
    ],
)
def test_options_that_slurm_would_refuse_are_refused_at_submission(label_builder, options, message):
    with pytest.raises(ValueError, match=message):
        submit(label_builder(**options))
