"""What becomes of a job that left less than it should, or was sent twice: real jobs, each ended in another place."""

import asyncio
import os
import subprocess
import time

import pytest
from aiida.engine import run_get_node
from aiida.engine.utils import InterruptableFuture, get_or_create_event_loop
from ase.build import bulk
from plumpy.process_states import KillInterruption

from aiida_oodal.calculations.codes.engine_code import EXECUTABLE
from aiida_oodal.calculations.job import submission
from aiida_oodal.calculations.job.submission import _rest_and_look
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData

KILLED_BY_ITS_PROGRAM = f"""cat > {EXECUTABLE} <<'end'
#!/bin/sh
echo it had begun >&2
kill -9 $PPID
end
"""


@pytest.fixture
def label(engine_code, localhost):
    def run(prepend_text):
        _, node = run_get_node(
            LabelCalculation,
            code=engine_code,
            structures=StructureSetData([bulk('Al', cubic=True)]),
            calculator={'calculator': 'emt'},
            metadata={'computer': localhost, 'options': {'prepend_text': prepend_text}},
        )
        return node

    return run


def test_a_program_that_fails_under_set_e_is_not_lost(label, localhost):
    usual = localhost.get_prepend_text()
    localhost.set_prepend_text(f'{usual}\nset -e')
    try:
        node = label(f'rm {EXECUTABLE}')
    finally:
        localhost.set_prepend_text(usual)
    assert node.exit_status == 302, node.exit_message


@pytest.mark.parametrize(
    ('prepend_text', 'status', 'words'),
    [
        ('kill -9 $$', 146, ['before its program began', '(it printed nothing)', 'Submit it again']),
        (KILLED_BY_ITS_PROGRAM, 146, ['while its program ran', 'it had begun']),
        ('echo no such module >&2; exit 1', 302, ['no such module']),
        (f'rm {EXECUTABLE}', 302, [f'{EXECUTABLE}: No such file']),
    ],
)
def test_a_job_that_left_nothing_was_lost_or_says_itself_why(label, prepend_text, status, words):
    node = label(prepend_text)
    assert node.exit_status == status, node.exit_message
    for word in words:
        assert word in node.exit_message


def test_a_job_is_looked_at_less_often_the_longer_it_runs(label, monkeypatch):
    rests = []

    async def remember(*arguments, rest):
        rests.append(rest)
        return await _rest_and_look(*arguments, rest=rest)

    monkeypatch.setattr(submission, '_rest_and_look', remember)
    assert label('sleep 2').is_finished_ok
    assert rests[0] == 0.0
    assert rests == sorted(set(rests))
    assert rests[-1] < submission._LONGEST_REST


def test_who_kills_a_job_does_not_wait_for_its_rest():
    loop = get_or_create_event_loop()
    cancellable = InterruptableFuture()
    loop.call_soon(cancellable.interrupt, KillInterruption('enough'))
    others = asyncio.all_tasks(loop)
    with pytest.raises(KillInterruption, match='enough'):
        loop.run_until_complete(_rest_and_look(None, None, cancellable, rest=3600.0))
    for sleeping in asyncio.all_tasks(loop) - others:
        sleeping.cancel()  # else a test that waits for all tasks of this loop would wait for it


@pytest.fixture
def submitted(label, tmp_path):
    """Return a function that starts a job in a folder, as often as it is called; it works when there is a file `go`."""
    folder = tmp_path / 'copy'
    kept = f'[ -e {folder} ] || {{ cp -r . {folder} && rm {folder}/script.owner; }}'
    work = f'[ $PWD != {folder} ] || {{ echo $$ >> workers; until [ -e go ]; do sleep 0.1; done; }}'
    assert label(f'{kept}\n{work}').is_finished_ok
    jobs = []

    def start():
        jobs.append(subprocess.Popen(['bash', '_aiidasubmit.sh'], cwd=folder))
        return jobs[-1]

    yield folder, start
    for job in jobs:
        job.kill()
        job.wait()


def wait_for(path):
    end = time.monotonic() + 120
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_of_a_job_that_was_submitted_twice_one_does_the_work_and_the_other_waits_for_it(submitted):
    folder, start = submitted
    jobs = [start(), start()]
    wait_for(folder / 'workers')
    (folder / 'go').touch()
    assert [job.wait(timeout=120) for job in jobs] == [0, 0]
    (worker,) = (folder / 'workers').read_text().split()
    assert int(worker) in [job.pid for job in jobs]
    assert (folder / 'results.json').exists()
    # One that begins when the first is done has nothing to do.
    assert start().wait(timeout=120) == 0
    assert (folder / 'workers').read_text().split() == [worker]


@pytest.mark.parametrize('reused', [False, True])
def test_nobody_waits_for_a_job_that_was_killed(submitted, reused):
    """Also not for one whose number another process bears since."""
    folder, start = submitted
    first = start()
    wait_for(folder / 'workers')
    owner = str((folder / 'script.owner').readlink())
    assert owner == f'{first.pid} {os.uname().nodename} bash _aiidasubmit.sh'
    second = start()
    first.kill()
    first.wait()
    if reused:
        (folder / 'script.owner').unlink()
        (folder / 'script.owner').symlink_to(owner.replace(str(first.pid), str(os.getpid()), 1))
    assert second.wait(timeout=120) == 0
    assert not (folder / 'script.end').exists()
    assert (folder / 'workers').read_text().split() == [str(first.pid)]


def test_a_job_on_another_machine_is_waited_for(submitted):
    folder, start = submitted
    (folder / 'script.owner').symlink_to('1 elsewhere bash _aiidasubmit.sh')
    job = start()
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(timeout=12)
    (folder / 'script.end').touch()
    assert job.wait(timeout=120) == 0
    assert not (folder / 'workers').exists()
