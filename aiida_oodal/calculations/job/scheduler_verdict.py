"""How Slurm ended a job, from what its accounting and its stderr say.

AiiDA reads ``TIMEOUT``, ``NODE_FAIL`` and ``OUT_OF_MEMORY`` from ``sacct`` only. Without accounting what ``slurmstepd``
wrote is all there is, and a cancelled job is never told from one that broke.
"""

from __future__ import annotations

import re

_MEMORY, _WALLTIME, _NODE = (
    f'ERROR_SCHEDULER_{cause}' for cause in ('OUT_OF_MEMORY', 'OUT_OF_WALLTIME', 'NODE_FAILURE')
)
_CANCELLED = 'ERROR_CANCELLED'
#: State of ``sacct`` -> label of the exit code. Source: sacct(1), job state codes.
_STATES = {
    'OUT_OF_MEMORY': _MEMORY,
    'TIMEOUT': _WALLTIME,
    'DEADLINE': _WALLTIME,
    'NODE_FAIL': _NODE,
    'BOOT_FAIL': _NODE,
    'CANCELLED': _CANCELLED,
    'PREEMPTED': _CANCELLED,
}
#: What ``slurmstepd`` of Slurm 17 to 24 writes -> label of the exit code; the first match counts.
_SENTENCES = {
    r'oom[-_]kill|out-of-memory handler|exceeded .*memory limit': _MEMORY,
    r'CANCELLED AT .* DUE TO TIME LIMIT': _WALLTIME,
    r'CANCELLED AT .* DUE TO NODE FAILURE': _NODE,
    r'CANCELLED AT .*\*\*\*': _CANCELLED,
}


def find_scheduler_verdict(accounting: str, stderr: str) -> str | None:
    """Return the label of the exit code that tells how Slurm ended a job, None if it did not.

    :param accounting: output of ``sacct --parsable``, a header and a line for the job and each of its steps; may be
        empty.
    :param stderr: the scheduler's stderr of the job.
    """
    state = _read_state(accounting)
    if state in _STATES:
        return _STATES[state]
    for pattern, label in _SENTENCES.items():
        if re.search(pattern, stderr, flags=re.IGNORECASE):
            return label
    return None


def _read_state(accounting: str) -> str | None:
    """Return the state of the job without what follows it, as in ``CANCELLED by 0``; steps are not the job."""
    rows = [line.split('|') for line in accounting.splitlines()[:2]]
    if len(rows) < 2 or 'State' not in rows[0]:
        return None
    words = dict(zip(*rows, strict=False))['State'].split()
    return words[0] if words else None
