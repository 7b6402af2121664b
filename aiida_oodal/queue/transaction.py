"""One change of the queue at a time, by whichever process of whichever machine, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from aiida.manage import get_manager

from .table import EntryTable

#: A row of AiiDA's settings that everybody who changes the queue writes first: it is the lock.
_LOCK = 'oodal_queue'
#: Storages whose indexes are known to be there.
_INDEXED: WeakSet[Any] = WeakSet()


@contextmanager
def queue_transaction() -> Iterator[EntryTable]:
    """Give the entries for a change; changes by other processes wait until the block is left.

    The first statement is a write to a row that all share. SQLite lets one connection write, PostgreSQL locks the row:
    either way the next one begins when this one is committed, and reads what it left.
    """
    storage: Any = get_manager().get_profile_storage()
    try:
        storage.get_global_variable(_LOCK)
    except KeyError:
        with suppress(sa.exc.IntegrityError):  # somebody else was faster
            storage.set_global_variable(_LOCK, 1, description='Locked while the DFT queue of aiida-oodal is changed.')
    if storage not in _INDEXED:
        # An index that may not be made (a database that others look after) is missed in time only.
        with suppress(sa.exc.ProgrammingError), storage.transaction() as session:
            EntryTable(session, storage.query().Node).make_indexes()
        _INDEXED.add(storage)
    with storage.transaction() as session:
        session.execute(sa.text('UPDATE db_dbsetting SET description = description WHERE key = :key'), {'key': _LOCK})
        yield EntryTable(session, storage.query().Node)


def open_table() -> EntryTable:
    """Give the entries for reading, without a lock."""
    storage: Any = get_manager().get_profile_storage()
    return EntryTable(storage.get_session(), storage.query().Node)
