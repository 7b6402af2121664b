"""Captured words of Slurm: 22.05 here, with and without accounting; out of memory from a cluster with cgroups."""

import pytest

from aiida_oodal.calculations.scheduler_verdict import find_scheduler_verdict

HEADER = 'JobID|State|ExitCode|'
SACCT = {
    'TIMEOUT': ['9|TIMEOUT|0:0|', '9.batch|CANCELLED|0:15|'],
    'CANCELLED': ['9|CANCELLED by 0|0:0|', '9.batch|CANCELLED|0:15|'],
    'NODE_FAIL': ['9|NODE_FAIL|0:0|', '9.batch|CANCELLED|0:15|'],
    'OUT_OF_MEMORY': ['9|OUT_OF_MEMORY|0:125|', '9.batch|OUT_OF_MEMORY|0:125|'],
    'FAILED': ['9|FAILED|0:9|', '9.batch|CANCELLED|0:9|'],
    'COMPLETED': ['9|COMPLETED|0:0|', '9.batch|COMPLETED|0:0|'],
}
STDERR = {
    'TIMEOUT': 'slurmstepd-n1: error: *** JOB 9 ON localhost CANCELLED AT 2026-11-22T07:52:26 DUE TO TIME LIMIT ***',
    'CANCELLED': 'slurmstepd-localhost: error: *** JOB 9 ON localhost CANCELLED AT 2026-11-22T07:52:26 ***',
    'NODE_FAIL': 'slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 2026-11-22T07:52:26 DUE TO NODE FAILURE, SEE LOG ***',
    'OUT_OF_MEMORY': 'slurmstepd: error: Detected 1 oom-kill event(s) in StepId=4711.batch. Some of your processes may '
    'have been killed by the cgroup out-of-memory handler.',
    'FAILED': 'Traceback (most recent call last):\n  ...\nKeyError: 1',
    'COMPLETED': '',
}
EXPECTED = {
    'TIMEOUT': 'ERROR_SCHEDULER_OUT_OF_WALLTIME',
    'CANCELLED': 'ERROR_CANCELLED',
    'NODE_FAIL': 'ERROR_SCHEDULER_NODE_FAILURE',
    'OUT_OF_MEMORY': 'ERROR_SCHEDULER_OUT_OF_MEMORY',
    'FAILED': None,
    'COMPLETED': None,
}


@pytest.mark.parametrize('state', EXPECTED)
def test_accounting_tells(state):
    assert find_scheduler_verdict('\n'.join([HEADER, *SACCT[state]]), '') == EXPECTED[state]


@pytest.mark.parametrize('state', EXPECTED)
def test_stderr_tells_without_accounting(state):
    said = f'module: loaded\n{STDERR[state]}\n'
    assert find_scheduler_verdict('', said) == EXPECTED[state]


def test_an_older_slurm_says_it_in_other_words():
    assert find_scheduler_verdict('', 'slurmstepd: error: Exceeded job memory limit') == 'ERROR_SCHEDULER_OUT_OF_MEMORY'
