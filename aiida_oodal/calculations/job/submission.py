"""A job that its scheduler refuses for good ends with an exit code; AiiDA itself would pause it.

AiiDA tries to submit five times within five minutes and then pauses, whatever the reason. A pause is right where the
computer or the scheduler does not answer: played again, the job goes on. It is wrong for an option that ``sbatch`` will
never take: nobody looks at a paused process, and playing it changes nothing.
"""

from __future__ import annotations

import re

from aiida.engine.processes.calcjobs.tasks import Waiting
from aiida.engine.processes.process import ProcessState
from aiida.schedulers import SchedulerError
from plumpy.process_states import PauseInterruption, State

#: What ``sbatch`` says of options that it will not take tomorrow either; credentials are those of Slurm's own daemons.
#: Source: ``slurm_errno.c`` and ``sbatch`` of Slurm 22.05.
_FOR_GOOD = re.compile(
    r'invalid (?!job credential|authentication credential|user id|group id|protocol version)|unrecognized option'
    r'|requested (node configuration is not available|time limit is invalid)'
    r'|(processors|memory|nodes) (requested|required) .*(permitted|not available)|not permitted to use'
    r'|node count specification invalid|duplicate generic resource',
    flags=re.IGNORECASE,
)


def find_refusal(error: str) -> str | None:
    """Return why ``sbatch`` will never take a job, None if it may take it later.

    :param error: text of the :class:`SchedulerError` that AiiDA made of what ``sbatch`` printed.
    """
    lines = [line.removeprefix('stderr=').strip() for line in error.splitlines()]
    return next((line for line in lines if line.startswith('sbatch:') and _FOR_GOOD.search(line)), None)


class WaitingForScheduler(Waiting):
    """The state in which a job is sent, watched and fetched."""

    async def execute(self) -> State:
        """Do as AiiDA does; where it gives up submitting because of a refusal, end the job."""
        try:
            state: State = await super().execute()
            return state
        except PauseInterruption as pause:
            # AiiDA raises it while it handles what its attempts ended with.
            cause = pause.__context__.__cause__ if pause.__context__ else None
            reason = find_refusal(str(cause)) if isinstance(cause, SchedulerError) else None
            if reason is None:
                raise
            code = self.process.exit_codes.ERROR_SUBMISSION_REFUSED.format(reason=reason)
            end: State = self.create_state(ProcessState.RUNNING, self.process.terminate, code)
            return end
