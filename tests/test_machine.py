"""What decides which tests run here, and that a session ends clean."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import machine
import pytest

TESTS = Path(__file__).parent
FORGOTTEN = """
import asyncio, gc

def test_it():
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.set_exception(ValueError('nobody looks at it'))
    loop.close()
    {look}
"""


@pytest.fixture
def sinfo(tmp_path, monkeypatch):
    """Return a function that puts another ``sinfo`` on PATH."""

    def install(script):
        path = tmp_path / 'sinfo'
        path.write_text(f'#!/bin/sh\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
        return machine.find_problem.__wrapped__('slurm')  # not what was found for this session

    return install


def test_a_slurm_that_is_installed_and_does_not_answer_is_no_slurm(sinfo):
    said = sinfo('echo "slurm_load_partitions: Unable to contact slurm controller" >&2; exit 1')
    assert said.startswith('Slurm is installed and does not answer (slurm_load_partitions: Unable to contact')
    assert 'tests/slurm/slurm_up.sh' in said


def test_a_slurm_of_others_is_not_taken(sinfo):
    assert sinfo('echo cpu; echo gpu').startswith('Slurm has no partitions a100 and h200, but cpu, gpu')
    assert sinfo('echo a100; echo h200') is None


def test_what_is_missing_is_a_reason(monkeypatch):
    monkeypatch.setitem(machine.PACKAGES, 'no_such_package', 'md')
    reason = 'no_such_package (extra: md) is not installed'
    assert not machine.has('no_such_package')
    assert machine.needs('no_such_package').kwargs['reason'] == reason
    with pytest.raises(pytest.skip.Exception, match=r'no_such_package \(extra: md\) is not installed'):
        machine.require('no_such_package')
    assert machine.needs().args == (False,)


@pytest.mark.parametrize(('look', 'status'), [('future.exception()', 0), ('', 1)])
def test_a_session_in_which_nobody_looked_at_an_error_fails(tmp_path, look, status):
    path = tmp_path / 'engine' / 'test_it.py'  # as those of the engine it needs no profile
    path.parent.mkdir()
    path.write_text(FORGOTTEN.format(look=look))
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'conftest', '--rootdir', str(tmp_path), str(path)]
    environment = os.environ | {'PYTHONPATH': str(TESTS), 'PYTEST_ADDOPTS': '-p no:cacheprovider'}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert '1 passed' in done.stdout, done.stdout + done.stderr
    assert done.returncode == status
    assert ('an error that no test looked at' in done.stdout) is bool(status)
    assert 'Traceback' not in done.stdout.split('1 passed')[1] + done.stderr
