"""Processes that wait, paused, until people have imported labels."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aiida import orm
from aiida.manage import get_manager
from plumpy.futures import unwrap_kiwi_future

from aiida_oodal.engine.label.level import OUTSIDE

#: How the status of a process begins that waits for people.
WAITING = 'waits'
#: Longest that a worker may take to answer [s].
_ANSWER = 5.0


def find_waiting() -> list[Any]:
    """Return the processes that wait for people, the oldest first."""
    filters = {
        'process_type': f'aiida.workflows:{OUTSIDE}',
        'attributes.process_state': {'in': ['created', 'waiting', 'running']},
        'attributes.paused': True,
        'attributes.process_status': {'like': f'{WAITING}%'},
    }
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters=filters, tag='process')
    return list(query.order_by({'process': {'ctime': 'asc'}}).all(flat=True))


def wake_waiting() -> list[Any]:
    """Let the processes that wait for people look at the queue now, and return them.

    A process that no worker runs looks at the queue when a worker takes it up; all others also look once a minute.
    """
    waiting = find_waiting()
    for node in waiting:
        with suppress(Exception):  # the communicators of the brokers share no class of errors
            controller = get_manager().get_process_controller()
            unwrap_kiwi_future(controller.play_process(node.pk)).result(timeout=_ANSWER)
    return waiting
