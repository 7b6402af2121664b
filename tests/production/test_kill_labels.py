"""Killed with -9 while pw.x computes: no label is lost, and no SCF is paid twice."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from machine import PSEUDO_FILES, PSEUDOS, find_program, require

from .test_kill import DEADLY, LEFT_BEHIND, kill

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

SCRIPT = Path(__file__).parents[1] / 'workchains' / 'label' / 'small_label.py'
ENDED = "select count(*) from db_dbnode where label = 'small: labels' and json_extract(attributes, '$.sealed')"
#: Prints the exit status of the labeller, how many labels there are, and the states of the queue.
ASK = """
import json
from aiida import load_profile, orm
load_profile()
from aiida_oodal.queue import find_entries
(process,) = orm.QueryBuilder().append(orm.WorkChainNode, filters={'label': 'small: labels'}).all(flat=True)
labels = process.outputs.labels if 'labels' in process.outputs else []
print(json.dumps({'exit': process.exit_status, 'message': process.exit_message, 'labels': len(labels),
                  'states': [entry.status.value for entry in find_entries()]}))
"""


@pytest.fixture
def runs(home):
    """Make a code that writes down where it runs and then is pw.x; return a function that reads the list."""
    require('pw', 'aiida_quantumespresso')
    pw = find_program('pw.x')
    log, program = home.folder / 'runs', home.folder / 'pw.sh'
    program.write_text(f'#!/bin/sh\necho "$PWD" >> {log}\nexec {pw} "$@"\n')
    program.chmod(0o755)
    pseudos = home.folder / 'pseudos'
    pseudos.mkdir()
    shutil.copy(PSEUDOS / PSEUDO_FILES['Al'], pseudos)
    home.run('aiida-oodal', 'setup', 'profile')
    home.run('aiida-oodal', 'setup', 'computer', '--preset', 'local', '--venv', sys.prefix, '--poll-interval', '0.5',
             '--work-dir', str(home.folder / 'run'))  # fmt: skip
    home.run('verdi', 'code', 'create', 'core.code.installed', '--non-interactive', '--label', 'pw', '--computer',
             'localhost', '--filepath-executable', str(program),
             '--default-calc-job-plugin', 'quantumespresso.pw')  # fmt: skip
    return lambda: log.read_text().split() if log.exists() else []


def launch(home):
    home.run('verdi', 'daemon', 'start', '2')
    home.run('verdi', 'run', str(SCRIPT), str(home.folder / 'pseudos'))


def check(home, runs):
    home.wait_for_end('the labeller ends', ENDED)
    found = json.loads(home.run('python', '-c', ASK).splitlines()[-1])
    assert found['exit'] == 0, found['message']
    assert found['labels'] == 3
    assert found['states'] == ['LABELLED'] * 3
    assert len(runs()) == len(set(runs())) == 3


@pytest.mark.timeout(1200)
def test_workers_are_killed_in_the_middle_of_an_scf(home, runs):
    launch(home)
    home.wait_until(lambda: runs() and home.processes('-in', 'aiida.in'), 'pw.x computes')
    kill(home.processes('daemon', 'worker'))
    assert home.processes('-in', 'aiida.in')  # the job is none of the worker's
    home.wait_until(lambda: len(home.processes('daemon', 'worker')) == 2, 'the workers are back')
    home.wait_under_cron(lambda: len(runs()) == 3 and home.processes('-in', 'aiida.in'), 'pw.x computes the last one')
    kill(home.processes('daemon', 'worker')[:1])
    check(home, runs)


@pytest.mark.timeout(1200)
def test_workers_are_killed_when_they_have_stored_a_process(home, runs):
    """The worst moment, ten times, in workflows that are not ours, too."""
    deadly = home.folder / 'deadly'
    deadly.mkdir()
    (deadly / 'sitecustomize.py').write_text(DEADLY)
    home.environment['PYTHONPATH'] = str(deadly)
    launch(home)
    check(home, runs)
    assert len(list((deadly / 'marks').iterdir())) == 10
    assert len(list((deadly / 'uploads').iterdir())) == 3
    assert home.count(LEFT_BEHIND) >= 1
