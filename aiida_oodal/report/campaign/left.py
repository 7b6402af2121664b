"""What a campaign has learned, labelled and left to label, also one that was killed and could attach no outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_oodal.engine.labels import AWAITED, QUEUE_KEY
from aiida_oodal.queue import find_entries
from aiida_oodal.workchains.calls import Call, Leg, Stage

from .links import read_all_outputs, read_outputs

if TYPE_CHECKING:
    from aiida_oodal.data import StructureSetData


@dataclass(frozen=True)
class Left:
    """What another campaign can go on with.

    :param labels: the labelled set of every round, by the name that it has in the trainings.
    :param learned: ``potential``, or ``ensemble``, as a campaign takes it; empty if there is none.
    :param is_behind: whether there are labels that it was not trained on.
    :param waiting: structures in the queue that the campaign asked for and has no label of, by key; those that are
        FAILED or REJECTED are left out.
    :param judged: labels with gamma and errors of what drove its walkers, by key.
    :param calibration: its last one, or None.
    :param passed: legs of its schedule that passed, all in a row from the first.
    :param reseeded: how often the velocities of its walkers were changed, at most.
    """

    labels: dict[str, StructureSetData]
    learned: dict[str, Any]
    is_behind: bool
    waiting: dict[str, orm.StructureData]
    judged: dict[str, StructureSetData]
    calibration: orm.Dict | None
    passed: int
    reseeded: int


def read_left(campaign: orm.WorkChainNode) -> Left:
    """Read it from the calls of a campaign (see :class:`.Call`)."""
    called = read_calls(campaign)
    outputs, labels = read_all_outputs(called.values()), {}
    for call in sorted((call for call in called if call.stage in (Stage.LABEL, Stage.AUDIT)), key=_order):
        if 'labels' in (found := outputs[called[call].pk]):
            labels[name_labels(call)] = found['labels']
    trainings = [node for call, node in called.items() if call.stage in (Stage.TRAIN, Stage.RETRAIN)]
    trainings = [node for node in trainings if 'learned' in outputs[node.pk]]
    learned = dict(campaign.outputs.learned) if 'learned' in campaign.outputs else {}
    if not learned and trainings:
        learned = dict(max(trainings, key=lambda node: (node.ctime, node.uuid)).outputs.learned)
    if not learned:
        initial = campaign.inputs.initial
        learned = {name: initial[name] for name in ('potential', 'ensemble') if name in initial}
    trained = {node.uuid for node in _find_training(learned, trainings)}
    labelled = {key for node in labels.values() for key in node.get_set().info[QUEUE_KEY].tolist()}
    entries = find_entries(campaign=campaign.uuid)
    passed, reseeded = _read_progress(campaign, called)
    judged, calibration = _read_calibration(campaign, called)
    return Left(
        labels=labels,
        learned=learned,
        is_behind=bool(learned) and any(node.uuid not in trained for node in labels.values()),
        waiting={
            entry.key: entry.load_node() for entry in entries if entry.key not in labelled and not entry.is_given_up
        },
        judged=judged,
        calibration=calibration,
        passed=passed,
        reseeded=reseeded,
    )


def _read_progress(campaign: orm.WorkChainNode, called: Mapping[Call, orm.ProcessNode]) -> tuple[int, int]:
    """Return how many legs of its schedule a campaign has passed, and how often velocities were changed, at most."""
    outputs = read_outputs(campaign)
    if 'convergence' in outputs:
        found = outputs['convergence'].get_dict()
        return found['legs'] if found['converged'] else found['leg'] - 1, found['reseeded']
    # It was killed: the legs before that of its last round have passed, each round may have changed the velocities.
    walks = {call.round: node for call, node in called.items() if call.stage is Stage.EXPLORE}
    leg = Leg.parse(walks[max(walks)].description) if walks else None
    begun = campaign.inputs.initial.get('progress')
    before = {} if begun is None else begun.get_dict()
    passed = before.get('leg', 1) - 1 if leg is None else leg.number - 1
    return max(passed, int(campaign.is_finished_ok)), before.get('reseeded', 0) + max(walks, default=0)


def _read_calibration(
    campaign: orm.WorkChainNode, called: Mapping[Call, orm.ProcessNode]
) -> tuple[dict[str, StructureSetData], orm.Dict | None]:
    """Return what the last calibration of a campaign was fitted to, but for the validation set, and what it found."""
    fits = {call.round: node for call, node in called.items() if call.stage is Stage.CALIBRATE and node.is_finished_ok}
    if not fits:
        initial = campaign.inputs.initial
        return dict(initial.get('judged', {})), initial.get('calibration')
    last = max(fits)
    inputs = fits[last].base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
    judged = {name: node for name, node in inputs.items() if name not in ('settings', 'validation', 'before', 'labels')}
    return judged | {f'round_{last}': inputs['labels']}, fits[last].outputs.result


def name_labels(call: Call) -> str:
    """Return the name that the labels of a call have in the trainings."""
    if call.stage is Stage.AUDIT:
        return str(call)
    return f'round_{call.round}' if call.round else AWAITED


def _order(call: Call) -> tuple[int, str]:
    return call.round, call.stage


def read_calls(campaign: orm.WorkChainNode) -> dict[Call, orm.ProcessNode]:
    """Return what a campaign called; of calls with the same label the last counts: the machine ended the others."""
    links = campaign.base.links.get_outgoing(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK)).all()
    called = {}
    for link in sorted(links, key=lambda link: (link.node.ctime, link.node.uuid)):
        call = Call.parse(link.link_label)
        # A call whose worker was killed before it was handed on has no state; another took its place.
        if call is not None and link.node.process_state is not None:
            called[call] = link.node
    return called


def identify(learned: Mapping[str, Any]) -> str | None:
    """Return which potential or ensemble something is driven by, or was learned."""
    if 'potential' in learned:
        return str(learned['potential'].uuid)
    return str(learned['ensemble']['reference'].uuid) if 'ensemble' in learned else None


def _find_training(learned: Mapping[str, Any], trainings: list[orm.ProcessNode]) -> list[StructureSetData]:
    """Return the labelled sets that a potential or ensemble was trained on, if it was trained in this campaign."""
    from aiida_oodal.calculations.labels import unpack

    for training in trainings:
        if identify(training.outputs.learned) == identify(learned):
            labels = training.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested().get('labels', {})
            return [part for name, node in labels.items() for part in unpack(name, node).values()]
    return []
