"""Processes that AiiDA paused because a computer or its scheduler did not answer, five times in a row."""

from __future__ import annotations

from typing import Any

from aiida_oodal.engine.errors import OodalError

from .remote import run_on

#: How AiiDA begins the status of such a process; one that a user paused says something else.
#: Source: ``aiida.engine.processes.calcjobs.tasks.Waiting.execute``.
_GAVE_UP = 'Pausing after failed transport task'
#: Longest that a worker may take to answer [s].
_TIMEOUT = 60.0


def find_paused() -> list[Any]:
    """Return all paused processes, also those that a user paused."""
    from aiida.orm import ProcessNode, QueryBuilder

    active = {'attributes.process_state': {'in': ['created', 'waiting', 'running']}, 'attributes.paused': True}
    query = QueryBuilder().append(ProcessNode, filters=active, tag='process')
    return list(query.order_by({'process': {'id': 'asc'}}).all(flat=True))


def resume_paused() -> list[Any]:
    """Let those go on whose computer answers again, and return them; what a user paused stays paused."""
    from aiida.engine.processes.control import play_processes

    answers: dict[int, bool] = {}
    ready = []
    for node in find_paused():
        if not (node.process_status or '').startswith(_GAVE_UP):
            continue
        if node.computer.pk not in answers:
            answers[node.computer.pk] = _answers(node.computer)
        if answers[node.computer.pk]:
            ready.append(node)
    if ready:
        play_processes(ready, timeout=_TIMEOUT)
    return ready


def _answers(computer: Any) -> bool:
    try:
        run_on(computer, 'whoami')
    except OodalError:
        return False
    return True
