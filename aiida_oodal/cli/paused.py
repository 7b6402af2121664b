"""Processes that AiiDA paused because a computer or its scheduler did not answer, five times in a row."""

from __future__ import annotations

from typing import Any

from aiida_oodal.engine.errors import OodalError

from .remote import run_on

#: How AiiDA begins the status of such a process; one that a user paused says something else.
#: Source: ``aiida.engine.processes.calcjobs.tasks.Waiting.execute``.
_GAVE_UP = 'Pausing after failed transport task'
#: What AiiDA logs of a process each time that it gives up; source: ``aiida.engine.utils.exponential_backoff_retry``.
_GIVING_UP = 'maximum attempts % of calling %, exceeded'
#: A process that it gave up so often has more than a computer that was away for a while: somebody has to look.
_OFTEN = 4
#: Longest that a worker may take to answer [s].
_TIMEOUT = 60.0


def find_paused() -> list[Any]:
    """Return all paused processes, also those that a user paused."""
    from aiida.orm import ProcessNode, QueryBuilder

    active = {'attributes.process_state': {'in': ['created', 'waiting', 'running']}, 'attributes.paused': True}
    query = QueryBuilder().append(ProcessNode, filters=active, tag='process')
    return list(query.order_by({'process': {'id': 'asc'}}).all(flat=True))


def find_resumable() -> list[Any]:
    """Return the paused processes whose computer answers again.

    Not those that a user paused, and not those that AiiDA gave up again and again: a cron job must not play the same
    process for ever.
    """
    answers: dict[int, bool] = {}
    ready = []
    for node in find_paused():
        if not (node.process_status or '').startswith(_GAVE_UP) or _times_given_up(node) >= _OFTEN:
            continue
        if node.computer.pk not in answers:
            answers[node.computer.pk] = _answers(node.computer)
        if answers[node.computer.pk]:
            ready.append(node)
    return ready


def resume_paused() -> list[Any]:
    """Let :func:`find_resumable` processes go on, and return those that do."""
    from aiida.engine.processes.control import play_processes

    ready = find_resumable()
    if ready:
        play_processes(ready, timeout=_TIMEOUT)
    # Those of which no worker knew yet are left for the next time.
    still = {node.pk for node in find_paused()}
    return [node for node in ready if node.pk not in still]


def _times_given_up(node: Any) -> int:
    from aiida.orm import Log, QueryBuilder

    filters = {'dbnode_id': node.pk, 'message': {'like': _GIVING_UP}}
    return int(QueryBuilder().append(Log, filters=filters).count())


def _answers(computer: Any) -> bool:
    try:
        run_on(computer, 'whoami')
    except OodalError:
        return False
    return True
