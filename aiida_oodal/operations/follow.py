"""Follow a process until it ends: the loop that waits for the daemon."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcJobState
from aiida.common.links import LinkType

from .processes import ACTIVE, find_other_users


def follow(process: orm.ProcessNode, poll_seconds: float = 0.5) -> Iterator[list[str]]:
    """Look at a process again and again until it has ended, once more after its end, and yield what it reported.

    :param poll_seconds: time between two looks.
    :return: at every look the reports that are new, in the order of their time.
    """
    seen = 0
    while True:
        ended = process.is_terminated
        query = orm.QueryBuilder().append(
            orm.Log, filters={'dbnode_id': process.pk, 'id': {'>': seen}}, project=['id', 'message'], tag='log'
        )
        # Those that came in an archive have PKs in no order; all that come later have larger ones.
        rows = query.order_by({'log': ['time', 'id']}).all()
        seen = max([seen, *(identifier for identifier, _ in rows)])
        # A report reads "[pk|class|step]: text"; the text is what a user wants.
        yield [message.split(']: ', 1)[-1] for _, message in rows]
        if ended:
            return
        time.sleep(poll_seconds)


def describe_activity(campaign: orm.WorkChainNode) -> str:
    """Say in one line what the processes of a campaign are doing, or why nothing happens."""
    if campaign.paused:
        return _describe_pause(campaign)
    working = _find_working(campaign)
    jobs = Counter(each.call for each in working if isinstance(each.process, orm.CalcJobNode))
    named: dict[str, list[Any]] = {}
    for each in working:
        if isinstance(each.process, orm.CalcJobNode):
            # Of several jobs of one call each has its own name, such as that of a seed.
            name = each.call if jobs[each.call] == 1 else f'{each.call}, {each.name}'
            named.setdefault(name, []).append(each.process)
        elif each.process.paused:
            named.setdefault(each.call, []).append(each.process)
    if named:
        return ';  '.join(_describe(name, processes) for name, processes in named.items())
    from .daemon import daemon_runs

    if daemon_runs() or find_other_users():
        return 'the daemon is taking the next step'
    return 'no daemon is running: `verdi daemon start` lets it go on'


def _describe(name: str, processes: list[Any]) -> str:
    """Return what processes of one name do; of several, such as labels of one batch, what the oldest does."""
    oldest = processes[0]
    text = _describe_job(oldest) if isinstance(oldest, orm.CalcJobNode) else _describe_pause(oldest)
    return f'{name}: {text}' if len(processes) == 1 else f'{name}: {len(processes)} of them, the oldest: {text}'


def _describe_pause(process: orm.ProcessNode) -> str:
    """Return that a process is paused, why, and the command that resumes it."""
    reason = f' ({process.process_status})' if process.process_status else ''
    return f'{process.process_label}<{process.pk}> is paused{reason}: `verdi process play {process.pk}` lets it go on'


def _describe_job(job: orm.CalcJobNode) -> str:
    """Return the last line of a job's output where that is on this machine, else its state.

    If the scheduler has the job, its state is the scheduler's word. A paused job waits for somebody, whatever its
    state.
    """
    if job.paused:
        return 'paused, `aiida-oodal doctor` says why'
    path = Path(job.get_remote_workdir() or '') / (job.get_option('output_filename') or '')
    if job.computer.transport_type == 'core.local' and path.is_file():
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
        said = [line.strip() for line in lines if any(letter.isalnum() for letter in line)]  # no rulers
        if said:
            return said[-1]
    state = job.get_state()
    if state is None:
        return 'waits for a worker'
    scheduler = job.get_scheduler_state() if state is CalcJobState.WITHSCHEDULER else state
    return 'submitted' if scheduler is None else str(scheduler.value)


@dataclass(frozen=True)
class _Working:
    """A job or WorkChain below a campaign that has not ended.

    :param call: of the campaign that it belongs to, as ``explore 2 hot``.
    :param name: of its own call.
    """

    process: Any
    call: str
    name: str


def _find_working(campaign: orm.WorkChainNode) -> list[_Working]:
    """Return what has not ended below a campaign, the oldest first.

    One query for each generation, however large the profile is; also below what has ended, as late labels are computed
    below a labeller that did not wait for them.
    """
    names: dict[int, tuple[str, str]] = {}
    callers, working = {campaign.pk}, set()
    while callers:
        query = orm.QueryBuilder().append(
            orm.WorkChainNode, filters={'id': {'in': sorted(callers)}}, project='id', tag='caller'
        )
        query.append(
            (orm.CalcJobNode, orm.WorkChainNode),
            with_incoming='caller',
            edge_filters={'type': {'in': [LinkType.CALL_CALC.value, LinkType.CALL_WORK.value]}},
            edge_project='label',
            project=['id', 'attributes.process_state'],
        )
        callers = set()
        for caller, pk, state, label in query.all():
            own = _in_words(label)
            names[pk] = (names[caller][0] if caller in names else own, own)
            callers.add(pk)
            if state in ACTIVE:
                working.add(pk)
    if not working:
        return []
    query = orm.QueryBuilder().append(
        (orm.CalcJobNode, orm.WorkChainNode), filters={'id': {'in': sorted(working)}}, tag='process'
    )
    nodes = query.order_by({'process': {'ctime': 'asc'}}).all(flat=True)
    return [_Working(node, *names[node.pk]) for node in nodes]


def _in_words(label: str) -> str:
    return label.replace('_', ' ')
