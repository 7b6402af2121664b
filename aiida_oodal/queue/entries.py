"""Queue entries are :class:`ClusterData` nodes; their status is an extra, so that it can change and be queried.

``QueryBuilder().append(ClusterData, filters={'extras.oodal_queue.status': 'PENDING_DFT'})`` is the queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aiida import orm

from aiida_oodal.data import ClusterData

#: The extra that holds an entry: ``status``, ``campaign``, ``changed`` and, where there is one, ``reason``.
EXTRA = 'oodal_queue'


class QueueStatus(StrEnum):
    """What became of a cluster."""

    PENDING_DFT = 'PENDING_DFT'
    SUBMITTED = 'SUBMITTED'
    LABELLED = 'LABELLED'
    FAILED = 'FAILED'
    REJECTED = 'REJECTED'


#: Where an entry may go from where it is; staying is always allowed, so that a step can be repeated after a crash.
_NEXT = {
    QueueStatus.PENDING_DFT: {QueueStatus.SUBMITTED, QueueStatus.REJECTED},
    QueueStatus.SUBMITTED: {QueueStatus.LABELLED, QueueStatus.FAILED},
    QueueStatus.FAILED: {QueueStatus.PENDING_DFT, QueueStatus.REJECTED},
    QueueStatus.REJECTED: {QueueStatus.PENDING_DFT},
    QueueStatus.LABELLED: set(),
}


def enqueue(clusters: Mapping[str, ClusterData], campaign: str) -> dict[str, ClusterData]:
    """Put clusters into the queue as ``PENDING_DFT`` and return those that are to be labelled.

    What the campaign has in the queue already, by content, is marked ``REJECTED`` with the entry it repeats. Repeating
    the call changes nothing, so that a campaign that was killed in this step can take it again.

    :param clusters: stored nodes by any key.
    :param campaign: UUID of the campaign's process.
    """
    accepted = {}
    for key, cluster in clusters.items():
        entry = cluster.base.extras.get(EXTRA, None)
        if entry is None:
            twin = _find_twin(cluster, campaign)
            status = QueueStatus.PENDING_DFT if twin is None else QueueStatus.REJECTED
            reason = None if twin is None else f'the campaign queued the same atoms already, as cluster {twin.uuid}'
            _write(cluster, status, campaign=campaign, reason=reason)
        if QueueStatus(cluster.base.extras.get(EXTRA)['status']) is not QueueStatus.REJECTED:
            accepted[key] = cluster
    return accepted


def mark(cluster: ClusterData, status: QueueStatus, reason: str | None = None) -> None:
    """Move an entry on.

    :raises ValueError: if the cluster is not in the queue, or cannot go there from where it is.
    """
    entry = cluster.base.extras.get(EXTRA, None)
    if entry is None:
        raise ValueError(f'cluster {cluster.uuid} is not in the queue: call enqueue first')
    current = QueueStatus(entry['status'])
    if status is not current and status not in _NEXT[current]:
        raise ValueError(
            f'cluster {cluster.uuid} is {current} and cannot become {status}; from there it can go to '
            f'{", ".join(sorted(_NEXT[current])) or "nowhere: a label stays"}'
        )
    _write(cluster, status, campaign=entry['campaign'], reason=reason)


def find_entries(status: QueueStatus | None = None, campaign: str | None = None) -> list[ClusterData]:
    """Return the entries of the queue, the oldest first.

    :param status: only those with this status.
    :param campaign: only those of the campaign with this UUID.
    """
    filters: dict[str, Any] = {'extras': {'has_key': EXTRA}}
    if status is not None:
        filters[f'extras.{EXTRA}.status'] = str(status)
    if campaign is not None:
        filters[f'extras.{EXTRA}.campaign'] = campaign
    query = orm.QueryBuilder().append(ClusterData, filters=filters, tag='cluster')
    nodes: list[ClusterData] = query.order_by({'cluster': {'id': 'asc'}}).all(flat=True)
    return nodes


def find_known(campaign: str, besides: Iterable[ClusterData]) -> dict[str, ClusterData]:
    """Return what a campaign has queued and not rejected, by ``c<pk>``.

    :param campaign: UUID of the campaign's process.
    :param besides: clusters that do not count: those about which a choice is made, perhaps for the second time.
    """
    own = {cluster.uuid for cluster in besides}
    return {
        f'c{entry.pk}': entry
        for entry in find_entries(campaign=campaign)
        if entry.uuid not in own and entry.base.extras.get(EXTRA)['status'] != QueueStatus.REJECTED
    }


def _find_twin(cluster: ClusterData, campaign: str) -> ClusterData | None:
    """Return an entry of the campaign with the same atoms in the same cell, which is not itself rejected."""
    twins = orm.QueryBuilder().append(
        ClusterData,
        filters={
            'attributes.content_key': cluster.base.attributes.get('content_key'),
            'uuid': {'!==': cluster.uuid},
            f'extras.{EXTRA}.campaign': campaign,
            f'extras.{EXTRA}.status': {'!==': str(QueueStatus.REJECTED)},
        },
    )
    twin: ClusterData | None = twins.first(flat=True)
    return twin


def _write(cluster: ClusterData, status: QueueStatus, *, campaign: str, reason: str | None) -> None:
    entry = {'status': str(status), 'campaign': campaign, 'changed': datetime.now(UTC).isoformat()}
    cluster.base.extras.set(EXTRA, entry if reason is None else entry | {'reason': reason})
