"""A WorkChain whose steps can be taken again after ``kill -9``: what the machine ended is done again, nothing else."""

from __future__ import annotations

import time
from typing import Any

from aiida import orm
from aiida.common import AttributeDict, timezone
from aiida.common.links import LinkType
from aiida.engine import Process, ProcessState, WorkChain
from aiida.engine.processes.functions import ProcessFunctionType

from aiida_oodal.calculations.engine_job import was_lost

#: How often one job is sent again after the machine ended it.
_MAX_LOST = 3
#: Seconds in which whatever another worker was just writing is in the database; SQLite lets it wait for 5 s.
_SETTLED = 6.0
#: Status of a child that was ended because no worker had begun it.
_LEFT_BEHIND = 'ended by its caller: its worker was killed, and no other had begun it'


class ResumingWorkChain(WorkChain):
    """Children are known by the label of their call: one label, one child, but for those that the machine ended."""

    #: Whether the children were looked at since a worker took up this process.
    _looked_back = False

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
        """Return the children of this call that are being worked on or have ended, the oldest first.

        Not those that came to nothing: they excepted, or were ended by :meth:`_look_back`.
        """
        if not self._looked_back:
            self._look_back()
            self._looked_back = True
        return [
            child
            for child in self._find_children(call)
            if not child.is_excepted and child.process_status != _LEFT_BEHIND
        ]

    def _look_back(self) -> None:
        """Settle what became of the children that this step had when its worker was killed.

        Of a child that was stored and not yet noted in the checkpoint of its caller nobody knows whether the broker
        ever heard. As long as no worker has begun it, it is ended, so that none ever will, whatever the broker holds,
        and the step makes another. What ended, and had no time to be closed, is closed.
        """
        children = self.node.called
        doubtful = [child for child in children if not child.is_terminated and (child.is_sealed or _is_idle(child))]
        for child in doubtful:
            _end(child)
        if doubtful:
            time.sleep(_SETTLED)
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
            self.report(f'a worker was killed and left behind what no other had begun: {", ".join(ended)}')

    def _find_children(self, call: str) -> list[orm.ProcessNode]:
        """Return the children with this label of the call link, the oldest first."""
        calls = (LinkType.CALL_CALC, LinkType.CALL_WORK)
        # AiiDA's filter takes `_` for any letter
        links = self.node.base.links.get_outgoing(link_type=calls, link_label_filter=call).all()
        return sorted((link.node for link in links if link.link_label == call), key=lambda child: child.pk)


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
