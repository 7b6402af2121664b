"""What processes are linked to, of many by one query: AiiDA asks the database for each process, and for each label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.orm.utils.links import LinkManager, LinkTriple

from aiida_oodal.workchains.calls import Call

_INPUTS = (LinkType.INPUT_CALC, LinkType.INPUT_WORK)
_OUTPUTS = (LinkType.CREATE, LinkType.RETURN)
_CALLS = (LinkType.CALL_CALC, LinkType.CALL_WORK)


def read_inputs(process: orm.ProcessNode) -> dict[str, Any]:
    """Return the inputs of a process by label, namespaces as dictionaries."""
    return read_all_inputs([process])[process.pk]


def read_outputs(process: orm.ProcessNode | None) -> dict[str, Any]:
    """Return the outputs of a process by label, namespaces as dictionaries; empty where there is no process."""
    return {} if process is None else read_all_outputs([process])[process.pk]


def read_all_inputs(processes: Iterable[orm.ProcessNode]) -> dict[int, dict[str, Any]]:
    """Return for the PK of each process what :func:`read_inputs` does."""
    return _read({process.pk for process in processes}, _INPUTS, 'with_outgoing')


def read_all_outputs(processes: Iterable[orm.ProcessNode]) -> dict[int, dict[str, Any]]:
    """Return for the PK of each process what :func:`read_outputs` does."""
    return _read({process.pk for process in processes}, _OUTPUTS, 'with_incoming')


def _read(processes: set[int], types: Sequence[LinkType], joined: str) -> dict[int, dict[str, Any]]:
    if not processes:
        return {}
    query = orm.QueryBuilder().append(
        orm.ProcessNode, filters={'id': {'in': sorted(processes)}}, project='id', tag='process'
    )
    query.append(
        orm.Data,
        edge_filters={'type': {'in': [each.value for each in types]}},
        edge_project=['type', 'label'],
        project='*',
        **{joined: 'process'},
    )
    found: dict[int, list[LinkTriple]] = {process: [] for process in processes}
    for process, node, kind, label in query.all():
        found[process].append(LinkTriple(node, LinkType(kind), label))
    return {process: LinkManager(links).nested() for process, links in found.items()}


def find_creators(nodes: Iterable[orm.Data]) -> dict[int, orm.ProcessNode]:
    """Return for the PK of each node what made it; those that nothing made are left out."""
    made = sorted({node.pk for node in nodes})
    if not made:
        return {}
    query = orm.QueryBuilder().append(orm.Data, filters={'id': {'in': made}}, project='id', tag='made')
    query.append(orm.ProcessNode, with_outgoing='made', edge_filters={'type': LinkType.CREATE.value}, project='*')
    return dict(query.all())


def find_walks(processes: Iterable[orm.ProcessNode]) -> dict[int, tuple[orm.WorkChainNode, Call]]:
    """Return for the PK of each process the campaign and the call below which it ran; others are left out.

    One query for each generation.
    """
    walks: dict[int, tuple[orm.WorkChainNode, Call]] = {}
    below = {process.pk: [process.pk] for process in processes}
    while below:
        query = orm.QueryBuilder().append(
            orm.ProcessNode, filters={'id': {'in': sorted(below)}}, project='id', tag='called'
        )
        query.append(
            orm.WorkChainNode,
            with_outgoing='called',
            edge_filters={'type': {'in': [each.value for each in _CALLS]}},
            edge_project='label',
            project='*',
        )
        above: dict[int, list[int]] = {}
        for pk, caller, label in query.all():
            if (call := Call.parse(label)) is not None:
                walks |= dict.fromkeys(below[pk], (caller, call))
            else:
                above.setdefault(caller.pk, []).extend(below[pk])
        below = above
    return walks


def find_walk(process: orm.ProcessNode) -> tuple[orm.WorkChainNode, Call] | None:
    """Return campaign and call below which a process ran; None if it ran below none."""
    return find_walks([process]).get(process.pk)
