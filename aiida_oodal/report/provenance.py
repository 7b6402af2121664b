"""Why was this atom sent to DFT? The chain from a potential back to those that were ignorant."""

from __future__ import annotations

from dataclasses import dataclass

from aiida import orm

from aiida_oodal.data import AcePotentialData, ClusterData, StructureSetData


@dataclass(frozen=True)
class Link:
    """One label that a potential was trained on, and what led to it; nodes by their PK."""

    potential: int
    labels: int
    cluster: int
    snapshots: int
    md: int
    ignorant: int
    gamma: float | None
    step: int | None
    center: int


def trace_potential(potential: AcePotentialData) -> list[Link]:
    """Walk from a potential back through label, cluster, snapshot and MD to the potential that was ignorant.

    One query; one entry for each cluster in the potential's training sets, the oldest first.
    """
    query = orm.QueryBuilder()
    query.append(AcePotentialData, filters={'id': potential.pk}, tag='potential', project='id')
    query.append(orm.CalcJobNode, with_outgoing='potential', tag='training')
    query.append(StructureSetData, with_outgoing='training', tag='labels', project='id')
    query.append(orm.CalcJobNode, with_outgoing='labels', tag='labelling')
    query.append(
        ClusterData,
        with_outgoing='labelling',
        tag='cluster',
        project=['id', 'attributes.gamma_cluster', 'attributes.step', 'attributes.center_parent_index'],
    )
    query.append(orm.CalcFunctionNode, with_outgoing='cluster', tag='carving')
    query.append(StructureSetData, with_outgoing='carving', tag='snapshots', project='id')
    query.append(orm.CalcJobNode, with_outgoing='snapshots', tag='md', project='id')
    query.append(AcePotentialData, with_outgoing='md', tag='ignorant', project='id')
    query.order_by({'cluster': {'id': 'asc'}})
    return [
        Link(
            potential=row[0],
            labels=row[1],
            cluster=row[2],
            gamma=row[3],
            step=row[4],
            center=row[5],
            snapshots=row[6],
            md=row[7],
            ignorant=row[8],
        )
        for row in query.all()
    ]
