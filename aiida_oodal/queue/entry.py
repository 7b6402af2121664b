"""One entry of the DFT queue: its fields, and the changes of status that are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from aiida import orm

#: Name of the extra that holds an entry.
EXTRA = 'oodal_queue'


class QueueStatus(StrEnum):
    """Status of an entry."""

    PENDING_DFT = 'PENDING_DFT'
    SUBMITTED = 'SUBMITTED'
    LABELLED = 'LABELLED'
    FAILED = 'FAILED'
    REJECTED = 'REJECTED'


#: Where an entry may go from where it is.
NEXT = {
    QueueStatus.PENDING_DFT: (QueueStatus.SUBMITTED, QueueStatus.REJECTED, QueueStatus.LABELLED),
    QueueStatus.SUBMITTED: (QueueStatus.LABELLED, QueueStatus.FAILED, QueueStatus.PENDING_DFT),
    QueueStatus.FAILED: (QueueStatus.PENDING_DFT, QueueStatus.REJECTED),
    QueueStatus.REJECTED: (QueueStatus.PENDING_DFT,),
    QueueStatus.LABELLED: (),
}


@dataclass(frozen=True)
class Entry:
    """One entry of the queue, as the node ``node`` shows it.

    :param node: UUID of the node with the structure.
    :param first: whether this node was the first with these atoms; it stands for the entry where entries are counted.
    :param key: :meth:`.LevelOfTheory.key` of the atoms; :func:`.make_key` without a level while there is none.
    :param level: hash of the level of theory; empty until a labeller takes the entry.
    :param labeller: entry point of the labeller that the level belongs to; empty with the level.
    :param theory: the level in words.
    :param attempts: how often it was tried to label it, the current try included; tries that the machine ended do not
        count.
    :param priority: entries with a higher one are labelled first.
    :param owner: UUID of the process that took it out of the queue.
    :param process: UUID of the process that computes the label, where that is known; a child of the owner.
    :param label: UUID of the labelled set; the structure in it has ``info['queue_key'] == key``.
    :param campaigns: UUIDs of the processes that asked for the label, in the order in which they did.
    :param reason: why it is FAILED or REJECTED, or why the last attempt failed.
    :param core_hours: cost of all attempts; None if it is not known.
    :param formula: chemical formula of the structure.
    :param elements: in it.
    :param atoms: how many atoms it has.
    :param gamma: extrapolation grade of the atom that it was cut out for, where there is one.
    :param score: the same for a score.
    :param added: time of the first request, ISO 8601.
    :param changed: time of the last change, ISO 8601.
    """

    node: str
    first: bool
    key: str
    status: QueueStatus
    level: str
    labeller: str
    theory: str = ''
    attempts: int = 0
    priority: int = 0
    owner: str | None = None
    process: str | None = None
    label: str | None = None
    campaigns: tuple[str, ...] = field(default=())
    reason: str | None = None
    core_hours: float | None = None
    formula: str = ''
    elements: tuple[str, ...] = field(default=())
    atoms: int = 0
    gamma: float | None = None
    score: float | None = None
    added: str = ''
    changed: str = ''

    @classmethod
    def from_extra(cls, extra: Mapping[str, Any]) -> Entry:
        """Read what :meth:`to_extra` wrote."""
        lists = {name: tuple(extra.get(name, ())) for name in ('campaigns', 'elements')}
        return cls(**{**extra, **lists, 'status': QueueStatus(extra['status'])})

    def to_extra(self) -> dict[str, Any]:
        """Return plain values, as an extra takes them."""
        lists = {'campaigns': list(self.campaigns), 'elements': list(self.elements)}
        return {**asdict(self), **lists, 'status': self.status.value}

    @property
    def is_open(self) -> bool:
        """Whether the entry waits or is being labelled."""
        return self.status in (QueueStatus.PENDING_DFT, QueueStatus.SUBMITTED)

    @property
    def is_given_up(self) -> bool:
        """Whether nobody labels it unless it is retried."""
        return self.status in (QueueStatus.FAILED, QueueStatus.REJECTED)

    def load_node(self) -> orm.StructureData:
        """Return the node with the structure."""
        node: orm.StructureData = orm.load_node(self.node)
        return node
