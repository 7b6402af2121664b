"""The quickstart as its user meets it: a command in a shell, killed in mid-run and called again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

SCRIPT = Path(__file__).parents[1] / 'workchains' / 'small_campaign.py'
ASK = """
from aiida import load_profile, orm
from aiida.common.links import LinkType
load_profile()
from collections import Counter
labels = orm.QueryBuilder().append(orm.ProcessNode, filters={'label': 'small: campaign'}, project='id').all(flat=True)
campaign = orm.load_node(labels[0])
links = campaign.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all()
# What nobody had begun when its caller was killed did nothing, and another took its place.
calls = Counter(link.link_label for link in links if link.node.is_finished)
print(len(labels), campaign.is_finished_ok, max(calls.values()), sum(name.startswith('label') for name in calls))
"""


class Quickstart:
    def __init__(self, folder):
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith('AIIDA')}
        self.command = [str(Path(sys.executable).parent / 'aiida-oodal'), 'quickstart', str(SCRIPT)]
        self.command += ['--folder', str(folder)]
        self.started = []

    def start(self):
        self.started.append(
            subprocess.Popen(
                self.command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        return self.started[-1]

    def run(self):
        return subprocess.run(self.command, env=self.environment, capture_output=True, text=True, check=False)

    def ask(self, code):
        environment = self.environment | {'AIIDA_PATH': str(self.folder)}
        done = subprocess.run(
            [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def processes(self):
        """Return the daemon of this folder and its jobs: circus, workers, broker, engine."""
        found = []
        for process in psutil.process_iter(['environ', 'cwd', 'cmdline']):
            environ = process.info['environ'] or {}
            if environ.get('AIIDA_PATH', '').startswith(str(self.folder)):
                found.append(process)
        return found


def read_until(process, text):
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f'{text!r} was never said:\n{"".join(seen)}')


@pytest.fixture
def quickstart(tmp_path):
    runner = Quickstart(tmp_path / 'home')
    yield runner
    for process in [*runner.started, *runner.processes()]:
        process.kill()
    for process in runner.started:
        process.communicate()


def test_killed_in_mid_run_it_goes_on_and_shows_what_it_found(quickstart):
    first = quickstart.start()
    read_until(first, 'sent out 2 walkers')
    time.sleep(1)
    # The broker alone: the daemon starts it again, at another address, which its workers never learn.
    for process in quickstart.processes():
        if 'broker' in process.info['cmdline']:
            process.kill()
    read_until(first, 'The workers have lost the broker: starting the daemon again')
    read_until(first, 'round 2: sent out 2 walkers')
    # Everything at once, as when the machine goes down: the command, circus, workers, broker and jobs.
    victims = quickstart.processes()
    assert len(victims) >= 4
    first.kill()
    for process in victims:
        process.kill()

    second = quickstart.run()
    assert second.returncode == 0, second.stdout + second.stderr
    assert 'An earlier run was interrupted: going on from its last step' in second.stdout
    assert 'every walker ran to its end' in second.stdout
    report = Path(second.stdout.split('Report: ')[1].split()[0])
    assert 'healed' in report.read_text()
    # One campaign, and no step of it was taken twice.
    campaigns, healed, most_calls, labellings = quickstart.ask(ASK)
    assert (campaigns, healed, most_calls) == ('1', 'True', '1')
    assert int(labellings) >= 2

    third = quickstart.run()
    assert third.returncode == 0, third.stdout + third.stderr
    assert 'is done already' in third.stdout
    assert quickstart.ask(ASK)[0] == '1'
    assert not quickstart.processes()


def test_a_machine_on_which_nothing_can_run_is_told_in_one_line(tmp_path):
    quickstart = Quickstart(tmp_path / 'profile')
    quickstart.environment['HOME'] = str(tmp_path / 'nowhere')
    done = quickstart.run()
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()
    assert line.startswith(f"Error: localhost does not answer: [Errno 2] No such file or directory: '{tmp_path}")
    assert 'Traceback' not in done.stderr
