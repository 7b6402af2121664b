"""A WorkChain whose steps can be taken again after ``kill -9``: what the machine ended is done again, nothing else."""

from __future__ import annotations

import time
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.common.links import LinkType
from aiida.engine import Process, ProcessState, WorkChain
from aiida.engine.processes.functions import ProcessFunctionType

from aiida_oodal.calculations.engine_job import was_lost

#: How often one job is sent again after the machine ended it.
_MAX_LOST = 3
#: Seconds in which whatever another worker was just writing about a process is in the database.
_SETTLED = 2.0


class ResumingWorkChain(WorkChain):
    """Children are known by the label of their call: one label, one child, but for those that the machine ended."""

    def submit_once(self, call: str, process: type[Process], inputs: AttributeDict) -> orm.ProcessNode:
        """Submit a child, or return the one that this very step submitted before its worker was killed.

        :param call: label of the call link.
        """
        children = self.take_up(call)
        lost = [child for child in children if was_lost(child)]
        if len(lost) < len(children):
            return children[-1]
        if lost:
            self.report(
                f'{call}: the machine ended {lost[-1].process_label}<{lost[-1].pk}> (exit code '
                f'{lost[-1].exit_status}); it is sent again, {len(lost)} of at most {_MAX_LOST} times'
            )
        inputs.setdefault('metadata', AttributeDict())['call_link_label'] = call
        return self.submit(process, **inputs)

    def run_once(
        self, call: str, function: ProcessFunctionType[..., Any, Any], *args: Any, **inputs: Any
    ) -> tuple[Any, orm.ProcessNode]:
        """Run a calcfunction, or return what this very step got of it before its worker was killed.

        :param call: label of the call link.
        :returns: as ``function.run_get_node`` does.
        """
        finished = self.take_up(call)
        if not finished:
            results, node = function.run_get_node(*args, **inputs, metadata={'call_link_label': call})
            return results, node
        outputs = finished[-1].base.links.get_outgoing(link_type=LinkType.CREATE).nested()
        return outputs.get(Process.SINGLE_OUTPUT_LINKNAME, outputs), finished[-1]

    def is_due(self, call: str) -> bool:
        """Tell whether a job has not come back yet, or was ended by the machine and may be sent again.

        :param call: label of the call link, and the key of the job in ``ctx``.
        """
        lost = [child for child in self._find_children(call) if was_lost(child)]
        return call not in self.ctx or (was_lost(self.ctx[call]) and len(lost) <= _MAX_LOST)

    def take_up(self, call: str) -> list[orm.ProcessNode]:
        """Return the children of this call that are being worked on or have finished, the oldest first.

        A worker that is killed after it stored a child and before it noted that in its own checkpoint leaves one of
        which nobody knows whether the broker ever heard of it. As long as no worker has begun it, it is ended, so that
        none ever will, whatever the broker holds; the step that is taken again makes another.
        """
        idle = [child for child in self._find_children(call) if _is_idle(child)]
        for child in idle:
            _end(child)
        if idle:
            # Another worker may have begun one in the same instant, and then its word stands.
            time.sleep(_SETTLED)
            left = ', '.join(f'{child.process_label}<{child.pk}>' for child in idle)
            self.report(f'{call}: a worker was killed and left {left}, which no other had begun')
        return [
            child
            for child in self._find_children(call)
            if child.process_state in (ProcessState.RUNNING, ProcessState.WAITING, ProcessState.FINISHED)
        ]

    def _find_children(self, call: str) -> list[orm.ProcessNode]:
        """Return the children with this label of the call link, the oldest first."""
        calls = (LinkType.CALL_CALC, LinkType.CALL_WORK)
        links = self.node.base.links.get_outgoing(link_type=calls, link_label_filter=call)
        return sorted(links.all_nodes(), key=lambda child: child.pk)


def _is_idle(child: orm.ProcessNode) -> bool:
    """Tell whether no worker has begun a process; one of a function died with the worker that its caller had."""
    if isinstance(child, orm.CalcFunctionNode):
        return not child.is_terminated
    return child.process_state in (None, ProcessState.CREATED)


def _end(child: orm.ProcessNode) -> None:
    """End a process that was not begun.

    All at once, so that no worker sees a part of it: one that begins it later finds it ended, one that is just
    beginning it cannot write any more.
    """
    child.base.attributes.set_many(
        {
            child.PROCESS_STATE_KEY: ProcessState.KILLED.value,
            child.PROCESS_STATUS_KEY: 'ended by its caller: its worker was killed, and no other had begun it',
            child.SEALED_KEY: True,
        }
    )
