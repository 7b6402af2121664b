"""Find a campaign without importing what runs one."""

from __future__ import annotations

from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.calls import CAMPAIGN, CAMPAIGN_NAME

_WAY_OUT = f'`verdi process list -a -L {CAMPAIGN_NAME}` lists those there are'


def find_campaign(identifier: str | int) -> orm.WorkChainNode:
    """Return a campaign by its PK or UUID.

    :raises OodalError: if there is none, saying how to list them.
    """
    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise OodalError(f'{error}. {_WAY_OUT}') from error
    if not isinstance(node, orm.WorkChainNode) or node.process_type != CAMPAIGN:
        raise OodalError(f'{node} is no {CAMPAIGN_NAME}. {_WAY_OUT}')
    return node
