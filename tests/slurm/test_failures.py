"""Everything that Slurm does to a job ends in a stated outcome."""

from pathlib import Path

import pytest
from aiida.engine import submit
from aiida.orm import Computer, QueryBuilder

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.computers import make_computer
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


@pytest.fixture
def fail_node(slurm, wait_until):
    """Return a function that sets the node down until a job that ran on it is noticed to be lost."""

    def fail(node):
        slurm('scontrol', 'update', 'nodename=localhost', 'state=down', 'reason=test')
        try:
            wait_until(lambda: node.is_terminated, 'the lost job is noticed')
        finally:
            slurm('scontrol', 'update', 'nodename=localhost', 'state=resume')

    return fail


def test_md_that_the_machine_ends_is_run_again_however_little_it_left(md_builder, wait_until, job_of, slurm, fail_node):
    """Lost while it waits, and where Slurm calls it running but its script may not have begun: nobody says why."""
    md = md_builder(steps=20, prepend_text='sleep 5', custom_scheduler_commands='#SBATCH --hold')
    node = submit(MdBaseWorkChain, md=md._inputs(prune=True))

    def held(number):
        run = wait_until(lambda: len(node.called) > number and node.called[number], f'MD {number} is there')
        return run, wait_until(run.get_job_id, f'{run} waits in the queue')

    first, job = held(0)
    slurm('scancel', job)
    second, job = held(1)
    slurm('scontrol', 'release', job)
    job_of(second)
    fail_node(second)
    _, job = held(2)
    slurm('scontrol', 'release', job)
    wait_until(lambda: node.is_terminated, f'{node} ends')
    assert node.is_finished_ok, node.exit_message
    assert node.outputs.results['last_step'] == 20
    assert first.exit_status == 146, first.exit_message
    assert 'before its script began' in first.exit_message
    assert f'job {first.get_job_id()}' in first.exit_message
    assert second.exit_status in (140, 146), second.exit_message
    assert [call.is_finished_ok for call in node.called] == [False, False, True]


def test_a_node_that_fails_under_other_jobs(label_builder, wait_until, started, fail_node):
    node = submit(label_builder(prepend_text=SLEEPS))
    started(node)
    fail_node(node)
    assert node.exit_status == 140, node.exit_message
    assert 'Submit the job again' in node.exit_message


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
    eats = """python3 -c 'import time; eaten = bytearray(400_000_000); time.sleep(100)'"""
    node = submit(label_builder(prepend_text=eats, max_memory_kb=100 * 1024))
    wait_until(lambda: node.is_terminated, f'{node} ends')
    assert node.exit_status == 110, node.exit_message
    assert '100 MB' in node.exit_message
    assert '`max_memory_kb`' in node.exit_message


@pytest.mark.parametrize('end', ['it is done', 'it is cancelled'])
def test_a_job_that_was_submitted_twice_ends_with_the_first(label_builder, wait_until, job_of, slurm, end):
    """As after a worker that was killed before it knew the number of the first."""
    work = 'echo "$SLURM_JOB_ID" >> workers; until [ -e go ]; do sleep 0.1; done'
    node = submit(label_builder(prepend_text=work, custom_scheduler_commands='#SBATCH --hold'))
    known = wait_until(node.get_job_id, f'{node} waits in the queue')
    folder = Path(node.get_remote_workdir())
    first = slurm('sbatch', '--parsable', f'--chdir={folder}', str(folder / '_aiidasubmit.sh')).strip()
    slurm('scontrol', 'release', first)
    wait_until((folder / 'workers').exists, 'the first works')
    slurm('scontrol', 'release', known)
    job_of(node)
    if end == 'it is done':
        (folder / 'go').touch()
    else:
        slurm('scancel', first)
    wait_until(lambda: node.is_terminated, f'{node} ends')
    assert node.exit_status == (0 if end == 'it is done' else 146), node.exit_message
    assert (folder / 'workers').read_text().split() == [first]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'queue_name': 'a10'}, "no partition 'a10'; there are a100, h200"),
        ({'max_memory_kb': 2 * 1024**3}, 'asks for 2097152 MB, nodes of partition .a100. have 1048576 MB'),
        ({'max_wallclock_seconds': 10**6}, 'over the limit of partition .a100., 604800 s'),
        ({'custom_scheduler_commands': '#SBATCH --gres=gpu:v100:1'}, 'have no gpu:v100, but gpu:a100, gpu:h200'),
    ],
)
def test_options_that_slurm_would_refuse_are_refused_at_submission(daemon, label_builder, options, message):
    with pytest.raises(ValueError, match=message):
        submit(label_builder(**options))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'partition': 'a10'}, "jobs of latents: computer 'refused' has no partition 'a10'; there are a100, h200"),
        ({'memory': '2T'}, 'asks for 2097152 MB'),
        ({'gres': 'gpu:v100:1'}, 'have no gpu:v100'),
        ({'memory': '60M'}, 'max_memory_kb = 61440 is 60 MB, too little for any job'),
    ],
)
def test_a_computer_that_slurm_would_refuse_is_not_left_behind(slurm, computer_settings, changes, message):
    settings = computer_settings.model_copy(update={'label': 'refused', **changes})
    with pytest.raises(OodalError, match=message):
        make_computer('a100-slurm', settings, print)
    assert not QueryBuilder().append(Computer, filters={'label': 'refused'}).count()


def test_cards_that_would_be_held_for_nothing_are_told(slurm, computer_settings):
    said = []
    make_computer('a100-slurm', computer_settings.model_copy(update={'label': 'all-on-cards'}), said.append)
    assert any('need no GPU' in line and '--cpu-partition' in line for line in said)
