"""Killed with -9 in mid-campaign: one worker, all workers, circus, the broker. Nothing is lost, nothing is repeated."""

import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

SCRIPT = Path(__file__).parents[1] / 'workchains' / 'small_campaign.py'


ENDED = "select count(*) from db_dbnode where label = 'small: campaign' and json_extract(attributes, '$.sealed')"
JOBS_WITHOUT_FOLDER = (
    "select count(*) from db_dbnode where node_type like 'process.calculation.calcjob%' and "
    "json_extract(attributes, '$.exit_status') = 0 and not exists "
    "(select * from db_dblink where input_id = db_dbnode.id and label = 'remote_folder')"
)
LEFT_BEHIND = "select count(*) from db_dbnode where json_extract(attributes, '$.process_status') like 'ended by its%'"


def kill(processes):
    assert processes
    for process in processes:
        process.kill()


def launch(home):
    home.run('aiida-oodal', 'setup', 'profile')
    home.run('aiida-oodal', 'setup', 'computer', '--preset', 'local', '--venv', sys.prefix, '--poll-interval', '0.5',
             '--work-dir', str(home.folder / 'run'))  # fmt: skip
    home.run('verdi', 'daemon', 'start', '2')
    home.run('verdi', 'run', str(SCRIPT))


def check(home, undisturbed):
    """The campaign completes, and what was done is what is done where nobody is killed."""
    home.wait_for_end('the campaign ends', ENDED)
    found = home.ask_campaign()
    assert found['ok'], found['message']
    assert found['left'] == []
    assert len(found['labelled']) == len(set(found['labelled'])) > 0
    assert found['calls'] == undisturbed()


@pytest.mark.timeout(1800)  # several campaigns, each minutes on a busy machine
def test_whatever_is_killed_the_campaign_completes_and_nothing_is_done_twice(home, undisturbed):
    launch(home)

    # Workers that die are started again by circus; what they had in hand goes back to the broker.
    home.wait_until(lambda: home.is_underway('train_0'), 'the first potential is being fitted')
    workers = home.processes('daemon', 'worker')
    assert len(workers) == 2
    kill(workers[:1])
    home.wait_until(lambda: len(home.processes('daemon', 'worker')) == 2, 'the worker is back')

    home.wait_under_cron(lambda: home.is_underway('explore_1_warm'), 'walkers are out')
    kill(home.processes('daemon', 'worker'))
    home.wait_until(lambda: len(home.processes('daemon', 'worker')) == 2, 'the workers are back')

    home.wait_under_cron(lambda: home.is_underway('label_1'), 'clusters are being labelled')
    kill(home.processes('daemon', 'start-circus'))
    said = home.run('aiida-oodal', 'doctor', expect=1)
    assert 'BAD daemon     is dead, and left the processes' in said
    assert 'mend it: aiida-oodal doctor --fix' in said
    assert 'all is well' in home.run('aiida-oodal', 'doctor', '--fix')

    # The hole of AiiDA 2.9: circus starts the broker again, at an address that the workers never learn.
    home.wait_under_cron(lambda: home.is_underway('explore_2_warm'), 'walkers are out again')
    kill(home.processes('daemon', 'broker'))
    home.wait_until(lambda: home.processes('daemon', 'broker'), 'the broker is back')
    said = home.run('aiida-oodal', 'doctor', expect=1)
    assert 'BAD broker     ZeroMQ is dead' in said or '0 of 2 workers listen to it' in said
    assert 'all is well' in home.run('aiida-oodal', 'doctor', '--fix')

    check(home, undisturbed)


#: A worker that ends as by ``kill -9`` when it has stored a child: before the broker hears of it, after that, in turns;
#: and when it has noted that a job is uploaded, but not yet its folder.
DEADLY = """
import os, signal, sys, time
if sys.orig_argv[-2:] == ['daemon', 'worker']:
    from pathlib import Path
    from plumpy.process_comms import RemoteProcessThreadController
    marks = Path(__file__).parent / 'marks'
    hand_on = RemoteProcessThreadController.continue_process
    def continue_process(*arguments, **options):
        marks.mkdir(exist_ok=True)
        number = len(list(marks.iterdir()))
        if number < 10:
            (marks / str(number)).touch()
        if number < 10 and number % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = hand_on(*arguments, **options)
        if number < 10:
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    RemoteProcessThreadController.continue_process = continue_process

    from aiida.common.datastructures import CalcJobState
    from aiida.orm import CalcJobNode
    uploads = Path(__file__).parent / 'uploads'
    set_state = CalcJobNode.set_state
    def set_state_and_die(self, state):
        set_state(self, state)
        uploads.mkdir(exist_ok=True)
        number = len(list(uploads.iterdir()))
        if state is CalcJobState.UNSTASHING and number < 3:
            (uploads / str(number)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    CalcJobNode.set_state = set_state_and_die
"""


@pytest.mark.timeout(1800)
def test_workers_are_killed_when_they_have_stored_a_process(home, undisturbed):
    """The worst moment: its caller has not noted it, and nobody can tell whether the broker has heard of it."""
    deadly = home.folder / 'deadly'
    deadly.mkdir()
    (deadly / 'sitecustomize.py').write_text(DEADLY)
    home.environment['PYTHONPATH'] = str(deadly)
    launch(home)
    check(home, undisturbed)
    assert len(list((deadly / 'marks').iterdir())) == 10
    assert len(list((deadly / 'uploads').iterdir())) == 3
    assert home.count(JOBS_WITHOUT_FOLDER) == 0
    # Those of which the broker had not heard, and perhaps others that no worker had begun.
    assert home.count(LEFT_BEHIND) >= 5
