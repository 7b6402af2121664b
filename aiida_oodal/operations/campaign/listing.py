"""List campaigns, without importing what runs them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from aiida import orm

from aiida_oodal.workchains.calls import CAMPAIGN, Call, Stage


@dataclass(frozen=True)
class CampaignLine:
    """A campaign in one line.

    :param state: of the process, with its exit status where it has one.
    :param rounds: that have begun.
    :param force_rmse: of the last training on the validation set, meV/angstrom; None where it is not known.
    :param begun: when it was submitted.
    """

    pk: int
    label: str
    state: str
    rounds: int
    force_rmse: float | None
    begun: datetime


def list_campaigns(limit: int | None = None) -> list[CampaignLine]:
    """Return campaigns, the last one first, in a few queries for all of them.

    :param limit: how many at most.
    """
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'process_type': CAMPAIGN}, tag='campaign')
    query.order_by({'campaign': {'ctime': 'desc'}})
    if limit is not None:
        query.limit(limit)
    nodes = query.all(flat=True)
    rounds, errors = _count_rounds([node.pk for node in nodes]), _read_errors([node.pk for node in nodes])
    return [
        CampaignLine(
            pk=node.pk,
            label=node.label,
            state=_describe(node),
            rounds=rounds.get(node.pk, 0),
            force_rmse=errors.get(node.pk),
            begun=node.ctime,
        )
        for node in nodes
    ]


def _describe(campaign: orm.WorkChainNode) -> str:
    if campaign.paused:
        return 'paused'
    if campaign.is_finished:
        return 'healed' if campaign.is_finished_ok else f'ended [{campaign.exit_status}]'
    return str(campaign.process_state.value) if campaign.is_terminated else 'running'


def _count_rounds(campaigns: list[int]) -> dict[int, int]:
    """Return how many rounds each campaign has begun."""
    query = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={'id': {'in': campaigns}}, project='id', tag='campaign'
    )
    query.append(
        orm.WorkChainNode,
        with_incoming='campaign',
        edge_filters={'label': {'like': f'{Stage.EXPLORE}_%'}},
        edge_project='label',
    )
    rounds: dict[int, int] = {}
    for pk, label in query.iterall() if campaigns else ():
        call = Call.parse(label)
        if call is not None:
            rounds[pk] = max(rounds.get(pk, 0), call.round)
    return rounds


def _read_errors(campaigns: list[int]) -> dict[int, float]:
    """Return the force error of the last training of each campaign on its validation set, meV/angstrom."""
    query = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={'id': {'in': campaigns}}, project='id', tag='campaign'
    )
    query.append(orm.WorkChainNode, with_incoming='campaign', project='ctime', tag='train')
    query.append(
        orm.Dict,
        with_incoming='train',
        edge_filters={'label': 'results'},
        filters={'attributes.validation.force_rmse': {'of_type': 'number'}},
        project='attributes.validation.force_rmse',
    )
    last: dict[int, tuple[datetime, float]] = {}
    for pk, time, error in query.iterall() if campaigns else ():
        last[pk] = max(last.get(pk, (time, error)), (time, error))
    return {pk: error for pk, (_, error) in last.items()}
