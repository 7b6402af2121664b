"""What a campaign cost: labels, jobs and core hours; and what labels of whole cells would have cost."""

from __future__ import annotations

from dataclasses import dataclass

from aiida import orm
from aiida.common.links import LinkType

from aiida_oodal.calculations.job.cost import add_core_hours
from aiida_oodal.data import StructureSetData
from aiida_oodal.workchains.calls import Call, Stage

from .about import get_atoms
from .history import CampaignHistory
from .left import read_calls
from .links import read_outputs

#: What is paid for, in the order of a round, and the stages that it is.
INITIAL, MD, CARVING, CHOICE, CLUSTERS, AUDIT, TRAINING, JUDGING = (
    'initial labels',
    'MD',
    'carving',
    'choice of clusters',
    'labels of clusters',
    'audit',
    'training',
    'comparison with labels',
)
_BY_STAGE = {
    Stage.EXPLORE: MD,
    Stage.SELECT: CHOICE,
    Stage.LABEL: CLUSTERS,
    Stage.AUDIT: AUDIT,
    Stage.TRAIN: TRAINING,
    Stage.RETRAIN: TRAINING,
    Stage.JUDGE: JUDGING,
    Stage.CALIBRATE: JUDGING,
}
#: Jobs of an exploration that are not MD.
_CARVING = 'CarveClustersCalculation'


@dataclass(frozen=True)
class Ran:
    """A process of a campaign, however deep below it.

    :param call: what it belongs to.
    """

    call: Call
    process: orm.ProcessNode


@dataclass(frozen=True)
class Cost:
    """A row of the ledger.

    :param n_structures: that were labelled; None where labels are not what it is for.
    :param n_atoms: of these.
    :param core_hours: of the jobs; None if they are not known for any.
    """

    what: str
    n_jobs: int
    n_structures: int | None
    n_atoms: int | None
    core_hours: float | None


@dataclass(frozen=True)
class WholeCells:
    """What it would have cost to label the frames that clusters were cut from, if a label costs the cube of its atoms.

    :param n_clusters: that were labelled.
    :param n_cells: different frames that they were cut from.
    :param largest: number of atoms of the largest of these frames.
    :param factor: cost of the frames, as a multiple of the cost of the clusters.
    :param core_hours: of the frames; None if those of the clusters are not known.
    """

    n_clusters: int
    n_cells: int
    largest: int
    factor: float
    core_hours: float | None


@dataclass(frozen=True)
class Ledger:
    """All costs of a campaign.

    :param whole_cells: None if no cluster was labelled.
    """

    rows: tuple[Cost, ...]
    whole_cells: WholeCells | None

    @property
    def core_hours(self) -> float | None:
        """Core hours of all jobs, as far as they are known."""
        known = [row.core_hours for row in self.rows if row.core_hours is not None]
        return sum(known) if known else None


def list_processes(campaign: orm.WorkChainNode) -> list[Ran]:
    """Return all processes that a campaign called, in the order of their time, with those that were called again.

    One query for each generation: campaigns have thousands.
    """
    found: list[Ran] = []
    calls: dict[int, Call | None] = {campaign.pk: None}  # of the callers of a generation
    while calls:
        query = orm.QueryBuilder().append(
            orm.WorkChainNode, filters={'id': {'in': list(calls)}}, project='id', tag='by'
        )
        query.append(
            orm.ProcessNode,
            with_incoming='by',
            edge_filters={'type': {'in': [LinkType.CALL_CALC.value, LinkType.CALL_WORK.value]}},
            edge_project='label',
            project='*',
        )
        callers, calls = calls, {}
        for pk, process, label in query.all():
            if (call := callers[pk] or Call.parse(label)) is not None:
                found.append(Ran(call, process))
                calls[process.pk] = call
    return sorted(found, key=lambda ran: (ran.process.ctime, ran.process.uuid))


def read_ledger(campaign: orm.WorkChainNode, history: CampaignHistory, processes: list[Ran]) -> Ledger:
    """Add up what a campaign cost.

    :param processes: of :func:`list_processes`.
    """
    jobs: dict[str, set[int]] = {}
    for ran in processes:
        if isinstance(ran.process, orm.CalcJobNode):
            jobs.setdefault(_name(ran), set()).add(ran.process.pk)
    labels = _count_labels(campaign, history)
    rows = []
    for what in (INITIAL, MD, CARVING, CHOICE, CLUSTERS, AUDIT, TRAINING, JUDGING):
        ran_jobs = jobs.get(what, set())
        structures, atoms = labels.get(what, (None, None))
        if ran_jobs or structures:
            rows.append(Cost(what, len(ran_jobs), structures, atoms, add_core_hours(ran_jobs)))
    paid = next((row.core_hours for row in rows if row.what == CLUSTERS), None)
    return Ledger(tuple(rows), _compare_with_whole_cells(history, paid))


def _name(ran: Ran) -> str:
    if ran.call == Call(Stage.LABEL, 0):
        return INITIAL
    is_carving = ran.call.stage is Stage.EXPLORE and ran.process.process_label == _CARVING
    return CARVING if is_carving else _BY_STAGE[ran.call.stage]


def _count_labels(campaign: orm.WorkChainNode, history: CampaignHistory) -> dict[str, tuple[int, int]]:
    """Return structures and atoms that were labelled, by what they were labelled for."""
    initial = read_outputs(read_calls(campaign).get(Call(Stage.LABEL, 0))).get('labels')
    sets = {
        INITIAL: [initial],
        CLUSTERS: [entry.labels for entry in history.rounds],
        AUDIT: [entry.audit_labels for entry in history.rounds],
    }
    known: dict[str, list[StructureSetData]] = {
        what: [node for node in nodes if node is not None] for what, nodes in sets.items()
    }
    return {
        what: (sum(node.n_structures for node in nodes), sum(node.n_atoms for node in nodes))
        for what, nodes in known.items()
        if nodes
    }


def _compare_with_whole_cells(history: CampaignHistory, paid: float | None) -> WholeCells | None:
    """Compare clusters with the frames that they were cut from; several may have been cut from one frame.

    :param paid: core hours of the labels of the clusters.
    """
    sizes: dict[str, int] = {}
    frames: dict[tuple[int, str, int | None], int] = {}
    clusters = []
    for entry, walker, cluster in history.list_labelled():
        if walker.md is None:
            continue
        attributes = cluster.base.attributes
        clusters.append(len(attributes.get('force_mask')))
        structure = walker.md.inputs.md.structure
        if structure.uuid not in sizes:
            sizes[structure.uuid] = len(get_atoms(structure))
        frames[entry.number, walker.name, attributes.get('step', None)] = sizes[structure.uuid]
    if not clusters:
        return None
    factor = sum(size**3 for size in frames.values()) / sum(size**3 for size in clusters)
    return WholeCells(
        n_clusters=len(clusters),
        n_cells=len(frames),
        largest=max(frames.values()),
        factor=factor,
        core_hours=None if paid is None else factor * paid,
    )
