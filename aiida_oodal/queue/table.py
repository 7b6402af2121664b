"""Entries in the database of AiiDA: the extras of nodes, found by indexes of our own, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from .entry import EXTRA, Entry

#: Values of one ``IN (...)``; SQLite takes 32766 in a statement.
_CHUNK = 5000
#: How the indexes on the table of nodes are called: without them every look at the queue reads every node.
_INDEX = 'ix_oodal_queue_{}'


class EntryTable:
    """The entries, as one session of the database sees them.

    :param session: of the profile's storage.
    :param node: the class that SQLAlchemy has for the table of nodes.
    """

    def __init__(self, session: Session, node: Any) -> None:
        self._session, self._node = session, node
        self._dialect = session.get_bind().dialect.name

    def field(self, name: str) -> sa.ColumnElement[Any]:
        """Return a value of an entry as text (PostgreSQL), or as it is (SQLite); NULL for nodes without an entry.

        The very text of the expressions of the indexes: databases compare them letter by letter.
        """
        return sa.literal_column(self._field(name), sa.String())

    def number(self, name: str) -> sa.ColumnElement[Any]:
        """Return a number of an entry."""
        return sa.cast(self.field(name), sa.Double())

    @property
    def status(self) -> sa.ColumnElement[Any]:
        """Status on the one node that stands for an entry; NULL on the others, and on copies from AiiDA's cache."""
        return sa.literal_column(self._status(), sa.String())

    def read(self, *where: Any, order: Sequence[Any] = (), limit: int | None = None) -> dict[str, Entry]:
        """Return entries by the UUID of the node that shows them; from the database, not from what AiiDA remembers.

        Not those that a copy from AiiDA's cache brought along: they name another node.
        """
        query = sa.select(self._node.uuid, self._node.extras[EXTRA]).where(self.field('key').is_not(None), *where)
        found = self._session.execute(query.order_by(*order).limit(limit))
        rows = {str(node): extra for node, extra in found}
        return {node: Entry.from_extra(extra) for node, extra in rows.items() if extra['node'] == node}

    def read_keys(self, keys: Iterable[str]) -> dict[str, dict[str, Entry]]:
        """Return by key, and then by node, every node that shows an entry."""
        shown: dict[str, dict[str, Entry]] = defaultdict(dict)
        for chunk in _chunks(sorted(set(keys))):
            for node, entry in self.read(self.field('key').in_(chunk)).items():
                shown[entry.key][node] = entry
        return dict(shown)

    def read_nodes(self, nodes: Iterable[str]) -> dict[str, Entry]:
        """Return the entries that nodes show, by the UUID of the node."""
        shown: dict[str, Entry] = {}
        for chunk in _chunks(sorted(set(nodes))):
            shown |= self.read(
                self._node.uuid.in_([uuid.UUID(node) for node in chunk] if self._is_postgresql else chunk)
            )
        return shown

    def write(self, entries: Iterable[Entry]) -> None:
        """Set the extras of the nodes of entries."""
        node = self._node
        update = (
            sa.update(node.__table__)
            .where(node.__table__.c.uuid == sa.bindparam('of_node'))
            .values(extras=sa.bindparam('new_extras'))
        )
        for chunk in _chunks(list(entries)):
            changed = {entry.node: entry.to_extra() for entry in chunk}
            names = [uuid.UUID(name) for name in changed] if self._is_postgresql else list(changed)
            rows = self._session.execute(
                sa.select(node.uuid, node.extras).where(node.uuid.in_(names)).with_for_update()
            )
            values = [{'of_node': name, 'new_extras': {**extras, EXTRA: changed[str(name)]}} for name, extras in rows]
            if values:
                self._session.execute(update, values)

    def count(self, *where: Any) -> dict[str, int]:
        """Return how many entries have each status."""
        query = (
            sa.select(self.status, sa.func.count())
            .select_from(self._node)
            .where(self.field('key').is_not(None), *where)
        )
        found = self._session.execute(query.group_by(self.status))
        return {str(status): int(count) for status, count in found if status is not None}

    def count_by(self, *names: str) -> dict[tuple[str, ...], int]:
        """Return how many entries have each combination of values and, as the last of them, status."""
        columns = [*(self.field(name) for name in names), self.status]
        query = sa.select(*columns, sa.func.count()).where(self.field('key').is_not(None), self.status.is_not(None))
        query = query.select_from(self._node).group_by(*columns)
        return {tuple(map(str, row[:-1])): int(row[-1]) for row in self._session.execute(query)}

    def asked_by(self, campaign: str) -> sa.ColumnElement[bool]:
        """Return the condition that a process asked for an entry.

        :param campaign: UUID of the process.
        """
        if self._is_postgresql:
            one = sa.cast(sa.literal(json.dumps([campaign]), sa.String()), JSONB())
            return sa.literal_column(self._campaigns(), JSONB()).contains(one)
        # SQLite has no index of the members of lists: one finds those that begin with a process, one those of several
        node, asked, name = aliased(self._node), self.field('campaigns'), json.dumps(campaign)
        alone = sa.select(node.id).where(self.field('key').is_not(None), asked >= f'[{name}', asked < f'[{name}~')
        among = sa.select(node.id).where(
            self.field('key').is_not(None), sa.literal_column(self._is_shared()), asked.contains(name)
        )
        condition: sa.ColumnElement[bool] = self._node.id.in_(sa.union_all(alone, among))
        return condition

    def sum_hours(self, *where: Any) -> float | None:
        """Return the core hours that entries cost; None if they are not known for any."""
        query = sa.select(sa.func.sum(self.number('core_hours'))).select_from(self._node)
        found = self._session.execute(query.where(self.field('key').is_not(None), *where)).scalar()
        return None if found is None else float(found)

    def make_indexes(self) -> None:
        """Make the indexes where they are missing."""
        catalog = (
            "SELECT indexname FROM pg_indexes WHERE tablename = 'db_dbnode'"
            if self._is_postgresql
            else "SELECT name FROM sqlite_master WHERE tbl_name = 'db_dbnode'"
        )
        names = set(self._session.execute(sa.text(catalog)).scalars())
        for name, columns in self._list_indexes().items():
            if name not in names:
                self._session.execute(sa.text(f'CREATE INDEX IF NOT EXISTS {name} ON db_dbnode {columns}'))

    def _list_indexes(self) -> dict[str, str]:
        """Return what each index is of, by name."""
        key, added = self._field('key'), self._field('added')
        of_entries = f'WHERE {key} IS NOT NULL'
        indexes = {
            'key': f'({key}) {of_entries}',
            'status': f'(({self._status()}), ({added})) {of_entries}',
        }
        if self._is_postgresql:
            indexes['campaigns'] = f'USING gin ({self._campaigns()}) {of_entries}'
        else:
            asked = self._field('campaigns')
            indexes['campaigns'] = f'({asked}) {of_entries}'
            indexes['shared'] = f'({asked}) {of_entries} AND {self._is_shared()}'
        return {_INDEX.format(name): columns for name, columns in indexes.items()}

    @property
    def _is_postgresql(self) -> bool:
        return self._dialect == 'postgresql'

    def _field(self, name: str) -> str:
        if self._is_postgresql:
            return f"(extras #>> '{{{EXTRA},{name}}}')"
        return f"json_extract(extras, '$.{EXTRA}.{name}')"

    def _campaigns(self) -> str:
        """Return the list of those who asked, for PostgreSQL."""
        return f"(extras #> '{{{EXTRA},campaigns}}')"

    def _is_shared(self) -> str:
        """Return the condition that several asked, for SQLite."""
        return f"json_array_length(extras, '$.{EXTRA}.campaigns') > 1"

    def _status(self) -> str:
        own, first = ('CAST(uuid AS text)', "= 'true'") if self._is_postgresql else ('uuid', '= 1')
        field = self._field
        return f'CASE WHEN {field("node")} = {own} AND {field("first")} {first} THEN {field("status")} END'


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID: PostgreSQL refuses to look for anything else."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _chunks(values: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), _CHUNK):
        yield list(values[start : start + _CHUNK])
