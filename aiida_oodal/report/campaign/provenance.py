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
    :param snapshots: the frames it was cut from, the remote folder of MD that kept them, or candidates of a screening.
    :param md: the run that made the frame; None if the graph does not know it.
    :param step: of the snapshot in MD.
    :param center: index of the centre atom in the snapshot.
    :param ignorant: what graded the snapshot: a potential, or the reference of an ensemble.
    """

    potential: int
    labels: int
    cluster: int
    snapshots: int
    md: int | None
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
    runs: dict[tuple[int, int | None], int | None] = {}
    for labels, cluster in find_learned(potential):
        carving = cluster.creator
        if carving.pk not in read:
            read[carving.pk] = read_inputs(carving)
        inputs = read[carving.pk]
        begun[cluster.pk] = (cluster.ctime, cluster.uuid)  # PKs of an archive are in no order
        attributes = cluster.base.attributes
        step = attributes.get('step', None)
        frames = find_frames(inputs)
        if (frames.pk, step) not in runs:
            md = find_md(frames, step)
            runs[frames.pk, step] = None if md is None else md.pk
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
    """Return what graded the frames that a job cut clusters from, or scored them.

    :param inputs: of the job, namespaces nested.
    """
    if 'scores' in inputs:
        return inputs['scores'].creator.inputs.reference
    grader: orm.Data = inputs.get('potential') or inputs['ensemble']['reference']
    return grader


def find_frames(inputs: Mapping[str, Any]) -> StructureSetData | orm.RemoteData:
    """Return what a job cut clusters from: frames, the folder of MD that kept them, or candidates of a screening.

    :param inputs: of the job, namespaces nested.
    """
    frames: StructureSetData | orm.RemoteData = inputs.get('snapshots') or inputs.get('candidates')
    return frames or inputs['parent_folder']


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


def find_candidate(cluster: ClusterData) -> int | None:
    """Return the number of the candidate of a screening that a cluster was cut from; None if it was cut from MD."""
    link = cluster.base.links.get_incoming(link_type=LinkType.CREATE).first()
    number: str | None = None if link is None or 'candidates' not in link.node.inputs else link.link_label
    return None if number is None else int(number.removeprefix('c'))


def find_md(snapshots: StructureSetData | orm.RemoteData, step: int | None) -> orm.ProcessNode | None:
    """Return the MD run that made the frame of a step; frames may be joined, or graded afterwards.

    :return: None for frames that nobody knows the origin of, and for candidates of a screening.
    """
    creator = snapshots.creator
    if isinstance(snapshots, orm.RemoteData) or creator is None:
        return creator
    inputs = read_inputs(creator)
    runs = inputs.get('runs') or {name: value for name, value in inputs.items() if name.startswith('run_')}
    if runs:
        parts = [part['snapshots'] for _, part in sorted(runs.items()) if 'snapshots' in part]
        holding = [part for part in parts if step in part.get_set().info['step']]
        return find_md((holding or parts)[-1], step)
    earlier = inputs.get('snapshots')
    if earlier is not None:
        return find_md(earlier, step)
    return creator if isinstance(creator, orm.CalcJobNode) else None


def read_inputs(process: orm.ProcessNode) -> dict[str, Any]:
    """Return the inputs of a calculation, namespaces nested."""
    nested: dict[str, Any] = process.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
    return nested
