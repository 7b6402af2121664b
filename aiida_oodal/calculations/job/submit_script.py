"""What the submit script of every job does before and after its program."""

from __future__ import annotations

from .cost import BEGIN, END

#: Made by the script after its program: where it is missing, the script was ended before its end.
END_FILE = 'script.end'
EPILOGUE = f'{END}\ntouch {END_FILE}'

#: By scheduler: who this job is, and what succeeds if the job `$owner` is gone for certain.
_IDENTITY = {
    'core.slurm': (
        '$SLURM_JOB_ID',
        """jobs=$(squeue --noheader --format=%A --user="$(id -u)") || return 1
    case " $(echo $jobs) " in *" $owner "*) return 1 ;; esac""",
    ),
    # A process is known by its command, too: others come to bear its number.
    'core.direct': (
        '$$ $(uname -n) $(ps -o args= -p $$)',
        """rest=${owner#* }
    [ "${rest%% *}" = "$(uname -n)" ] && [ "$(ps -o args= -p "${owner%% *}" 2>/dev/null)" != "${rest#* }" ]""",
    ),
}

#: A link is made with what it says, by one job only, on any file system.
_WAIT_FOR_TWIN = """
is_gone() {{
    {gone}
}}
me="{me}"
if ! ln -s "$me" script.owner 2>/dev/null && [ -L script.owner ] && [ "$(readlink script.owner)" != "$me" ]; then
    echo 'This job was submitted twice: waiting until the other one is done.'
    until [ -e {end} ]; do
        sleep 5
        owner=$(readlink script.owner)
        if [ -n "$owner" ] && is_gone; then sleep 5; break; fi
    done
    exit 0
fi"""


def prologue(scheduler: str) -> str:
    """Return what the script does before its program; the last is to note the time.

    A `set -e` of the computer's must not keep the script from its end when the program fails.

    AiiDA submits a job again if it was stopped, or the connection failed, before it knew the number of the first. Then
    the first does the work, and the second, which AiiDA watches, waits until that is done or has been ended; what it
    left is judged as if it had been alone. One that Slurm requeued is the same job and does its work again.

    :param scheduler: entry point of the computer's scheduler; under another than Slurm and none, jobs do not wait.
    """
    if scheduler not in _IDENTITY:
        return f'set +e\n{BEGIN}'
    me, gone = _IDENTITY[scheduler]
    return 'set +e' + _WAIT_FOR_TWIN.format(me=me, gone=gone, end=END_FILE) + f'\n{BEGIN}'
