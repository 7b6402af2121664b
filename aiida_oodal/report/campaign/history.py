"""A campaign as plain values, read from the graph: it works on one that runs, failed or was killed, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiida import orm

from aiida_oodal.workchains.calls import Call, Leg, Stage

from .left import identify, read_calls, read_left
from .links import read_all_inputs, read_all_outputs, read_outputs

if TYPE_CHECKING:
    from aiida_oodal.data import ClusterData, PotentialData, StructureSetData


@dataclass(frozen=True)
class WalkerRun:
    """What one walker met in one round.

    :param last_step: where it ended, by halt or at its last step; None if MD left nothing.
    :param max_gamma: largest extrapolation grade of the run, dimensionless.
    """

    name: str
    outcome: str
    message: str
    last_step: int | None = None
    max_gamma: float | None = None
    md: orm.WorkChainNode | None = None
    clusters: dict[str, ClusterData] = field(default_factory=dict)
    carving: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One round: the potential it began with, its walkers, and what was labelled because of them.

    :param force_rmse: error of that potential on the validation set, meV/angstrom; None where none was given.
    :param validation_gamma: its largest extrapolation grade on the validation set.
    :param leg: of the schedule of the walkers; None where they have none.
    :param audit: if all walkers ran to their end and were audited, what :func:`.judge_walkers` says of each.
    :param audit_labels: what was labelled for the audit.
    :param judged: outputs ``judged`` and ``judged_validation`` of what compared forces with the labels of this round.
    :param calibration: what :func:`.calibrate` made of them; empty if it did not come to that.
    """

    number: int
    potential: PotentialData | None
    force_rmse: float | None
    validation_gamma: float | None
    walkers: tuple[WalkerRun, ...]
    queued: dict[str, ClusterData] = field(default_factory=dict)
    labels: StructureSetData | None = None
    selection: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    audit_labels: StructureSetData | None = None
    judged: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    leg: Leg | None = None

    @property
    def name(self) -> str:
        """Number of the round, and the leg of the schedule if there is one."""
        return str(self.number) if self.leg is None else f'{self.number} (leg {self.leg.number})'

    @property
    def labelled(self) -> dict[str, ClusterData]:
        """Clusters that were labelled in this round, by key of the queue; others failed, or are not labelled yet."""
        keys = set() if self.labels is None else set(self.labels.get_set().info['queue_key'].tolist())
        return {key: cluster for key, cluster in self.queued.items() if key in keys}

    @property
    def n_labelled(self) -> int:
        """Clusters that were labelled in this round."""
        return 0 if self.labels is None else self.labels.n_structures

    @property
    def halted(self) -> bool:
        """Whether a walker stopped before its last step."""
        return any(walker.outcome != 'COMPLETED' for walker in self.walkers)

    @property
    def passed(self) -> bool:
        """Whether every walker ran to its end, and none of them failed an audit."""
        return not self.halted and all(verdict['passed'] for verdict in self.audit.values())


@dataclass(frozen=True)
class CampaignHistory:
    """The rounds of a campaign.

    :param trainings: results of every training in its order; no round may have tried the last one yet.
    :param left: what a campaign without outputs has learned and labelled, a sentence; empty if it has outputs or runs.
    :param end: the output `convergence`: whether it has converged, and what ended it; empty if that is not known.
    """

    pk: int
    uuid: str
    state: str
    rounds: tuple[Round, ...]
    trainings: tuple[dict[str, Any], ...]
    left: str = ''
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def healed(self) -> bool:
        """Whether it has converged; if it does not say so, whether the last round passed, in the last leg."""
        if 'converged' in self.end or not self.rounds:
            return bool(self.end.get('converged'))
        last = self.rounds[-1]
        return last.passed and (last.leg is None or last.leg.number == last.leg.count)

    def list_labelled(self) -> Iterator[tuple[Round, WalkerRun, ClusterData]]:
        """Go through all clusters that have a label, in the round and of the walker that they were cut in.

        The label itself may have come in a later round.
        """
        labelled = {cluster.uuid for entry in self.rounds for cluster in entry.labelled.values()}
        for entry in self.rounds:
            for walker in entry.walkers:
                yield from ((entry, walker, each) for each in walker.clusters.values() if each.uuid in labelled)


def read_history(campaign: orm.WorkChainNode) -> CampaignHistory:
    """Read a campaign from the labels of its calls (see :class:`.Call`)."""
    called = _Called.read(campaign)
    outputs = read_outputs(campaign)
    walkers = sorted(campaign.inputs.walkers)
    count = max((call.round for call in called.nodes if call.stage is Stage.EXPLORE), default=0)
    rounds = [_read_round(campaign, called, walkers, number) for number in range(1, count + 1)]
    trainings = [called.last_training(number) for number in range(count + 1)]
    return CampaignHistory(
        pk=campaign.pk,
        uuid=campaign.uuid,
        state=_describe(campaign),
        rounds=tuple(rounds),
        trainings=tuple(outputs['results'].get_dict() for outputs in trainings if 'results' in outputs),
        left=_describe_left(campaign),
        end=_read_end(campaign, outputs),
    )


def _read_end(campaign: orm.WorkChainNode, outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the output `convergence`; of one that was killed, or is of a version without it, nothing is known."""
    if 'convergence' in outputs:
        end: dict[str, Any] = outputs['convergence'].get_dict()
        return end
    return {} if campaign.is_terminated else {'converged': False}


def _describe_left(campaign: orm.WorkChainNode) -> str:
    """Say what a campaign that was killed, or excepted, has left: AiiDA lets it attach nothing any more."""
    if not campaign.is_terminated or 'labels' in campaign.outputs or campaign.is_finished_ok:
        return ''
    left = read_left(campaign)
    if not left.labels and not left.learned:
        return 'It ended before anything was labelled or learned.'
    names = []
    if left.labels:
        names.append(f'the labels {", ".join(f"StructureSetData<{node.pk}>" for node in left.labels.values())}')
    if 'potential' in left.learned:
        potential = left.learned['potential']
        names.append(f'the last potential {type(potential).__name__}<{potential.pk}>')
    elif left.learned:
        reference = left.learned['ensemble']['reference']
        names.append(f'the last ensemble, whose reference is OodReferenceData<{reference.pk}>')
    return (
        f'It has no outputs, but nothing is lost: there are {" and ".join(names)}. '
        f'`aiida-oodal campaign extend {campaign.pk}` goes on with them in a new campaign; one of your own takes them '
        'as `initial_labels` (by any key) and as `initial_potential` or `initial_ensemble`.'
    )


@dataclass(frozen=True)
class _Called:
    """What a campaign called, with the inputs and outputs of all by PK."""

    nodes: dict[Call, orm.ProcessNode]
    inputs: dict[int, dict[str, Any]]
    outputs: dict[int, dict[str, Any]]

    @classmethod
    def read(cls, campaign: orm.WorkChainNode) -> _Called:
        nodes = read_calls(campaign)
        return cls(nodes, read_all_inputs(nodes.values()), read_all_outputs(nodes.values()))

    def left_by(self, stage: Stage, number: int) -> dict[str, Any]:
        """Return the outputs of a call that has no walker; empty if there was none."""
        node = self.nodes.get(Call(stage, number))
        return {} if node is None else self.outputs[node.pk]

    def last_training(self, number: int) -> dict[str, Any]:
        """Return the outputs of the training of a round, of the second one where the guard asked for it."""
        again = Call(Stage.RETRAIN, number) in self.nodes
        return self.left_by(Stage.RETRAIN if again else Stage.TRAIN, number)


def _read_round(campaign: orm.WorkChainNode, called: _Called, walkers: list[str], number: int) -> Round:
    training = _find_promoted(called, number)
    validation = training['results'].get_dict().get('validation') or {} if 'results' in training else {}
    label = called.nodes.get(Call(Stage.LABEL, number))
    asked = {} if label is None else called.inputs[label.pk].get('clusters', {})
    selection, audit = called.left_by(Stage.SELECT, number), called.left_by(Stage.AUDIT, number)
    judged = audit if 'judged' in audit else called.left_by(Stage.JUDGE, number)
    calibration = called.left_by(Stage.CALIBRATE, number)
    walks = [called.nodes.get(Call(Stage.EXPLORE, number, name)) for name in walkers]
    # what none of the trainings before brought is what the campaign began with
    potential = campaign.inputs.initial.get('potential')
    return Round(
        number=number,
        potential=training.get('learned', {}).get('potential', potential),
        force_rmse=validation.get('force_rmse'),
        validation_gamma=validation.get('max_gamma'),
        walkers=tuple(
            _read_walker(name, node, {} if node is None else called.outputs[node.pk])
            for name, node in zip(walkers, walks, strict=True)
        ),
        queued=dict(sorted(asked.items())),
        labels=called.left_by(Stage.LABEL, number).get('labels'),
        selection=selection['selection'].get_dict() if 'selection' in selection else {},
        audit=audit['results']['walkers'] if 'results' in audit else {},
        audit_labels=audit.get('labels'),
        judged={name: judged[name] for name in ('judged', 'judged_validation') if name in judged},
        calibration=calibration['result'].get_dict() if 'result' in calibration else {},
        leg=next((Leg.parse(node.description) for node in walks if node is not None), None),
    )


def _find_promoted(called: _Called, number: int) -> dict[str, Any]:
    """Return the outputs of the training whose potential the walkers of a round were sent out with.

    It is that of an earlier round where the guard refused the last ones.
    """
    sent = [node for call, node in called.nodes.items() if (call.stage, call.round) == (Stage.EXPLORE, number)]
    driving = identify(called.inputs[sent[0].pk]['md']) if sent else None
    for before in reversed(range(number)):
        for stage in (Stage.RETRAIN, Stage.TRAIN):
            outputs = called.left_by(stage, before)
            if 'learned' in outputs and driving in (None, identify(outputs['learned'])):
                return outputs
    return {}


def _read_walker(name: str, node: orm.WorkChainNode | None, outputs: dict[str, Any]) -> WalkerRun:
    """Read what a walker met, from the exploration that its campaign called and its outputs; None if there is none."""
    if node is None:
        return WalkerRun(name, 'not started', '')
    if 'results' not in outputs:
        return WalkerRun(name, describe_walker(node), node.exit_message or '', md=node)
    results = outputs['results'].get_dict()
    return WalkerRun(
        name=name,
        outcome=results['outcome'],
        message=results['message'],
        last_step=results['last_step'],
        max_gamma=results['max_gamma'],
        md=node,
        # links have no order after an import: c0, c1, ..., c10
        clusters=dict(sorted(outputs.get('clusters', {}).items(), key=lambda item: (len(item[0]), item[0]))),
        carving=outputs['carving'].get_dict() if 'carving' in outputs else {},
    )


def describe_walker(node: orm.WorkChainNode) -> str:
    """Return how a walker ended that left no results; one that was killed, or whose MD was, did not fail."""
    if not node.is_terminated:
        return 'running'
    return 'KILLED' if any(process.is_killed for process in (node, *node.called_descendants)) else 'FAILED'


def _describe(campaign: orm.WorkChainNode) -> str:
    if not campaign.is_terminated:
        return 'running'
    if campaign.is_finished_ok:
        return 'healed: every walker runs to its end'
    return str(campaign.exit_message or campaign.process_state.value)
