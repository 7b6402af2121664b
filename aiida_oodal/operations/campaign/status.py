"""Where a campaign stands, without reading all of its rounds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_oodal.calculations.job.cost import count_core_hours
from aiida_oodal.engine.trust.audit import explain_verdicts
from aiida_oodal.operations.follow import describe_activity
from aiida_oodal.queue import QueueStatus
from aiida_oodal.queue.listing import Selection, count_selected, sum_core_hours
from aiida_oodal.report.campaign.history import describe_walker
from aiida_oodal.workchains.calls import STOP, Call, Stage
from aiida_oodal.workchains.trust.signs import GOT_WORSE, NOT_PROMOTED

#: How many of the last reports are shown.
_REPORTS = 4


@dataclass(frozen=True)
class WalkerStatus:
    """What a walker met in the present round.

    :param last_step: where it ended, by halt or at its last step; None if MD left nothing, or runs.
    :param max_gamma: largest extrapolation grade of the run, dimensionless; None in the same cases.
    """

    name: str
    outcome: str
    last_step: int | None = None
    max_gamma: float | None = None


@dataclass(frozen=True)
class CampaignStatus:
    """What somebody wants to know who looks at a campaign.

    :param state: in words; of one that has ended its exit message.
    :param walkers: of the present round, as far as they have ended.
    :param leg: of the schedule, in words; empty where walkers have none.
    :param activity: what processes are doing, a line each; empty if it has ended.
    :param queue: entries that it asked for, by status.
    :param label_core_hours: that their labels cost; None if it is not known.
    :param core_hours: of all jobs of the campaign, as far as they are known; None if they are not known for any.
    :param n_labels: structures that were labelled in all rounds.
    :param n_atoms: of these structures.
    :param force_rmse: of each training on the validation set, meV/angstrom; None where there is none.
    :param calibration: what the last one found, sentences; empty if there is none.
    :param learned: the last potential, or the reference of the last ensemble, and the round of its training; empty if
        there is none.
    :param guard: what got worse last, and which rounds were refused for such; empty if nothing got worse.
    :param audit: what the last audit said of each walker; empty if there was none.
    :param failed: processes of the present round that failed, and why.
    :param reports: the last reports.
    :param advice: what can be done now, with commands.
    """

    pk: int
    label: str
    state: str
    begun: datetime
    round: int
    most_rounds: int
    leg: str
    walkers: list[WalkerStatus]
    activity: list[str]
    queue: dict[str, int]
    label_core_hours: float | None
    core_hours: float | None
    n_labels: int
    n_atoms: int
    force_rmse: list[float | None]
    learned: str
    guard: list[str]
    audit: list[str]
    calibration: list[str]
    failed: list[str]
    reports: list[str]
    advice: list[str]


def read_status(campaign: orm.WorkChainNode) -> CampaignStatus:
    """Read the status of a campaign."""
    calls = _read_labels(campaign)
    last = max((call.round for call in calls), default=0)
    present = _load_present({call: pk for call, pk in calls.items() if call.round == last})
    labelled = [pk for call, pk in calls.items() if call.stage in (Stage.LABEL, Stage.AUDIT)]
    n_labels, n_atoms = _count_labels(labelled)
    mine = Selection(campaign=campaign.uuid)
    queue = {status.value: count for status, count in count_selected(mine).items()}
    return CampaignStatus(
        pk=campaign.pk,
        label=campaign.label,
        state=_describe(campaign),
        begun=campaign.ctime,
        round=last,
        most_rounds=_read_most_rounds(campaign),
        leg=next((node.description for call, node in present.items() if call.stage is Stage.EXPLORE), ''),
        walkers=_read_walkers(present),
        activity=[] if campaign.is_terminated else describe_activity(campaign).split(';  '),
        queue=queue,
        label_core_hours=sum_core_hours(mine),
        core_hours=count_core_hours(campaign),
        n_labels=n_labels,
        n_atoms=n_atoms,
        force_rmse=_read_errors(calls),
        learned=_read_learned(calls),
        guard=_read_guard(campaign),
        audit=_read_audit(calls),
        calibration=_read_calibration(calls),
        failed=[
            f'{call}: {node.process_label}<{node.pk}>: {node.exit_message or node.process_state.value}'
            for call, node in sorted(present.items(), key=lambda item: str(item[0]))
            if node.is_terminated and not node.is_finished_ok
        ],
        reports=_read_reports(campaign),
        advice=_advise(campaign, queue),
    )


def _read_labels(campaign: orm.WorkChainNode) -> dict[Call, int]:
    """Return the PK of every call; of calls with the same label the last counts: the machine ended the others."""
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': campaign.pk}, tag='campaign')
    query.append(
        orm.ProcessNode,
        with_incoming='campaign',
        edge_filters={'type': {'in': [LinkType.CALL_CALC.value, LinkType.CALL_WORK.value]}},
        edge_project='label',
        project='id',
        tag='call',
    ).order_by({'call': ['ctime', 'id']})
    found = {}
    for pk, label in query.iterall():
        call = Call.parse(label)
        if call is not None:
            found[call] = pk
    return found


def _load_present(calls: dict[Call, int]) -> dict[Call, orm.ProcessNode]:
    """Return the processes of calls, in one query."""
    query = orm.QueryBuilder().append(orm.ProcessNode, filters={'id': {'in': list(calls.values())}})
    nodes = {node.pk: node for node in query.all(flat=True)} if calls else {}
    return {call: nodes[pk] for call, pk in calls.items()}


def _read_most_rounds(campaign: orm.WorkChainNode) -> int:
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': campaign.pk}, tag='campaign')
    query.append(orm.Int, with_outgoing='campaign', edge_filters={'label': 'max_rounds'}, project='attributes.value')
    return int(query.first(flat=True))


def _read_walkers(present: dict[Call, orm.ProcessNode]) -> list[WalkerStatus]:
    """Return what the walkers of a round met.

    From the attributes of their results: to load the nodes would import all kinds of data that there are.
    """
    walks = {node.pk: (call.walker or '', node) for call, node in present.items() if call.stage is Stage.EXPLORE}
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': {'in': list(walks)}}, project='id', tag='walk')
    query.append(orm.Dict, with_incoming='walk', edge_filters={'label': 'results'}, project='attributes')
    results: dict[int, dict[str, Any]] = dict(query.all()) if walks else {}
    found = [
        WalkerStatus(name, *(results[pk][key] for key in ('outcome', 'last_step', 'max_gamma')))
        if pk in results
        else WalkerStatus(name, describe_walker(node))
        for pk, (name, node) in walks.items()
    ]
    return sorted(found, key=lambda walker: walker.name)


def _count_labels(calls: list[int]) -> tuple[int, int]:
    """Return how many structures were labelled, and how many atoms they have."""
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': {'in': calls}}, tag='call')
    counts = ['attributes.n_structures', 'attributes.n_atoms']
    query.append(orm.Data, with_incoming='call', edge_filters={'label': 'labels'}, project=counts)
    rows = query.all() if calls else []
    return sum(count for count, _ in rows), sum(count for _, count in rows)


def _read_errors(calls: dict[Call, int]) -> list[float | None]:
    """Return the force error of the last training of every round, meV/angstrom."""
    trainings = {pk: call for call, pk in calls.items() if call.stage in (Stage.TRAIN, Stage.RETRAIN)}
    if not trainings:
        return []
    query = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={'id': {'in': list(trainings)}}, project='id', tag='train'
    )
    query.append(
        orm.Dict,
        with_incoming='train',
        edge_filters={'label': 'results'},
        project='attributes.validation.force_rmse',
    )
    found = {trainings[pk]: error for pk, error in query.iterall()}
    by_round = {call.round: found[call] for call in sorted(found, key=lambda call: (call.round, call.stage))[::-1]}
    return [by_round[number] for number in sorted(by_round)]


def _read_learned(calls: dict[Call, int]) -> str:
    """Name what the last training made, without loading it."""
    trainings = {pk: call for call, pk in calls.items() if call.stage in (Stage.TRAIN, Stage.RETRAIN)}
    if not trainings:
        return ''
    query = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={'id': {'in': list(trainings)}}, project='id', tag='train'
    )
    query.append(
        orm.Data,
        with_incoming='train',
        edge_filters={'label': {'in': ['learned__potential', 'learned__ensemble__reference']}},
        project=['id', 'node_type'],
    )
    found = max(((trainings[pk].round, pk, node, kind) for pk, node, kind in query.iterall()), default=None)
    if found is None:
        return ''
    number, _, node, kind = found
    return f'{kind.split(".")[-2]}<{node}>, trained {f"in round {number}" if number else "before the first round"}'


def _read_calibration(calls: dict[Call, int]) -> list[str]:
    """Say what the last calibration found."""
    return _read_last(calls, Stage.CALIBRATE, 'result', 'sentences') or []


def _read_audit(calls: dict[Call, int]) -> list[str]:
    """Say what the last audit found."""
    return explain_verdicts(_read_last(calls, Stage.AUDIT, 'results', 'walkers') or {})


def _read_guard(campaign: orm.WorkChainNode) -> list[str]:
    """Return the last report about something that got worse, and the rounds whose training was refused."""
    query = orm.QueryBuilder().append(
        orm.Log,
        filters={
            'dbnode_id': campaign.pk,
            'or': [{'message': {'like': f'%{sign}%'}} for sign in (GOT_WORSE, NOT_PROMOTED)],
        },
        project='message',
        tag='log',
    )
    reports = [_without_head(message) for message in query.order_by({'log': ['time', 'id']}).all(flat=True)]
    refused = [report.split(':')[0].removeprefix('round ') for report in reports if NOT_PROMOTED in report]
    worse = [report for report in reports if GOT_WORSE in report][-1:]
    return worse + ([f'not promoted: round {", ".join(refused)}'] if refused else [])


def _without_head(message: str) -> str:
    """Return a report without what AiiDA puts before it."""
    return message.split(']: ', 1)[-1]


def _read_last(calls: dict[Call, int], stage: Stage, output: str, key: str) -> Any:
    """Return one value of an output of the last call of a stage; None if there is none yet."""
    found = max(((call.round, pk) for call, pk in calls.items() if call.stage is stage), default=None)
    if found is None:
        return None
    query = orm.QueryBuilder().append(orm.ProcessNode, filters={'id': found[1]}, tag='call')
    query.append(orm.Dict, with_incoming='call', edge_filters={'label': output}, project=f'attributes.{key}')
    return query.first(flat=True)


def _read_reports(campaign: orm.WorkChainNode) -> list[str]:
    """Return the last reports without their heads, the last one last."""
    query = orm.QueryBuilder().append(orm.Log, filters={'dbnode_id': campaign.pk}, project='message', tag='log')
    query.order_by({'log': [{'time': {'order': 'desc'}}, {'id': {'order': 'desc'}}]}).limit(_REPORTS)
    return [_without_head(message) for message in reversed(query.all(flat=True))]


def _describe(campaign: orm.WorkChainNode) -> str:
    if not campaign.is_terminated:
        stopping = ', to be stopped after this round' if campaign.base.extras.get(STOP, None) is not None else ''
        return ('paused' if campaign.paused else 'running') + stopping
    if campaign.is_finished_ok:
        return f'healed: {_read_reason(campaign) or "every walker ran to its end"}'
    return campaign.exit_message or str(campaign.process_state.value)


def _read_reason(campaign: orm.WorkChainNode) -> str | None:
    """Return what ended a campaign that succeeded; None for one of a version that did not say it."""
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': campaign.pk}, tag='campaign')
    query.append(orm.Dict, with_incoming='campaign', edge_filters={'label': 'convergence'}, project='attributes.reason')
    reason: str | None = query.first(flat=True)
    return reason


def _advise(campaign: orm.WorkChainNode, queue: dict[str, int]) -> list[str]:
    advice = []
    if campaign.is_terminated:
        if campaign.is_finished_ok:
            advice.append(f'`aiida-oodal report {campaign.pk}` writes the page of it')
        else:
            advice.append(f'`aiida-oodal campaign extend {campaign.pk}` goes on with what it learned')
    elif campaign.paused:
        advice.append(f'`aiida-oodal campaign resume {campaign.pk}` lets it go on')
    elif campaign.base.extras.get(STOP, None) is not None:
        advice.append(f'it ends after this round; `aiida-oodal campaign resume {campaign.pk}` takes that back')
    if queue[QueueStatus.FAILED.value]:
        advice.append(
            f'`aiida-oodal queue list --status FAILED --campaign {campaign.pk}` says why labels failed, '
            f'`aiida-oodal queue retry --status FAILED --campaign {campaign.pk}` lets them wait again'
        )
    return advice
