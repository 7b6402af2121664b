"""A WorkChain whose steps can be taken again after ``kill -9``: what the machine ended is done again, nothing else.

And one that does not end in a traceback because a child refused its inputs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict, timezone
from aiida.common.links import LinkType
from aiida.engine import BaseRestartWorkChain, Process, ProcessState, WorkChain
from aiida.engine.processes.functions import ProcessFunctionType
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.explained import ERROR_INPUT
from aiida_oodal.calculations.job.engine_job import was_lost
from aiida_oodal.calculations.job.thrift import ThriftyProcess
from aiida_oodal.engine.errors import OodalError

from .broker import read_tasks

#: How often in a row a job is sent again that the machine ended, and that came no further than the time before.
MOST_FRUITLESS = 3
#: Seconds in which whatever another worker was just writing is in the database; SQLite lets it wait for 5 s.
_SETTLED = 6.0
#: Status of a child that was ended because no worker had begun it.
_LEFT_BEHIND = 'ended by its caller: its worker was killed, and no other had begun it'


class ResumingWorkChain(ThriftyProcess, WorkChain):
    """Submit each child once: children are found by the label of their call link, also after a worker was killed.

    If a child refuses its inputs, or a step raises an :class:`.OodalError`, the process ends with an exit code that has
    the message, and :meth:`attach_known` attaches the outputs that there are by then.
    """

    #: Whether the children were looked at since a worker took up this process.
    _looked_back = False

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define the exit code for refused inputs."""
        super().define(spec)
        spec.exit_code(ERROR_INPUT, 'ERROR_INPUT', message='{message}')

    def attach_known(self) -> None:
        """Attach the outputs that there are, before this WorkChain ends with an error."""

    def _do_step(self) -> Any:
        try:
            return super()._do_step()
        except OodalError as error:
            self.attach_known()
            running = [child for child in self.node.called if not child.is_terminated]
            names = ', '.join(f'{child.process_label}<{child.pk}>' for child in running)
            left = f' Not ended by this: {names}; `verdi process kill PK` ends them.' if running else ''
            return self.exit_codes.ERROR_INPUT.format(message=f'{error}{left}')

    def submit(self, process: type[Process], inputs: dict[str, Any] | None = None, **kwargs: Any) -> orm.ProcessNode:
        """Submit a child.

        :raises OodalError: if it refuses its inputs.
        """
        try:
            return super().submit(process, inputs, **kwargs)
        except ValueError as error:  # of its validators; AiiDA would end this process without a word
            raise OodalError(f'{process.__name__} was not submitted: {error}') from error

    def require_accepted(self, process: type[Process], inputs: Mapping[str, Any]) -> None:
        """Check the inputs of a child before others are submitted, which would run on if it were refused.

        :raises OodalError: if it would refuse them.
        """
        ports = process.spec().inputs
        if error := ports.validate(ports.pre_process(dict(inputs))):
            raise OodalError(f'{process.__name__} was not submitted: {error.port}: {error.message}')

    def on_playing(self) -> None:
        """Go on after a pause, and note it: AiiDA 2.9 notes the pause only, to which another worker would return."""
        super().on_playing()
        self._save_checkpoint()

    async def step(self) -> None:
        """Take a step; the first one in this worker only when it is known what became of the steps of others."""
        if not self._looked_back:
            self._looked_back = True
            try:
                await self.look_back()
            except Exception as error:  # as of any step
                self.fail(error, sys.exc_info()[2])
            if self.has_terminated():  # or was killed meanwhile
                return
        await super().step()

    def submit_once(self, call: str, process: type[Process], inputs: AttributeDict) -> orm.ProcessNode:
        """Submit a child, or return the one that this step had submitted before its worker was killed.

        :param call: label of the call link.
        """
        children = self.take_up(call)
        lost = [child for child in children if was_lost(child)]
        if len(lost) < len(children):
            return children[-1]
        if lost:
            self.report(
                f'{call}: the machine ended {lost[-1].process_label}<{lost[-1].pk}> (exit code '
                f'{lost[-1].exit_status}); it is sent again, {len(lost)} of at most {MOST_FRUITLESS} times'
            )
        inputs.setdefault('metadata', AttributeDict())['call_link_label'] = call
        return self.submit(process, **inputs)

    def run_once(
        self, call: str, function: ProcessFunctionType[..., Any, Any], *args: Any, **inputs: Any
    ) -> tuple[Any, orm.ProcessNode]:
        """Run a calcfunction, or return the result that it had in this step before the worker was killed.

        :param call: label of the call link.
        :returns: as ``function.run_get_node`` does.
        """
        finished = self.take_up(call)
        if not finished:
            results, node = function.run_get_node(*args, **inputs, metadata={'call_link_label': call})
            return results, node
        outputs = finished[-1].base.links.get_outgoing(link_type=LinkType.CREATE).nested()
        return outputs.get(Process.SINGLE_OUTPUT_LINKNAME, outputs), finished[-1]

    def result_of(self, call: str, function: ProcessFunctionType[..., Any, Any], *args: Any, **inputs: Any) -> Any:
        """Return what a calcfunction gives, as :meth:`run_once` does.

        :raises OodalError: if it refused its inputs.
        """
        results, node = self.run_once(call, function, *args, **inputs)
        if not node.is_finished_ok:
            raise OodalError(f'{node.process_label}<{node.pk}>: {node.exit_message}')
        return results

    def is_due(self, call: str) -> bool:
        """Return whether a job has to be submitted: for the first time, or again because the machine ended it.

        :param call: label of the call link, and the key of the job in ``ctx``.
        """
        return call not in self.ctx or (was_lost(self.ctx[call]) and self.may_send_again(call))

    def may_send_again(self, call: str) -> bool:
        """Return whether a job that the machine ended, and that left nothing, may be submitted once more.

        :param call: label of the call link.
        """
        return sum(was_lost(child) for child in self.find_children(call)) <= MOST_FRUITLESS

    def may_go_on(self, what: str, reached: int = 0) -> bool:
        """Note that the machine ended a job, and return whether to submit the rest of its work.

        :param what: name of the work, which may take many jobs.
        :param reached: how far it has come, counted as its own jobs count: steps, updates, structures.
        """
        fruitless = 0 if reached > self.how_far(what) else self.count_fruitless(what) + 1
        self.ctx.setdefault('ended', {})[what] = [max(reached, self.how_far(what)), fruitless]
        return fruitless <= MOST_FRUITLESS

    def how_far(self, what: str) -> int:
        """Return how far a work had come when the machine ended it."""
        return int(self.ctx.get('ended', {}).get(what, [0, 0])[0])

    def count_fruitless(self, what: str) -> int:
        """Return how often in a row the machine ended a work that had come no further than the time before."""
        return int(self.ctx.get('ended', {}).get(what, [0, 0])[1])

    def take_up(self, call: str) -> list[orm.ProcessNode]:
        """Return the children of this call that are being worked on or have ended, the oldest first.

        Children that excepted, or were ended by :meth:`look_back`, are left out.
        """
        return [
            child
            for child in self.find_children(call)
            if not child.is_excepted and child.process_status != _LEFT_BEHIND
        ]

    async def look_back(self) -> None:
        """Find out what happened to the children that this step had when its worker was killed.

        If a child was stored but is not in the checkpoint of its caller, it is not known whether the broker has a task
        for it. If no worker has begun it, it is ended, so that it can never run, and the step submits another. Children
        that have ended but were not sealed are sealed. Children that are waited for, not begun and without a task get
        one.
        """
        children = self.node.called
        noted = {awaitable.pk for awaitable in self._awaitables} | {node.pk for node in _find_processes(self.ctx)}
        doubtful = [
            child
            for child in children
            if not child.is_terminated and child.pk not in noted and (child.is_sealed or _is_idle(child))
        ]
        for child in doubtful:
            _end(child)
        if doubtful:
            await asyncio.sleep(_SETTLED)
        for child in doubtful:
            if child.is_sealed and not child.is_terminated:
                _end(child)  # a worker began it at the same time, and can do no more
        for child in children:
            if child.is_terminated and not child.is_sealed:
                if _is_half_copied(child):
                    _end(child)
                elif timezone.delta(child.mtime).total_seconds() > _SETTLED:
                    child.seal()  # else another worker is about to do it
        ended = [f'{child.process_label}<{child.pk}>' for child in doubtful if child.process_status == _LEFT_BEHIND]
        if ended:
            self.report(
                'a worker was killed; what it had submitted and no other worker had begun was ended: '
                f'{", ".join(ended)}'
            )
        await self._hand_on([child for child in children if child.pk in noted and _is_idle(child)])

    async def _hand_on(self, children: list[orm.ProcessNode]) -> None:
        """Give children that are waited for a task if the broker has none: it was stopped while they were submitted."""
        if not children or self.runner.controller is None or read_tasks() is None:
            return
        await asyncio.sleep(_SETTLED)
        tasks = read_tasks() or set()
        for child in children:
            if child.pk not in tasks and _is_idle(child):
                self.report(
                    f'{child.process_label}<{child.pk}> was stored and never begun: it is handed to the broker again'
                )
                self.runner.controller.continue_process(child.pk, nowait=False, no_reply=True)

    def find_children(self, call: str) -> list[orm.ProcessNode]:
        """Return the children with this label of the call link, the oldest first."""
        calls = (LinkType.CALL_CALC, LinkType.CALL_WORK)
        # AiiDA's filter takes `_` for any letter
        links = self.node.base.links.get_outgoing(link_type=calls, link_label_filter=call).all()
        return sorted((link.node for link in links if link.link_label == call), key=lambda child: child.pk)


class ResumingRestartWorkChain(ResumingWorkChain, BaseRestartWorkChain):
    """A ``BaseRestartWorkChain`` whose iterations each have one child, whatever is killed."""

    def submit(self, process: type[Process], inputs: dict[str, Any] | None = None, **kwargs: Any) -> orm.ProcessNode:
        """Submit a run, or return the one that this very iteration submitted before its worker was killed."""
        # A pause after the last iteration begins to count anew.
        noted = {child.pk for child in self.ctx.get('children', [])}
        submitted = [child for child in self.take_up(kwargs['metadata']['call_link_label']) if child.pk not in noted]
        return submitted[-1] if submitted else super().submit(process, inputs, **kwargs)


def _find_processes(value: Any) -> Iterator[orm.ProcessNode]:
    """Go through the processes in a context."""
    if isinstance(value, orm.ProcessNode):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _find_processes(item)


def _is_idle(child: orm.ProcessNode) -> bool:
    """Tell whether no worker has begun a process; one of a function died with the worker that its caller had."""
    if isinstance(child, orm.CalcFunctionNode):
        return not child.is_terminated
    return child.process_state in (None, ProcessState.CREATED)


def close_process(process: orm.ProcessNode) -> None:
    """Close a process that ended and whose worker was killed before it did so."""
    if _is_half_copied(process):
        _end(process)
    else:
        process.seal()


def _is_half_copied(process: orm.ProcessNode) -> bool:
    """Tell whether a process is a copy from the cache that lacks outputs, as the worker that made it was killed."""
    if not isinstance(process, orm.CalculationNode) or process.base.caching.is_created_from_cache:
        return False

    def names(node: orm.ProcessNode) -> set[str]:
        return set(node.base.links.get_outgoing(link_type=LinkType.CREATE).all_link_labels())

    sources = (node for node in process.base.caching.get_all_same_nodes() if node.pk < process.pk)
    return any(names(source) > names(process) for source in sources)


def _end(child: orm.ProcessNode) -> None:
    """End a process that was not begun, or not copied to its end.

    All at once, so that no worker sees a part of it: one that begins it later finds it ended, one that is just
    beginning it cannot write any more. Below the ORM, which would refuse it if that one was faster.
    """
    child.backend_entity.set_attribute_many(
        {
            child.PROCESS_STATE_KEY: ProcessState.KILLED.value,
            child.PROCESS_STATUS_KEY: _LEFT_BEHIND,
            child.SEALED_KEY: True,
        }
    )
