"""Processes that nobody will ever work on, and processes that ended and were not closed: what a kill can leave."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

#: Seconds after which a process that was just submitted or has just ended is in order.
_SOON = 3.0
#: Longest that whoever runs a process may take to answer [s].
_ANSWER = 5.0
#: What closes a process that ended takes less.
_CLOSING = timedelta(minutes=1)


def find_orphans() -> list[Any]:
    """Return the active processes that no worker will take up: there is no task for them, and nobody runs them.

    Its submitter was killed before the broker had heard of it, or the broker lost it. Known of the ZeroMQ broker only.
    """
    suspects = _without_task()
    if suspects:
        time.sleep(_SOON)
        suspects = {pk: node for pk, node in _without_task().items() if pk in suspects}
    return [node for pk, node in sorted(suspects.items()) if not _is_run_by_somebody(pk)]


def revive_orphans() -> list[Any]:
    """Give orphans a task, and return them."""
    from aiida.engine.processes.control import revive_processes

    orphans = find_orphans()
    if orphans:
        revive_processes(orphans)
    return orphans


def find_unclosed() -> list[Any]:
    """Return the processes that were killed between their end and its last entry; AiiDA would never export them."""
    from aiida.orm import ProcessNode, QueryBuilder

    filters = {
        'attributes.process_state': {'in': ['finished', 'excepted', 'killed']},
        'attributes': {'!has_key': 'sealed'},
        'mtime': {'<': datetime.now(UTC) - _CLOSING},
    }
    query = QueryBuilder().append(ProcessNode, filters=filters, tag='process')
    return list(query.order_by({'process': {'id': 'asc'}}).all(flat=True))


def close_ended() -> list[Any]:
    """Close what ended, and return it."""
    unclosed = find_unclosed()
    for node in unclosed:
        node.seal()
    return unclosed


def _without_task() -> dict[int, Any]:
    """Return active processes, by pk, of which the broker knows nothing; functions run inside of others."""
    from aiida.engine.processes.control import get_active_processes
    from aiida.orm import CalcFunctionNode, WorkFunctionNode

    from .daemon import read_tasks

    active, tasks = get_active_processes(), read_tasks()
    if tasks is None:
        return {}
    return {
        node.pk: node
        for node in active
        if node.pk not in tasks and not isinstance(node, (CalcFunctionNode, WorkFunctionNode))
    }


def _is_run_by_somebody(pk: int) -> bool:
    """Ask whoever runs a process, a worker or a shell, how it is; an answer that does not come proves nothing."""
    from aiida.manage import get_manager
    from plumpy.futures import unwrap_kiwi_future

    try:
        unwrap_kiwi_future(get_manager().get_process_controller().get_status(pk)).result(timeout=_ANSWER)
    except TimeoutError:
        return True
    except Exception as error:  # the ZeroMQ communicator knows no other class
        return 'Recipient not found' not in str(error)
    return True
