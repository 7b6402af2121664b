"""Select entries of the queue, by their keys or by filters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from aiida_oodal.engine.errors import OodalError

from .entry import Entry, QueueStatus
from .table import EntryTable
from .transaction import open_table

#: Keys are this long; shorter ones are beginnings of keys.
KEY_LENGTH = 25


@dataclass(frozen=True)
class Selection:
    """Filters on entries of the queue; those that are not given are not applied.

    :param keys: their keys, or beginnings of keys that mean one entry each.
    :param statuses: one of these.
    :param campaign: UUID of a process that asked for them.
    :param level: hash of their level of theory, empty for those that have none.
    :param labeller: entry point of the labeller of their level.
    :param elements: that they have, all of them.
    :param older_than: since they were asked for first.
    :param newer_than: since they were asked for first.
    :param gamma_above: of the atom that they were cut out for.
    :param gamma_below: of the atom that they were cut out for.
    """

    keys: tuple[str, ...] = ()
    statuses: tuple[QueueStatus, ...] = ()
    campaign: str | None = None
    level: str | None = None
    labeller: str | None = None
    elements: tuple[str, ...] = ()
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    gamma_above: float | None = None
    gamma_below: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no filter, so that all entries are selected."""
        return self == Selection()


def select_entries(selection: Selection, limit: int | None = None) -> list[Entry]:
    """Return entries, those with the highest priority first, then the oldest.

    :param limit: how many at most.
    :raises OodalError: if a key is not in the queue, or the beginning of several.
    """
    table = open_table()
    order = (sa.desc(table.number('priority')), table.field('added'), table.field('key'))
    return list(table.read(*_list_conditions(table, selection), order=order, limit=limit).values())


def count_selected(selection: Selection) -> dict[QueueStatus, int]:
    """Return how many of the entries have each status.

    :raises OodalError: if a key is not in the queue, or the beginning of several.
    """
    table = open_table()
    counts = table.count(*_list_conditions(table, selection))
    return {status: counts.get(status.value, 0) for status in QueueStatus}


def sum_core_hours(selection: Selection) -> float | None:
    """Return the core hours that entries cost; None if they are not known for any.

    :raises OodalError: if a key is not in the queue, or the beginning of several.
    """
    table = open_table()
    return table.sum_hours(*_list_conditions(table, selection))


def find_keys(beginnings: Iterable[str]) -> list[str]:
    """Return the full keys for beginnings of keys.

    :raises OodalError: if there is none, or more than one.
    """
    table, asked = open_table(), [text.strip() for text in beginnings]
    known = set(table.read_keys(text for text in asked if len(text) == KEY_LENGTH))
    return [text if text in known else _complete_key(table, text) for text in asked]


def describe_level(level: str) -> str:
    """Return a level of theory in words, or its hash where the queue does not know it."""
    table = open_table()
    found = table.read(table.field('level') == level, limit=1)
    return next((entry.theory for entry in found.values() if entry.theory), level)


@dataclass(frozen=True)
class LevelCount:
    """How many entries a level of theory has.

    :param hash: of the level; empty for entries that have none.
    :param labeller: entry point.
    :param text: the level in words.
    :param counts: by status.
    """

    hash: str
    labeller: str
    text: str
    counts: dict[str, int]


def count_levels() -> list[LevelCount]:
    """Return the levels of theory in the queue, those with most entries first."""
    levels: dict[str, LevelCount] = {}
    for (level, labeller, theory, status), count in open_table().count_by('level', 'labeller', 'theory').items():
        made = levels.setdefault(level, LevelCount(level, labeller, theory or 'no level of theory yet', {}))
        made.counts[status] = made.counts.get(status, 0) + count
    return sorted(levels.values(), key=lambda level: (-sum(level.counts.values()), level.hash))


def _complete_key(table: EntryTable, text: str) -> str:
    key = table.field('key')
    # What follows is a hexadecimal digit, before 'g' in every order of letters that a database may have.
    found = {entry.key for entry in table.read(key >= text, key < f'{text}g').values()} if text else set()
    if len(found) == 1:
        return found.pop()
    if not found:
        raise OodalError(f'no entry of the queue begins with {text!r}; `aiida-oodal queue list` shows what there is')
    raise OodalError(f'{len(found)} entries of the queue begin with {text!r}: give more letters')


def _list_conditions(table: EntryTable, selection: Selection) -> Sequence[Any]:
    """Return the conditions of a query.

    :raises OodalError: if a key is not in the queue, or the beginning of several.
    """
    return list(_make_conditions(table, selection))


def _make_conditions(table: EntryTable, selection: Selection) -> Iterator[Any]:
    names = [status.value for status in selection.statuses]
    yield table.status.in_(names) if names else table.status.is_not(None)
    if selection.keys:
        yield table.field('key').in_(find_keys(selection.keys))
    if selection.campaign is not None:
        yield table.asked_by(selection.campaign)
    for name in ('level', 'labeller'):
        if (value := getattr(selection, name)) is not None:
            yield table.field(name) == value
    for element in selection.elements:
        yield table.field('elements').contains(f'"{element}"')
    now = datetime.now(UTC)
    if selection.older_than is not None:
        yield table.field('added') < (now - selection.older_than).isoformat(timespec='microseconds')
    if selection.newer_than is not None:
        yield table.field('added') >= (now - selection.newer_than).isoformat(timespec='microseconds')
    if selection.gamma_above is not None:
        yield table.number('gamma') > selection.gamma_above
    if selection.gamma_below is not None:
        yield table.number('gamma') < selection.gamma_below
