"""The doctor names what is broken and what mends it; its cures are tried in ``tests/production``."""

import json
import subprocess
import sys
import time

import pytest

from aiida_oodal.operations.checks import check_computer, check_installation
from aiida_oodal.operations.doctor import Finding, check_daemon


def test_a_broken_line_is_followed_by_its_cure():
    assert str(Finding('daemon', False, 'is dead', 'do this')) == 'BAD daemon     is dead\n    mend it: do this'
    assert str(Finding('daemon', True, 'runs', 'do this')) == 'ok  daemon     runs'


@pytest.fixture
def computer(aiida_profile, tmp_path):
    from aiida_oodal.operations.computers import make_computer
    from aiida_oodal.operations.presets import ComputerSettings

    settings = ComputerSettings(label='patient', work_dir=str(tmp_path / 'run'), venv=sys.prefix)
    return make_computer('local', settings, print)


def test_a_computer_that_is_well(computer):
    findings = list(check_installation('patient'))
    bad = [finding for finding in findings if not finding.ok and finding.name != 'storage']
    assert not bad, '\n'.join(map(str, bad))
    assert {finding.name for finding in findings} >= {'versions', 'storage', 'disk', 'codes', 'computer', 'python'}


def test_a_python_that_lacks_what_the_engine_needs(computer):
    computer.set_prepend_text('python3() { command python3 -S -I "$@"; }')
    (finding,) = [f for f in check_installation('patient') if f.name == 'python']
    assert not finding.ok
    assert 'it lacks numpy: needed for everything' in finding.text
    assert '--conda, --venv or --module' in finding.cure


def test_a_code_that_is_gone(computer):
    from aiida.orm import InstalledCode

    code = InstalledCode(label='old', computer=computer, filepath_executable='/opt/gone/lmp').store()
    (finding,) = [f for f in check_installation('patient') if 'gone/lmp' in f.text]
    assert not finding.ok
    assert f'verdi code delete {code.pk}' in finding.cure
    # who launches something that does not use it is not kept from it
    assert all(finding.ok for finding in check_computer(computer, codes=[]) if finding.name == 'codes')
    assert [finding.ok for finding in check_computer(computer, codes=[code]) if finding.name == 'codes'] == [False]


def test_a_computer_that_does_not_answer(aiida_profile):
    from aiida.orm import Computer

    computer = Computer('silent', 'nowhere.invalid', '', 'core.ssh_async', 'core.slurm', '/tmp').store()
    computer.configure(host='nowhere.invalid', safe_interval=0)
    (finding,) = [f for f in check_installation('silent') if f.name == 'computer']
    assert not finding.ok
    assert "computer 'silent' (nowhere.invalid) does not answer" in finding.text
    assert finding.cure == 'verdi computer test silent'


def test_a_paused_process_is_named(aiida_profile, daemon_client):
    from aiida.orm import CalcJobNode

    node = CalcJobNode().store()
    node.set_process_state('waiting')
    node.set_process_status('Pausing after failed transport task: submit_calculation failed 5 times consecutively')
    node.pause()
    try:
        # Where a daemon runs, it is said as well that no task is there for it.
        found = [f for f in check_daemon(patience=0) if f'<{node.pk}>' in f.text]
        (finding,) = [f for f in found if 'submit_calculation failed 5 times' in f.text]
        assert f'verdi process play {node.pk}' in finding.cure
    finally:
        node.set_process_state('killed')
        node.unpause()


def test_the_status_that_a_killed_broker_left_is_not_the_next_ones(aiida_profile, started_daemon_client):
    from aiida.manage import get_manager

    from aiida_oodal.workchains.broker import look_at_broker

    end = time.monotonic() + 60
    while not look_at_broker().workers:
        assert time.monotonic() < end
        time.sleep(0.1)
    file = get_manager().get_broker()._service_status_file
    killed = subprocess.Popen(['true'])
    killed.wait()
    file.write_text(json.dumps(json.loads(file.read_text()) | {'pid': killed.pid}))
    assert look_at_broker().workers == 0


def test_a_work_folder_that_cannot_be_written_to(computer):
    computer.set_workdir('/sys/kernel')
    (finding,) = [f for f in check_installation('patient') if '/sys/kernel' in f.text]
    computer.set_workdir('/tmp')
    assert not finding.ok
    assert 'nothing can be written into /sys/kernel, where jobs would run: ' in finding.text
    assert 'could not convert' not in finding.text
    assert finding.cure.startswith('make the folder writable, or give another: aiida-oodal setup computer')


def test_what_was_given_up_again_and_again_is_not_resumed(computer):
    from aiida.common.datastructures import CalcJobState
    from aiida.engine.processes import ProcessState
    from aiida.orm import CalcJobNode

    from aiida_oodal.operations.processes import find_resumable

    job = CalcJobNode(computer=computer).store()
    job.set_process_state(ProcessState.WAITING)
    job.set_state(CalcJobState.UPLOADING)
    job.set_process_status('Pausing after failed transport task: upload_calculation failed 5 times consecutively')
    job.pause()
    try:
        for times in range(1, 5):
            assert job.pk in [node.pk for node in find_resumable()], times
            job.logger.warning('maximum attempts %d of calling %s, exceeded', 5, 'do_upload')
        assert job.pk not in [node.pk for node in find_resumable()]
    finally:
        job.set_process_state(ProcessState.KILLED)
        job.unpause()
