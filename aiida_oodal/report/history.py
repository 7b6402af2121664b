"""A campaign as plain values, read from the graph: it works on one that runs, failed or was killed, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_oodal.data import AcePotentialData, ClusterData, StructureSetData


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
    """

    number: int
    potential: AcePotentialData | None
    force_rmse: float | None
    validation_gamma: float | None
    walkers: tuple[WalkerRun, ...]
    queued: dict[str, ClusterData] = field(default_factory=dict)
    labels: StructureSetData | None = None
    selection: dict[str, Any] = field(default_factory=dict)

    @property
    def n_labelled(self) -> int:
        """Clusters that were labelled in this round."""
        return 0 if self.labels is None else self.labels.n_structures

    @property
    def halted(self) -> bool:
        """Whether a walker stopped before its last step."""
        return any(walker.outcome != 'COMPLETED' for walker in self.walkers)


@dataclass(frozen=True)
class CampaignHistory:
    """The rounds of a campaign; ``final`` is the last training, which no round may have tried yet."""

    pk: int
    uuid: str
    state: str
    rounds: tuple[Round, ...]
    trainings: tuple[dict[str, Any], ...]

    @property
    def healed(self) -> bool:
        """Whether every walker of the last round ran to its end."""
        return bool(self.rounds) and not self.rounds[-1].halted


def read_history(campaign: orm.WorkChainNode) -> CampaignHistory:
    """Read a campaign from the labels of its calls (see :class:`.CampaignWorkChain`)."""
    calls = campaign.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all()
    called = {
        link.link_label: link.node
        # Of those with the same name the last counts: the machine ended the others.
        for link in sorted(calls, key=lambda link: link.node.pk)
        # A call whose worker was killed before it was handed on has no state; another took its place.
        if link.node.process_state is not None
    }
    walkers = sorted(campaign.inputs.walkers)
    rounds = []
    number = 1
    while any(f'explore_{number}_{name}' in called for name in walkers):
        rounds.append(_read_round(campaign, called, walkers, number))
        number += 1
    trainings = [
        _outputs(called[f'train_{index}'])['results'].get_dict()
        for index in range(number)
        if f'train_{index}' in called and 'results' in _outputs(called[f'train_{index}'])
    ]
    return CampaignHistory(
        pk=campaign.pk, uuid=campaign.uuid, state=_describe(campaign), rounds=tuple(rounds), trainings=tuple(trainings)
    )


def _read_round(
    campaign: orm.WorkChainNode, called: dict[str, orm.ProcessNode], walkers: list[str], number: int
) -> Round:
    training = _outputs(called.get(f'train_{number - 1}'))
    validation = training['results'].get_dict().get('validation') or {} if 'results' in training else {}
    label = called.get(f'label_{number}')
    selection = _outputs(called.get(f'select_{number}'))
    return Round(
        number=number,
        potential=training.get('potential', campaign.inputs.initial.get('potential') if number == 1 else None),
        force_rmse=validation.get('force_rmse'),
        validation_gamma=validation.get('max_gamma'),
        walkers=tuple(_read_walker(name, called.get(f'explore_{number}_{name}')) for name in walkers),
        queued=dict(label.inputs.clusters) if label is not None else {},
        labels=_outputs(label).get('labels'),
        selection=next(iter(selection.values())).get_dict() if selection else {},
    )


def _read_walker(name: str, node: orm.WorkChainNode | None) -> WalkerRun:
    if node is None:
        return WalkerRun(name, 'not started', '')
    outputs = _outputs(node)
    if 'results' not in outputs:
        state = 'running' if not node.is_terminated else 'FAILED'
        return WalkerRun(name, state, node.exit_message or '', md=node)
    results = outputs['results'].get_dict()
    return WalkerRun(
        name=name,
        outcome=results['outcome'],
        message=results['message'],
        last_step=results['last_step'],
        max_gamma=results['max_gamma'],
        md=node,
        clusters=dict(outputs.get('clusters', {})),
        carving=outputs['carving'].get_dict() if 'carving' in outputs else {},
    )


def _outputs(node: orm.ProcessNode | None) -> dict[str, Any]:
    return {} if node is None else {label: getattr(node.outputs, label) for label in node.outputs}


def _describe(campaign: orm.WorkChainNode) -> str:
    if not campaign.is_terminated:
        return 'running'
    if campaign.is_finished_ok:
        return 'healed: every walker runs to its end'
    return str(campaign.exit_message or campaign.process_state.value)
