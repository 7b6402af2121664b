"""Why was this atom sent to DFT? The chain from a potential back to those that were ignorant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.orm.utils.node import load_node_class

from .links import find_creators, read_all_inputs, read_inputs

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
    learned = find_learned(potential)
    read = read_all_inputs({each.job.pk: each.job for each in learned}.values())
    runs: dict[tuple[int, int | None], int | None] = {}  # many clusters are cut from one frame
    links = []
    for each in learned:
        inputs, attributes = read[each.job.pk], each.cluster.base.attributes
        step = attributes.get('step', None)
        frames = find_frames(inputs)
        if (frames.pk, step) not in runs:
            md = find_md(frames, step)
            runs[frames.pk, step] = None if md is None else md.pk
        links.append(
            Link(
                potential=potential.pk,
                labels=each.labels.pk,
                cluster=each.cluster.pk,
                snapshots=frames.pk,
                md=runs[frames.pk, step],
                ignorant=find_grader(inputs).pk,
                gamma=attributes.get('gamma_parent', None),
                step=step,
                center=attributes.get('center_parent_index'),
            )
        )
    return links


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


@dataclass(frozen=True)
class Learned:
    """A cluster that a model was trained on.

    :param labels: the set of its label.
    :param job: what cut it.
    """

    labels: StructureSetData
    cluster: ClusterData
    job: orm.ProcessNode


def find_learned(model: orm.Data) -> list[Learned]:
    """Return the clusters that a model was trained on and whose past is known, the oldest first."""
    from aiida_oodal.calculations.labels import unpack

    sets = {} if model.creator is None else read_inputs(model.creator).get('training', {})
    found = find_clusters([labels for name, packed in sets.items() for labels in unpack(name, packed).values()])
    jobs = find_creators(cluster for _, cluster in found)
    learned = [Learned(labels, cluster, jobs[cluster.pk]) for labels, cluster in found if cluster.pk in jobs]
    # PKs of an archive are in no order
    return sorted(learned, key=lambda each: (each.cluster.ctime, each.cluster.uuid))


def find_clusters(sets: Sequence[StructureSetData]) -> list[tuple[StructureSetData, ClusterData]]:
    """Return the clusters that structures of labelled sets are, also through sets that were put together.

    :return: with each the set that was asked for.
    """
    from aiida_oodal.data import ClusterData, StructureSetData

    keys = {labels.pk: set(labels.get_set().info.get('queue_key', [])) for labels in sets}
    found: list[tuple[StructureSetData, ClusterData]] = []
    sources = [(labels, labels) for labels in sets]
    while sources:
        creators = find_creators(source for _, source in sources)
        inputs = read_all_inputs(creators.values())
        earlier = []
        for labels, source in sources:
            creator = creators.get(source.pk)
            for name, value in inputs[creator.pk].items() if creator is not None else ():
                for key, node in value.items() if isinstance(value, dict) else ((name, value),):
                    if isinstance(node, ClusterData) and key in keys[labels.pk]:
                        found.append((labels, node))
                    elif isinstance(node, StructureSetData) and isinstance(creator, orm.CalcFunctionNode):
                        earlier.append((labels, node))
        sources = earlier
    return found


def find_judged(labels: StructureSetData) -> StructureSetData | None:
    """Return the labels with the errors of what was first compared with them; None if nothing was.

    The frames of an audit are judged with the labels that a calcfunction took for them from those of a job.
    """
    from aiida_oodal.calculations.trust.judge import JudgeCalculation

    for through in ((), (orm.CalcFunctionNode, orm.Data)):
        query = orm.QueryBuilder().append(orm.Data, filters={'id': labels.pk}, tag='0')
        for number, kind in enumerate(through):
            query.append(kind, with_incoming=str(number), tag=str(number + 1))
        query.append(JudgeCalculation, with_incoming=str(len(through)), edge_filters={'label': 'structures'}, tag='job')
        query.append(orm.Data, with_incoming='job', edge_filters={'label': 'judged'}, project='*')
        judged: StructureSetData | None = query.order_by({'job': 'ctime'}).first(flat=True)
        if judged is not None:
            return judged
    return None


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
