"""Make a profile large: copies of the real campaign in it, made in bulk in the database instead of being run.

A copy has every node, link, log and extra of the first, of the same types and with the same content, under UUIDs and
keys of the queue of its own. Only files are shared with the first, as AiiDA keeps each content once.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_KEY = re.compile(r'\bq[0-9a-f]{24}\b')
#: Hexadecimal digits after the first letter of a key that number the copies.
_MARK = 6


def copy_campaign(campaign: Any, processes: int) -> list[str]:
    """Copy all that is in the profile until it has at least that many processes; return the UUIDs of all campaigns."""
    from aiida import orm
    from aiida.manage import get_manager

    storage: Any = get_manager().get_profile_storage()
    nodes, links, logs = (_read(storage, name) for name in ('db_dbnode', 'db_dblink', 'db_dblog'))
    count = sum(node['node_type'].startswith('process.') for node in nodes)
    made = orm.QueryBuilder().append(orm.ProcessNode).count()
    uuids = [campaign.uuid]
    while made < processes:
        names = {str(node['uuid']): str(uuid.uuid4()) for node in nodes}
        _insert(storage, nodes, links, logs, names, _make_rename(names, len(uuids)))
        uuids.append(names[campaign.uuid])
        made += count
    return uuids


def let_wait(uuid: str) -> None:
    """Let a copy look as though its last call, and what that called last, had not ended yet."""
    from aiida import orm

    node = orm.load_node(uuid)
    while node is not None:
        entity = node.backend_entity
        entity.set_attribute('process_state', 'waiting')
        for name in ('sealed', 'exit_status', 'exit_message'):
            if name in entity.attributes:
                entity.delete_attribute(name)
        node = max(node.called, key=lambda called: called.ctime, default=None)


def _read(storage: Any, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table."""
    import sqlalchemy as sa

    columns = storage.query().Node.__table__.metadata.tables[name].columns
    return [dict(row) for row in storage.get_session().execute(sa.select(*columns)).mappings()]


def _make_rename(names: dict[str, str], number: int) -> Callable[[str], str]:
    """Return a function that puts the UUIDs and keys of a copy into a text."""

    def rename(text: str) -> str:
        text = _UUID.sub(lambda match: names.get(match[0], match[0]), text)
        return _KEY.sub(lambda match: f'q{number:0{_MARK}x}{match[0][1 + _MARK :]}', text)

    return rename


def _insert(
    storage: Any,
    nodes: list[dict[str, Any]],
    links: list[dict[str, Any]],
    logs: list[dict[str, Any]],
    names: dict[str, str],
    rename: Callable[[str], str],
) -> None:
    """Insert one copy."""
    from aiida.orm.entities import EntityTypes

    with storage.transaction():
        rows = [
            {
                **_without(node, 'id'),
                'uuid': names[str(node['uuid'])],
                'attributes': json.loads(rename(json.dumps(node['attributes']))),
                'extras': json.loads(rename(json.dumps(node['extras']))),
            }
            for node in nodes
        ]
        pks = dict(zip((node['id'] for node in nodes), storage.bulk_insert(EntityTypes.NODE, rows), strict=True))
        rows = [
            {
                'input_id': pks[link['input_id']],
                'output_id': pks[link['output_id']],
                'label': rename(link['label']),
                'type': link['type'],
            }
            for link in links
        ]
        storage.bulk_insert(EntityTypes.LINK, rows)
        rows = [{**_without(log, 'id'), 'uuid': str(uuid.uuid4()), 'dbnode_id': pks[log['dbnode_id']]} for log in logs]
        storage.bulk_insert(EntityTypes.LOG, rows)


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}
