"""Processes that do not go on by themselves: paused, without a task, or ended and not closed.

AiiDA pauses a process if a computer or its scheduler did not answer five times in a row. The other two can be left by a
kill. What only a repair needs is imported by it: looking at processes must not wait for AiiDA's engine.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.manage import get_manager
from aiida.manage.configuration import get_profile
from aiida.manage.profile_access import ProfileAccessManager
from aiida.orm import CalcJobNode, Log, ProcessNode, QueryBuilder, WorkChainNode, load_node

from aiida_oodal.engine.errors import OodalError

if TYPE_CHECKING:
    from aiida.engine import Process

#: States of the processes that have not ended, and a filter of these.
ACTIVE = ('created', 'waiting', 'running')
_ACTIVE = {'attributes.process_state': {'in': list(ACTIVE)}}
#: How AiiDA begins the status of a process that it paused; one that a user paused says something else.
#: Source: ``aiida.engine.processes.calcjobs.tasks.Waiting.execute``.
_GAVE_UP = 'Pausing after failed transport task'
#: What AiiDA logs of a process each time that it gives up; source: ``aiida.engine.utils.exponential_backoff_retry``.
_GIVING_UP = 'maximum attempts % of calling %, exceeded'
#: A process that it gave up so often has more than a computer that was away for a while: somebody has to look.
_OFTEN = 4
#: Longest that workers may take to let processes go on [s].
_PLAYED = 60.0
#: Longest that a worker may take to say how a process is [s].
_ANSWER = 5.0
#: Age at which a process that was just submitted, or has just ended, is in order.
_SETTLED = timedelta(minutes=1)


def find_process(identifier: str, process_class: type[Process]) -> Any:
    """Return the process of a class by its PK or UUID.

    :raises OodalError: if there is none, saying how to list them.
    """
    way_out = f'`verdi process list -a -L {process_class.__name__}` lists those there are'
    try:
        node = load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise OodalError(f'{error}. {way_out}') from error
    if getattr(node, 'process_class', None) is not process_class:
        raise OodalError(f'{node} is no {process_class.__name__}. {way_out}')
    return node


def find_active() -> list[Any]:
    """Return the jobs and WorkChains that have not ended, the oldest first."""
    return _find(_ACTIVE, CalcJobNode, WorkChainNode)


def count_active() -> int:
    """Return how many processes have not ended."""
    return int(QueryBuilder().append(ProcessNode, filters=_ACTIVE).count())


def find_paused() -> list[Any]:
    """Return all paused processes, also those that a user paused."""
    return _find(_ACTIVE | {'attributes.paused': True})


def find_resumable() -> list[Any]:
    """Return the paused processes whose computer answers again.

    Processes that a user paused are left out, and those that AiiDA has paused several times: a cron job must not resume
    the same process for ever.
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
        play_processes(ready, timeout=_PLAYED)
    # Those of which no worker knew yet are left for the next time.
    still = {node.pk for node in find_paused()}
    return [node for node in ready if node.pk not in still]


def find_orphans() -> list[Any]:
    """Return the active processes that no worker will run; only for the ZeroMQ broker.

    Those that were stored and never begun: their submitter was killed before the broker had heard of them. And those
    that were begun, if nobody has them in hand and no shell is there that could run them by itself (``run``).
    """
    never_begun = _without_task('created', older_than=_SETTLED)
    begun = [] if find_other_users() else find_begun_without_task()
    return [*never_begun, *(node for node in begun if not _is_in_hand(node.pk))]


def find_stranded() -> list[Any]:
    """Return the processes whose task is with a worker that died, which the ZeroMQ broker has not noticed.

    When a connection ends, the broker of AiiDA 2.9 asks its workers once whether they are there. If it asks a moment
    too early, the dead one counts as alive, and it never asks again by itself: the question of this function, which
    it cannot pass on to the dead one, makes it notice, and give the task to another.
    """
    from aiida_oodal.workchains.broker import read_tasks

    held = read_tasks(('processing',)) or set()
    filters = {**_ACTIVE, 'mtime': {'<': datetime.now(UTC) - _SETTLED}, 'id': {'in': sorted(held)}}
    return [node for node in (_find(filters) if held else []) if not _is_in_hand(node.pk)]


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
    filters = {
        'attributes.process_state': {'in': ['finished', 'excepted', 'killed']},
        'attributes': {'!has_key': 'sealed'},
        'mtime': {'<': datetime.now(UTC) - _SETTLED},
    }
    return [node for node in _find(filters) if node.caller is None or node.caller.is_terminated]


def close_ended() -> list[Any]:
    """Close what ended, and return it."""
    from aiida_oodal.workchains.resuming import close_process

    unclosed = find_unclosed()
    for node in unclosed:
        close_process(node)
    return unclosed


def find_other_users() -> list[psutil.Process]:
    """Return the shells, scripts and notebooks on this machine that have loaded this profile."""
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


def _find(filters: dict[str, Any], *kinds: type[ProcessNode]) -> list[Any]:
    """Return the processes that a filter lets through, the oldest first: PKs of an archive have no order."""
    query = QueryBuilder().append(kinds or ProcessNode, filters=filters, tag='process')
    return list(query.order_by({'process': {'ctime': 'asc'}}).all(flat=True))


def _without_task(*states: str, older_than: timedelta | None = None) -> list[Any]:
    """Return processes in these states that the ZeroMQ broker has no task for; functions run inside of others."""
    from aiida_oodal.workchains.broker import read_tasks

    filters: dict[str, Any] = {'attributes.process_state': {'in': list(states)}}
    if older_than is not None:  # else not: one that changes at this very moment counts, too
        filters['mtime'] = {'<': datetime.now(UTC) - older_than}
    found = _find(filters, CalcJobNode, WorkChainNode)
    tasks = read_tasks() if found else None
    if tasks is None:
        return []
    # One that ended after it was asked for has no task any more.
    return [node for node in found if node.pk not in tasks and not node.is_terminated]


def _is_in_hand(pk: int) -> bool:
    """Return whether a worker answers for a process; without an answer nothing is known."""
    from plumpy.futures import unwrap_kiwi_future

    try:
        unwrap_kiwi_future(get_manager().get_process_controller().get_status(pk)).result(timeout=_ANSWER)
    except TimeoutError:
        return True
    except Exception as error:  # the ZeroMQ communicator knows no other class
        return 'Recipient not found' not in str(error)
    return True


def _times_given_up(node: Any) -> int:
    filters = {'dbnode_id': node.pk, 'message': {'like': _GIVING_UP}}
    return int(QueryBuilder().append(Log, filters=filters).count())


def _answers(computer: Any) -> bool:
    from .computers import run_on

    try:
        run_on(computer, 'whoami')
    except OodalError:
        return False
    return True
