"""Why was this atom sent to DFT? The chain from a potential back to those that were ignorant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.orm.utils.node import load_node_class

if TYPE_CHECKING:
    from aiida_oodal.data import ClusterData, PotentialData, StructureSetData

#: Links of inputs that are more to a training than sets on which its model is only judged.
_LEARNED_FROM = {'and': [{'label': {'!==': 'validation'}}, {'label': {'!like': 'anchors\\_\\_%'}}]}


@dataclass(frozen=True)
class Link:
    """One label that a potential was trained on, and what led to it; nodes by their PK.

    :param gamma: of the centre atom in the snapshot, under the potential that was ignorant.
    :param snapshots: the frames it was cut from, or the remote folder of MD that kept them.
    :param step: of the snapshot in MD.
    :param center: index of the centre atom in the snapshot.
    :param ignorant: what graded the snapshot: a potential, or the reference of an ensemble.
    """

    potential: int
    labels: int
    cluster: int
    snapshots: int
    md: int
    ignorant: int
    gamma: float | None
    step: int | None
    center: int


def trace_potential(potential: PotentialData) -> list[Link]:
    """Walk from a potential back through label, cluster, snapshot and MD to the potential that was ignorant.

    One entry for each cluster in the potential's training sets, the oldest first.
    """
    links: list[Link] = []
    begun: dict[int, tuple[Any, str]] = {}
    read: dict[int, dict[str, Any]] = {}  # many clusters are cut by one job, and from one frame
    runs: dict[tuple[int, int | None], int] = {}
    for labels, cluster in find_learned(potential):
        carving = cluster.creator
        if carving.pk not in read:
            read[carving.pk] = read_inputs(carving)
        inputs = read[carving.pk]
        begun[cluster.pk] = (cluster.ctime, cluster.uuid)  # PKs of an archive are in no order
        attributes = cluster.base.attributes
        step = attributes.get('step', None)
        frames = inputs.get('snapshots') or inputs['parent_folder']
        if (frames.pk, step) not in runs:
            runs[frames.pk, step] = find_md(frames, step).pk
        links.append(
            Link(
                potential=potential.pk,
                labels=labels.pk,
                cluster=cluster.pk,
                snapshots=frames.pk,
                md=runs[frames.pk, step],
                ignorant=find_grader(inputs).pk,
                gamma=attributes.get('gamma_parent', None),
                step=step,
                center=attributes.get('center_parent_index'),
            )
        )
    return sorted(links, key=lambda link: begun[link.cluster])


def find_grader(inputs: Mapping[str, Any]) -> orm.Data:
    """Return what graded the frames that a job cut clusters from.

    :param inputs: of the job, namespaces nested.
    """
    grader: orm.Data = inputs.get('potential') or inputs['ensemble']['reference']
    return grader


def find_learned(model: orm.Data) -> Iterator[tuple[StructureSetData, ClusterData]]:
    """Go through the clusters that a model was trained on and whose past is known, each with the set of its label."""
    from aiida_oodal.calculations.labels import unpack

    sets = {} if model.creator is None else read_inputs(model.creator).get('training', {})
    for name, packed in sets.items():
        for labels in unpack(name, packed).values():
            for cluster in find_clusters(labels):
                if cluster.creator is not None:
                    yield labels, cluster


def find_clusters(labels: StructureSetData) -> Iterator[ClusterData]:
    """Go through the clusters that the structures of a labelled set are, through sets that were put together."""
    from aiida_oodal.data import ClusterData, StructureSetData

    keys = set(labels.get_set().info.get('queue_key', []))
    sources = [labels]
    while sources:
        creator = sources.pop().creator
        if creator is None:
            continue
        for name, value in read_inputs(creator).items():
            for key, node in value.items() if isinstance(value, dict) else ((name, value),):
                if isinstance(node, ClusterData) and key in keys:
                    yield node
                elif isinstance(node, StructureSetData) and isinstance(creator, orm.CalcFunctionNode):
                    sources.append(node)


def find_first_student(labels: StructureSetData) -> orm.Data | None:
    """Return the model that was trained on labels before all others; None if there is none.

    Sets on which models were only judged, validation and anchors, have none.

    One query for each generation of what was made from the labels, and none beyond a model: AiiDA's query for
    descendants goes along every path, and each round of a campaign doubles their number.
    """
    from aiida_oodal.data import MaceModelData, PotentialData

    models: list[tuple[Any, str, int]] = []
    seen = generation = {labels.pk}
    while generation:
        query = orm.QueryBuilder().append(orm.Data, filters={'id': {'in': sorted(generation)}}, tag='learned')
        query.append(orm.CalculationNode, with_incoming='learned', edge_filters=_LEARNED_FROM, tag='process')
        query.append(orm.Data, with_incoming='process', project=['id', 'node_type', 'ctime', 'uuid'])
        made = {pk: values for pk, *values in query.all() if pk not in seen}
        is_model = {
            kind: issubclass(load_node_class(kind), (PotentialData, MaceModelData))
            for kind in {kind for kind, _, _ in made.values()}
        }
        models += [(ctime, uuid, pk) for pk, (kind, ctime, uuid) in made.items() if is_model[kind]]
        generation = {pk for pk, (kind, _, _) in made.items() if not is_model[kind]}
        seen = seen | set(made)
    return orm.load_node(min(models)[2]) if models else None


def find_md(snapshots: StructureSetData | orm.RemoteData, step: int | None) -> orm.ProcessNode:
    """Return the MD run that made the frame of a step; they may be joined, or graded afterwards."""
    creator = snapshots.creator
    if isinstance(snapshots, orm.RemoteData):
        return creator
    inputs = read_inputs(creator)
    runs = inputs.get('runs') or {name: value for name, value in inputs.items() if name.startswith('run_')}
    if runs:
        parts = [part['snapshots'] for _, part in sorted(runs.items()) if 'snapshots' in part]
        holding = [part for part in parts if step in part.get_set().info['step']]
        return find_md((holding or parts)[-1], step)
    earlier = inputs.get('snapshots')
    return creator if earlier is None else find_md(earlier, step)


def read_inputs(process: orm.ProcessNode) -> dict[str, Any]:
    """Return the inputs of a calculation, namespaces nested."""
    nested: dict[str, Any] = process.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
    return nested
