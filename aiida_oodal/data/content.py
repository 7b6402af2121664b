"""Find nodes of equal content, also among those that were imported from an archive."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common.hashing import make_hash
from aiida.orm.implementation.utils import clean_value

#: Extra in which AiiDA keeps the hash of a node. An archive does not bring it along.
_KEPT = '_aiida_hash'


def hash_content(node: orm.Data) -> str:
    """Return a hash of class, attributes and files of a node, the same before and after it is stored."""
    return str(make_hash(_content(node)))


def find_equal(node: orm.Data) -> Any | None:
    """Return a stored node of the same class and content, the oldest if there are several; None if there is none.

    Nodes that came in an archive have no hash: it is computed and kept for those that have the same attributes.
    """
    content = _content(node)
    wanted = str(make_hash(content))
    for other in _query(node, {'extras': {'!has_key': _KEPT}}):
        if _content(other)['attributes'] == content['attributes']:
            other.base.caching.rehash()
    return next(iter(_query(node, {f'extras.{_KEPT}': wanted})), None)


def store_once(node: Any) -> Any:
    """Return a stored node of the same content if there is one, else store this one and return it."""
    if node.is_stored:
        return node
    equal = find_equal(node)
    return node.store() if equal is None else equal


def _content(node: orm.Data) -> dict[str, Any]:
    """Return what makes a node what it is, with values as the database keeps them."""
    content: dict[str, Any] = node.base.caching.get_objects_to_hash()
    return content | {'attributes': clean_value(content['attributes'])}


def _query(node: orm.Data, filters: dict[str, Any]) -> list[Any]:
    """Return the stored nodes of the same class, the oldest first."""
    query = orm.QueryBuilder().append(type(node), filters=filters, subclassing=False, tag='node')
    return list(query.order_by({'node': {'ctime': 'asc'}}).all(flat=True))
