"""All changes of entries of the DFT queue.

An entry is a structure at a level of theory: the same atoms under the same level are one entry, whoever asks for them.
Its state is an extra of the structures, a copy on each node that holds these atoms, so that it can change, travels with
an archive, and is found by a query: ``append(ClusterData, filters={'extras.oodal_queue.status': 'PENDING_DFT'})``. An
extra counts only if it names the node that it is on: a copy from AiiDA's cache carries the extras of its source.

An entry may begin without a level of theory, as the candidates of a screening do. The labeller that takes it gives it
its own level; if there is an entry of the same atoms at that level already, the two become one. A node belongs to one
entry: to label its atoms at another level, too, put a copy of the node into the queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aiida import orm
from aiida.orm.nodes.process.process import ProcessState

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.level import OUTSIDE, LevelOfTheory, make_key

from .entry import NEXT, Entry, QueueStatus
from .table import EntryTable, is_uuid
from .transaction import open_table, queue_transaction


class OtherLevelError(OodalError):
    """Nodes are entries at another level of theory already.

    :ivar nodes: their UUIDs.
    """

    def __init__(self, entries: Iterable[Entry], level: LevelOfTheory) -> None:
        taken = list(entries)
        self.nodes = [entry.node for entry in taken]
        super().__init__(
            f'node {taken[0].node} is entry {taken[0].key} of the queue at the level of theory {taken[0].theory!r}, '
            f'and cannot be one at {level.text!r}, too: put a copy of the node into the queue'
        )


def enqueue(
    nodes: Iterable[orm.StructureData],
    level: LevelOfTheory | None,
    *,
    campaign: str | None = None,
    priority: int = 0,
    scores: Mapping[str, float] | None = None,
) -> dict[str, Entry]:
    """Put structures into the queue; if the same label was asked for before, join its entry.

    Repeating the call changes nothing. An entry that exists keeps its status; the campaign is added to it, the priority
    is raised if the new one is higher, and an entry without a level gets the given level.

    :param nodes: stored nodes.
    :param level: None if the labeller that takes them may choose it.
    :param campaign: UUID of the process that asks.
    :param scores: by UUID of the nodes, for nodes without a score of their own.
    :return: the entries by the UUID of the given nodes.
    :raises OtherLevelError: if a node is an entry at another level; nothing is changed then.
    """
    fresh = {node.uuid: _make_entry(node, level, priority, (scores or {}).get(node.uuid)) for node in nodes}
    with queue_transaction() as table:
        held = table.read_nodes(fresh)
        if level is not None:
            others = [entry for entry in held.values() if entry.level not in ('', level.hash)]
            if others:
                raise OtherLevelError(others, level)
        asked = {uuid: held[uuid].key if level is None and uuid in held else entry.key for uuid, entry in fresh.items()}
        shown = table.read_keys([*asked.values(), *(entry.key for entry in held.values())])
        changed: dict[str, Entry] = {}
        for uuid, key in asked.items():
            before, joining = shown.get(key, {}), {}
            if uuid in held and held[uuid].key != key:  # without a level until now, and so are others with these atoms
                joining = shown.pop(held[uuid].key, {})
            group = {**before, **joining}
            entries = [*_representatives(before), *_representatives(joining), fresh[uuid]]
            entry = _join(entries, level, key, campaign, priority)
            first = entries[0].node
            for node in {*group, uuid}:
                new = replace(entry, node=node, first=node == first)
                if before.get(node) is None or _differ(before[node], new):
                    new = replace(new, changed=_now())
                    changed[node] = new
                group[node] = changed.get(node, before.get(node, new))
            shown[key] = group
        table.write(changed.values())
    return {uuid: shown[key][uuid] for uuid, key in asked.items()}


def claim(owner: str, *, keys: Iterable[str], n: int | None = None) -> list[Entry]:
    """Take waiting entries out of the queue: those with the highest priority first, then the oldest.

    Two processes that claim at the same time never get the same entry. Entries that the owner holds already are
    returned, too, so that a process that was killed in this step gets them again.

    :param owner: UUID of the process that will label them.
    :param keys: which entries may be taken.
    :param n: how many at most, those that the owner holds already included; ``None`` for all.
    """
    with queue_transaction() as table:
        shown = table.read_keys(keys)
        found = [entry for group in shown.values() for entry in _representatives(group)]
        held = [entry for entry in found if entry.owner == owner and entry.status is QueueStatus.SUBMITTED]
        waiting = [entry for entry in found if entry.status is QueueStatus.PENDING_DFT]
        waiting.sort(key=lambda entry: (-entry.priority, entry.added, entry.key))
        room = len(waiting) if n is None else max(n - len(held), 0)
        moves = [
            (entry, {'status': QueueStatus.SUBMITTED, 'owner': owner, 'process': None, 'attempts': entry.attempts + 1})
            for entry in waiting[:room]
        ]
        return held + _move(table, shown, moves)


def assign(keys: Iterable[str], owner: str, process: str) -> None:
    """Note which process computes the labels of entries that an owner holds.

    :param process: UUID of a child of the owner.
    """
    _change(
        keys,
        lambda entry: (
            {'process': process}
            if entry.status is QueueStatus.SUBMITTED and entry.owner == owner and entry.process != process
            else None
        ),
    )


def release(keys: Iterable[str], owner: str, *, hours: Mapping[str, float] | None = None) -> None:
    """Put entries back that an owner took out of the queue and could not label.

    :param hours: by key the core hours that were spent on them.
    """
    _change(
        keys,
        lambda entry: (
            {**_let_go(entry), **_spend(entry, hours)}
            if entry.status is QueueStatus.SUBMITTED and entry.owner == owner
            else None
        ),
    )


def complete(labels: Mapping[str, str], *, hours: Mapping[str, float] | None = None) -> None:
    """Note the labels of entries; one that has a label keeps it.

    :param labels: by key the UUID of the labelled set.
    :param hours: by key the core hours that were spent on them.
    """
    _change(
        labels,
        lambda entry: (
            {
                'status': QueueStatus.LABELLED,
                'label': labels[entry.key],
                'reason': None,
                **_spend(entry, hours),
            }
            if entry.status is not QueueStatus.LABELLED
            else None
        ),
    )


def fail(reasons: Mapping[str, str], *, hours: Mapping[str, float] | None = None, max_attempts: int = 1) -> None:
    """Note that entries could not be labelled; one that has a label keeps it.

    :param reasons: by key.
    :param hours: by key the core hours that were spent on them.
    :param max_attempts: one that was tried less often waits again.
    """

    def book(entry: Entry) -> dict[str, Any] | None:
        if entry.status is not QueueStatus.SUBMITTED:
            return None
        spent = {'reason': reasons[entry.key], **_spend(entry, hours)}
        if entry.attempts < max_attempts:
            return {'status': QueueStatus.PENDING_DFT, 'owner': None, 'process': None, **spent}
        return {'status': QueueStatus.FAILED, **spent}

    _change(reasons, book)


def reject(keys: Iterable[str], reason: str) -> list[Entry]:
    """Mark entries as REJECTED: they will not be labelled.

    Entries that were exported for labelling elsewhere can be rejected, too: no process here is computing them.

    :raises OodalError: if one is being labelled, or has a label.
    """
    return _change(keys, lambda entry: _step(entry, QueueStatus.REJECTED, reason=reason))


def retry(keys: Iterable[str]) -> list[Entry]:
    """Let entries that failed or were rejected wait again.

    :raises OodalError: if one is being labelled, or has a label.
    """
    return _change(keys, lambda entry: _step(entry, QueueStatus.PENDING_DFT, owner=None, process=None, reason=None))


def prioritise(keys: Iterable[str], priority: int) -> list[Entry]:
    """Set the priority of entries; those with a higher one are labelled first."""
    return _change(keys, lambda entry: {'priority': priority})


def release_expired() -> list[Entry]:
    """Put entries back whose owner ended without a label for them, and that no process is labelling.

    An entry whose process succeeded keeps its owner: its label exists, and the next labeller enters it.
    """
    with queue_transaction() as table:
        entries = list(table.read(table.status == QueueStatus.SUBMITTED.value).values())
        working, succeeded = _processes({uuid for entry in entries for uuid in (entry.owner, entry.process) if uuid})
        moves = [
            (entry, _let_go(entry))
            for entry in entries
            if not {entry.owner, entry.process} & working and entry.process not in succeeded
        ]
        return _move(table, table.read_keys(entry.key for entry, _ in moves), moves)


def get_entries(keys: Iterable[str]) -> dict[str, Entry]:
    """Return entries by their key; keys that are not in the queue are left out."""
    shown = open_table().read_keys(keys)
    return {entry.key: entry for group in shown.values() for entry in _representatives(group)}


def find_entries(
    status: QueueStatus | None = None, campaign: str | None = None, level: str | None = None
) -> list[Entry]:
    """Return entries of the queue, the oldest first.

    :param campaign: only those that the process with this UUID asked for.
    :param level: only those of the level of theory with this hash.
    """
    table = open_table()
    where = [table.status.is_not(None) if status is None else table.status == status.value]
    if level is not None:
        where.append(table.field('level') == level)
    if campaign is not None:
        where.append(table.asked_by(campaign))
    return sorted(table.read(*where).values(), key=lambda entry: (entry.added, entry.key))


def count_entries() -> dict[QueueStatus, int]:
    """Return how many entries have each status."""
    counts = open_table().count()
    return {status: counts.get(status.value, 0) for status in QueueStatus}


def _make_entry(node: orm.StructureData, level: LevelOfTheory | None, priority: int, score: float | None) -> Entry:
    """Return a new entry for a node."""
    from aiida_oodal.engine.content import content_key  # with scipy, which a look at the queue does without

    attributes = node.base.attributes
    stored: str | None = attributes.get('content_key', None)
    level_hash = '' if level is None else level.hash
    return Entry(
        node=node.uuid,
        first=True,
        key=make_key(stored or content_key(node.get_ase()), level_hash),
        status=QueueStatus.PENDING_DFT,
        level=level_hash,
        labeller='' if level is None else level.labeller,
        theory='' if level is None else level.text,
        priority=priority,
        formula=node.get_formula('hill'),
        elements=tuple(sorted(node.get_symbols_set())),
        atoms=len(attributes.get('sites')),
        gamma=attributes.get('gamma_cluster', attributes.get('gamma_parent', None)),
        score=attributes.get('score', score),
        added=_now(),
    )


def _join(entries: list[Entry], level: LevelOfTheory | None, key: str, campaign: str | None, priority: int) -> Entry:
    """Join entries into one, with the status of the first."""
    campaigns = dict.fromkeys(uuid for entry in entries for uuid in entry.campaigns)
    if campaign is not None:
        campaigns[campaign] = None
    theory: dict[str, Any] = {}
    if level is not None and not entries[0].level:
        theory = {'level': level.hash, 'labeller': level.labeller, 'theory': level.text}
    return replace(
        entries[0],
        key=key,
        campaigns=tuple(campaigns),
        priority=max(priority, *(entry.priority for entry in entries)),
        score=next((entry.score for entry in entries if entry.score is not None), None),
        added=min(entry.added for entry in entries),
        **theory,
    )


def _differ(before: Entry, new: Entry) -> bool:
    return replace(before, changed='') != replace(new, changed='')


def _change(keys: Iterable[str], book: Any) -> list[Entry]:
    """Change entries, each on every node that shows it.

    :param book: returns for an entry the values that change, None if nothing does.
    :raises OodalError: if one is not in the queue.
    """
    asked = sorted(set(keys))
    with queue_transaction() as table:
        shown = table.read_keys(asked)
        if missing := [key for key in asked if key not in shown]:
            raise OodalError(f'{missing[0]} is not in the queue; `aiida-oodal queue list` shows what is')
        entries = [entry for group in shown.values() for entry in _representatives(group)]
        moves = [(entry, book(entry)) for entry in entries]
        return _move(table, shown, [(entry, values) for entry, values in moves if values is not None])


def _move(
    table: EntryTable, shown: Mapping[str, Mapping[str, Entry]], moves: Iterable[tuple[Entry, Mapping[str, Any]]]
) -> list[Entry]:
    """Change entries on every node that shows them, and return them as they are then."""
    moved, changed = [], []
    for entry, values in moves:
        new = replace(entry, **values, changed=_now())
        moved.append(new)
        changed += [replace(new, node=node, first=other.first) for node, other in shown[entry.key].items()]
    table.write(changed)
    return moved


def _step(entry: Entry, status: QueueStatus, **values: Any) -> dict[str, Any]:
    """Return the change of an entry that a user asks for.

    :raises OodalError: if it cannot go there.
    """
    given_up = entry.labeller == OUTSIDE and (entry.status, status) == (QueueStatus.SUBMITTED, QueueStatus.REJECTED)
    if status is not entry.status and status not in NEXT[entry.status] and not given_up:
        ways = ', '.join(NEXT[entry.status]) or 'nothing: a label is never taken away'
        raise OodalError(
            f'entry {entry.key} is {entry.status} and cannot become {status}; from there it can go to {ways}'
        )
    return {'status': status, **values}


def _let_go(entry: Entry) -> dict[str, Any]:
    """Return the change with which an entry waits again; the interrupted try does not count as an attempt."""
    attempts = max(entry.attempts - 1, 0)
    return {'status': QueueStatus.PENDING_DFT, 'owner': None, 'process': None, 'attempts': attempts}


def _spend(entry: Entry, hours: Mapping[str, float] | None) -> dict[str, float]:
    """Return what an entry cost so far."""
    if hours is None or entry.key not in hours:
        return {}
    return {'core_hours': (entry.core_hours or 0.0) + hours[entry.key]}


def _representatives(group: Mapping[str, Entry]) -> list[Entry]:
    """Return one of the nodes that show an entry: the first, or any where that was deleted; none of none."""
    ordered = sorted(group.values(), key=lambda entry: (not entry.first, entry.node))
    return ordered[:1]


def _processes(uuids: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return which processes are at work, and which ended well."""
    known = sorted(filter(is_uuid, uuids))
    if not known:  # AiiDA refuses an empty list
        return set(), set()
    query = orm.QueryBuilder().append(
        orm.ProcessNode,
        filters={'uuid': {'in': known}},
        project=['uuid', 'attributes.process_state', 'attributes.exit_status'],
    )
    states = {uuid: (state, status) for uuid, state, status in query.all()}
    ended = {state.value for state in (ProcessState.KILLED, ProcessState.EXCEPTED, ProcessState.FINISHED)}
    working = {uuid for uuid, (state, _) in states.items() if state not in ended}
    return working, {uuid for uuid, pair in states.items() if pair == (ProcessState.FINISHED.value, 0)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec='microseconds')
