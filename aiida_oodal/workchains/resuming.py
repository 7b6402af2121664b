"""A WorkChain that submits no child twice, and sends one again that the machine ended."""

from __future__ import annotations

from aiida import orm
from aiida.common import AttributeDict
from aiida.common.links import LinkType
from aiida.engine import Process, WorkChain

from aiida_oodal.calculations.engine_job import was_lost

#: How often one job is sent again after the machine ended it.
_MAX_LOST = 3


def find_children(caller: orm.ProcessNode, call: str) -> list[orm.ProcessNode]:
    """Return the children with a label of the call link that have ended or can be taken up, the oldest first.

    One without a checkpoint was stored when its worker was killed, and nobody can ever take it up;
    ``verdi process repair`` makes it an excepted one.
    """
    links = caller.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK), link_label_filter=call)
    children = [
        child
        for child in links.all_nodes()
        if not child.is_excepted and (child.is_terminated or child.checkpoint is not None)
    ]
    return sorted(children, key=lambda child: child.pk)


class ResumingWorkChain(WorkChain):
    """Children are known by the label of their call, so that a step can be taken again after ``kill -9``."""

    def submit_once(self, call: str, process: type[Process], inputs: AttributeDict) -> orm.ProcessNode:
        """Submit a child, or return the one that this very step submitted before its worker was killed.

        :param call: label of the call link: one label, one child, but for those that the machine ended.
        """
        children = find_children(self.node, call)
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

    def is_due(self, call: str) -> bool:
        """Tell whether a job has not come back yet, or was ended by the machine and may be sent again.

        :param call: label of the call link, and the key of the job in ``ctx``.
        """
        lost = [child for child in find_children(self.node, call) if was_lost(child)]
        return call not in self.ctx or (was_lost(self.ctx[call]) and len(lost) <= _MAX_LOST)
