"""What a kill leaves that no worker will ever look at: the doctor finds it, and knows it from what a shell runs."""

import re
import sqlite3
import subprocess
import sys

import pytest

from .conftest import BIN

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

LABEL = """
import os, signal
from aiida import load_profile, orm
from aiida.engine import run, submit
from ase.build import bulk
from plumpy.process_comms import RemoteProcessThreadController
load_profile()
from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData
builder = LabelCalculation.get_builder()
builder.code = get_engine_code()
builder.structures = StructureSetData([bulk('Al', cubic=True)])
builder.calculator = {'calculator': 'emt'}
builder.metadata.computer = orm.load_computer('localhost')
"""
KILLED_BEFORE_THE_BROKER_HEARS = """
RemoteProcessThreadController.continue_process = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
submit(builder)
"""
RUN_BY_ITSELF = """
builder.metadata.options.prepend_text = 'until [ -e {go} ]; do sleep 0.1; done'
run(builder)
"""
CLOSED = "select count(*) from db_dbnode where id = ? and json_extract(attributes, '$.sealed')"
STATE = "select json_extract(attributes, '$.process_state') from db_dbnode where id = ?"


@pytest.fixture
def installed(home):
    home.run('aiida-oodal', 'setup', 'profile')
    home.run('aiida-oodal', 'setup', 'computer', '--preset', 'local', '--venv', sys.prefix, '--poll-interval', '0.5',
             '--work-dir', str(home.folder / 'run'))  # fmt: skip
    home.run('verdi', 'daemon', 'start', '1')
    return home


@pytest.fixture
def age(installed):
    """Return a function that makes a process an hour old, and changes its attributes."""

    def change(pk, expression='attributes'):
        (database,) = installed.folder.glob('.aiida/repository/*/database.sqlite')
        with sqlite3.connect(database, timeout=30) as connection:
            before = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour')"
            connection.execute(f'update db_dbnode set mtime = {before}, attributes = {expression} where id = ?', (pk,))
        connection.close()

    return change


def newest(home):
    return home.count("select max(id) from db_dbnode where node_type like 'process.%'")


def test_a_process_whose_submitter_was_killed_and_one_that_was_not_closed(installed, age):
    home = installed
    (home.folder / 'submit.py').write_text(LABEL + KILLED_BEFORE_THE_BROKER_HEARS)
    home.run('python', 'submit.py', expect=-9)
    pk = newest(home)
    name = f'LabelCalculation<{pk}>'
    # It may still be about to be handed on.
    assert 'all is well' in home.run('aiida-oodal', 'doctor')
    age(pk)
    said = home.run('aiida-oodal', 'doctor', expect=1)
    assert re.search(rf'BAD processes  1 have no task, so no worker goes on with them: .*: {name}\n', said), said
    assert 'mend it: aiida-oodal doctor --fix' in said
    said = home.run('aiida-oodal', 'doctor', '--fix')
    assert f'gave a task to {name}\n' in said
    assert 'all is well' in said
    home.wait_for_end('the job ends', CLOSED, pk)
    assert home.count("select json_extract(attributes, '$.exit_status') from db_dbnode where id = ?", pk) == 0

    # As if its worker had been killed before the last entry.
    age(pk, "json_remove(attributes, '$.sealed')")
    said = home.run('aiida-oodal', 'doctor', expect=1)
    assert f'BAD processes  1 have ended and were not closed, `verdi archive create` would refuse them: {name}' in said
    assert f'closed {name}\n' in home.run('aiida-oodal', 'doctor', '--fix')
    assert home.count(CLOSED, pk) == 1


@pytest.fixture
def run_by_a_shell(installed):
    """Return a function that lets a shell run a process until a file is there, and returns both and the file."""

    shells = []

    def start():
        home = installed
        go = home.folder / f'go-{newest(home)}'
        (home.folder / 'run.py').write_text(LABEL + RUN_BY_ITSELF.format(go=go))
        waiting = (
            "select count(*) from db_dbnode where id > ? and json_extract(attributes, '$.state') = 'withscheduler'"
        )
        known = newest(home) or 0
        shell = subprocess.Popen([str(BIN / 'python'), 'run.py'], cwd=home.folder, env=home.environment)
        shells.append(shell)
        home.wait_until(lambda: home.count(waiting, known), 'its job waits')
        return newest(home), shell, go

    yield start
    for shell in shells:
        shell.kill()
        shell.wait()


def test_what_a_shell_runs_is_left_alone_until_that_was_killed(installed, age, run_by_a_shell):
    home = installed
    pk, shell, go = run_by_a_shell()
    age(pk)
    assert 'all is well' in home.run('aiida-oodal', 'doctor')
    assert 'all is well' in home.run('aiida-oodal', 'doctor', '--fix')
    shell.kill()
    shell.wait()
    said = home.run('aiida-oodal', 'doctor', expect=1)
    name = f'LabelCalculation<{pk}>'
    assert (
        'BAD processes  1 have no task, so no worker goes on with them: the program that submitted or ran them was '
        f'killed: {name}' in said
    )
    assert f'gave a task to {name}\n' in home.run('aiida-oodal', 'doctor', '--fix')
    # It is in order now, also if its worker is killed.
    assert 'all is well' in home.run('aiida-oodal', 'doctor')
    for process in home.processes('daemon', 'worker'):
        process.kill()
    go.touch()
    home.wait_for_end('the job ends', CLOSED, pk)
    assert home.count(STATE, pk) == 'finished'


def test_a_daemon_is_not_repaired_while_a_shell_runs_what_the_cure_would_run_again(installed, run_by_a_shell):
    home = installed
    pk, shell, go = run_by_a_shell()
    for process in home.processes('daemon'):
        process.kill()
    said = home.run('aiida-oodal', 'doctor', '--fix', expect=1)
    assert re.search(
        rf'LabelCalculation<{pk}>: these processes have no task, and `\S+ run.py` \(PID {shell.pid}\) may be', said
    ), said
    assert home.count(STATE, pk) == 'waiting'
    shell.kill()
    shell.wait()
    assert 'all is well' in home.run('aiida-oodal', 'doctor', '--fix')
    # It is in order now, also if its worker is killed.
    for process in home.processes('daemon', 'worker'):
        process.kill()
    go.touch()
    home.wait_for_end('the job ends', CLOSED, pk)
    assert home.count(STATE, pk) == 'finished'
