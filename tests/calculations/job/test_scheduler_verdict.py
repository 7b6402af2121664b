"""Words of Slurm: captured from 22.05 with ``tests/slurm``; of cgroups, which that has not, from public reports."""

import pytest

from aiida_oodal.calculations.job.scheduler_verdict import find_scheduler_verdict

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
    'TIMEOUT': 'slurmstepd-localhost: error: *** JOB 9 ON localhost CANCELLED AT 2026-11-22T07:52:26 DUE TO TIME LIMIT '
    '***',
    'CANCELLED': 'slurmstepd-localhost: error: *** JOB 3 ON localhost CANCELLED AT 2026-11-25T15:56:58 ***',
    'NODE_FAIL': 'slurmstepd-localhost: error: *** JOB 2 ON localhost CANCELLED AT 2026-11-25T15:56:54 DUE TO NODE '
    'FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***',
    'OUT_OF_MEMORY': 'slurmstepd-localhost: error: StepId=5.batch exceeded memory limit (170479616 > 104857600), being '
    'killed\nslurmstepd-localhost: error: *** JOB 5 ON localhost CANCELLED AT 2026-11-25T15:57:21 ***\n'
    'slurmstepd-localhost: error: Exceeded job memory limit',
    'FAILED': 'Traceback (most recent call last):\n  ...\nKeyError: 1',
    'COMPLETED': '',
}
#: By the report that shows it.
CGROUP_OUT_OF_MEMORY = {
    'https://github.com/hafs-community/HAFS/issues/101': 'slurmstepd: error: Detected 1 oom-kill event(s) in step '
    '3495064.0 cgroup. Some of your processes may have been killed by the cgroup out-of-memory handler.',
    'https://github.com/ArjunaCluster/ArjunaUsers/issues/52': 'slurmstepd: error: Detected 1 oom-kill event(s) in '
    'StepId=191.batch cgroup. Some of your processes may have been killed by the cgroup out-of-memory handler.',
    'https://github.com/nextflow-io/nextflow/issues/5932': 'slurmstepd: error: Detected 1 oom_kill event in '
    'StepId=11300781.0. Some of the step tasks have been OOM Killed.',
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


@pytest.mark.parametrize('report', CGROUP_OUT_OF_MEMORY)
def test_the_kernel_killed_for_memory(report):
    said = f'slurm_script: line 28: 8156 Killed python3\n{CGROUP_OUT_OF_MEMORY[report]}'
    assert find_scheduler_verdict('', said) == 'ERROR_SCHEDULER_OUT_OF_MEMORY'
