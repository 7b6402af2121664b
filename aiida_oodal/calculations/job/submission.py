"""How jobs wait for their scheduler: what it refuses for good ends them, and long ones are looked at less often.

AiiDA tries to submit five times within five minutes and then pauses, whatever the reason. A pause is right where the
computer or the scheduler does not answer: played again, the job goes on. It is wrong for an option that ``sbatch`` will
never take: nobody looks at a paused process, and playing it changes nothing.

A look at a job costs its worker some 40 ms, most of it to write down what was seen. Where jobs of seconds and workers
share the cores, as in the quickstart, a short interval for all of them would take a fifth of the cores from the jobs.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from aiida.engine.processes.calcjobs.manager import JobManager
from aiida.engine.processes.calcjobs.monitors import CalcJobMonitors
from aiida.engine.processes.calcjobs.tasks import Waiting, task_update_job
from aiida.engine.processes.process import ProcessState
from aiida.engine.utils import InterruptableFuture
from aiida.orm import AuthInfo, CalcJobNode
from aiida.schedulers import JobInfo, JobState, SchedulerError
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

#: A job is looked at when this share of its time has passed since the last look, at the latest after so many seconds;
#: never before the interval of its computer has passed.
_REST, _LONGEST_REST = 1 / 20, 5.0
#: What was seen of a job that is as it was is written down after so many seconds.
_LONGEST_SILENCE = 10.0


def find_refusal(error: str) -> str | None:
    """Return why ``sbatch`` will never take a job, None if it may take it later.

    :param error: text of the :class:`SchedulerError` that AiiDA made of what ``sbatch`` printed.
    """
    lines = [line.removeprefix('stderr=').strip() for line in error.splitlines()]
    return next((line for line in lines if line.startswith('sbatch:') and _FOR_GOOD.search(line)), None)


class WaitingForScheduler(Waiting):
    """The state in which a job is sent, watched and fetched."""

    #: When this state first looked at the job.
    _first_look: float | None = None
    #: The job that it looks at.
    _watched: _WatchedJob | None = None

    @property
    def monitors(self) -> CalcJobMonitors | None:
        """The monitors of the job; AiiDA asks the database at every look where there are none."""
        return super().monitors if 'monitors' in self.process.inputs else None

    async def _launch_task(self, coro: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if coro is task_update_job:
            now = time.monotonic()
            self._first_look = self._first_look or now
            kwargs['rest'] = min((now - self._first_look) * _REST, _LONGEST_REST)
            node, *others = args
            self._watched = self._watched or _WatchedJob(node)
            coro, args = _rest_and_look, (self._watched, *others)
        return await super()._launch_task(coro, *args, **kwargs)

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


class _WatchedJob:
    """A job as AiiDA's ``task_update_job`` uses it, to which is written when its state changes, and else now and then.

    :param node: of the job; what is not defined here is its own.
    """

    def __init__(self, node: CalcJobNode) -> None:
        self._node = node
        self._authinfo: AuthInfo | None = None
        self._state: JobState | None = None
        self._info: JobInfo | None = None
        self._written = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def get_authinfo(self) -> AuthInfo:
        """Return how to reach the computer; the node would ask the database each time."""
        if self._authinfo is None:
            self._authinfo = self._node.get_authinfo()
        return self._authinfo

    def set_last_job_info(self, info: JobInfo) -> None:
        """Keep what the scheduler said, until the state is written."""
        self._info = info

    def set_scheduler_state(self, state: JobState) -> None:
        """Write state and information, if the state is another one or the last time was long ago."""
        now = time.monotonic()
        if state is self._state and now - self._written < _LONGEST_SILENCE:
            return
        if self._info is not None:
            self._node.set_last_job_info(self._info)
        self._node.set_scheduler_state(state)
        self._state, self._written = state, now


async def _rest_and_look(
    node: _WatchedJob, job_manager: JobManager, cancellable: InterruptableFuture, *, rest: float
) -> bool:
    """Do as AiiDA's ``task_update_job``, after a rest [s] which counts as a part of the computer's interval."""
    await cancellable.with_interrupt(asyncio.sleep(rest))
    done: bool = await task_update_job(node, job_manager, cancellable)
    return done
