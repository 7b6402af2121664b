"""Processes that nobody will ever work on, and processes that ended and were not closed: what a kill can leave."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

#: Age at which a process that was just submitted, or has just ended, is in order.
_SETTLED = timedelta(minutes=1)
#: Longest that a worker may take to answer [s].
_ANSWER = 5.0


def find_orphans() -> list[Any]:
    """Return the active processes that nobody will go on with; known of the ZeroMQ broker only.

    Those that were stored and never begun: their submitter was killed before the broker had heard of them. And those
    that were begun, if nobody has them in hand and no shell is there that could run them by itself (``run``).
    """
    never_begun = _without_task('created', older_than=_SETTLED)
    begun = [] if find_other_users() else find_begun_without_task()
    return [*never_begun, *(node for node in begun if not _is_in_hand(node.pk))]


def revive_orphans() -> list[Any]:
    """Give orphans a task, and return them."""
    from aiida.engine.processes.control import revive_processes

    orphans = find_orphans()
    if orphans:
        # A task that ends when the process does: one that a worker does not wait for would be gone with the worker.
        revive_processes(orphans, wait=True)
    return orphans


def find_begun_without_task() -> list[Any]:
    """Return the processes that were begun and for which there is no task: a shell runs them, or it was lost."""
    return _without_task('running', 'waiting')


def find_unclosed() -> list[Any]:
    """Return the processes that were killed between their end and its last entry; AiiDA would never export them.

    Not those whose caller is at work: it closes them itself.
    """
    from aiida.orm import ProcessNode, QueryBuilder

    filters = {
        'attributes.process_state': {'in': ['finished', 'excepted', 'killed']},
        'attributes': {'!has_key': 'sealed'},
        'mtime': {'<': datetime.now(UTC) - _SETTLED},
    }
    query = QueryBuilder().append(ProcessNode, filters=filters, tag='process').order_by({'process': {'id': 'asc'}})
    return [node for node in query.all(flat=True) if node.caller is None or node.caller.is_terminated]


def close_ended() -> list[Any]:
    """Close what ended, and return it."""
    from aiida_oodal.workchains.resuming import close_process

    unclosed = find_unclosed()
    for node in unclosed:
        close_process(node)
    return unclosed


def find_other_users() -> list[psutil.Process]:
    """Return the shells, scripts and notebooks on this machine that have loaded this profile."""
    from aiida.manage.configuration import get_profile
    from aiida.manage.profile_access import ProfileAccessManager

    from .daemon import find_daemon_processes

    ours = {psutil.Process().pid, *(process.pid for process in find_daemon_processes())}
    found = []
    for path in Path(ProfileAccessManager(get_profile())._dirpath_records).glob('*.pid'):
        # As AiiDA does: the file of a process that was killed may bear the number of another now.
        with suppress(psutil.Error):
            process = psutil.Process(int(path.stem))
            if process.pid not in ours and path.read_text() == str(process.cmdline()):
                found.append(process)
    return found


def _without_task(*states: str, older_than: timedelta = timedelta(0)) -> list[Any]:
    """Return processes in these states that the ZeroMQ broker has no task for; functions run inside of others."""
    from aiida.orm import CalcJobNode, QueryBuilder, WorkChainNode

    from .daemon import read_tasks

    filters = {'attributes.process_state': {'in': list(states)}, 'mtime': {'<': datetime.now(UTC) - older_than}}
    found = []
    for kind in (CalcJobNode, WorkChainNode):
        found += QueryBuilder().append(kind, filters=filters).all(flat=True)
    tasks = read_tasks() if found else None
    if tasks is None:
        return []
    # One that ended after it was asked for has no task any more.
    return [node for node in found if node.pk not in tasks and not node.is_terminated]


def _is_in_hand(pk: int) -> bool:
    """Ask the worker that has a process how it is; an answer that does not come proves nothing."""
    from aiida.manage import get_manager
    from plumpy.futures import unwrap_kiwi_future

    try:
        unwrap_kiwi_future(get_manager().get_process_controller().get_status(pk)).result(timeout=_ANSWER)
    except TimeoutError:
        return True
    except Exception as error:  # the ZeroMQ communicator knows no other class
        return 'Recipient not found' not in str(error)
    return True
