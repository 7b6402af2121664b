"""A campaign that goes on where another one ended, however that ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessBuilder

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.codes.lammps_code import is_engine
from aiida_oodal.calculations.job.places import read_places
from aiida_oodal.engine.errors import OodalError, require_known
from aiida_oodal.operations.launch import require_valid
from aiida_oodal.report.campaign.left import Left, read_left
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.campaign_inputs import find_labels
from aiida_oodal.workchains.protocols import merge
from aiida_oodal.workchains.trust.schedule import count_legs, settings_of_leg

#: Where the settings are that can be changed; walkers have their own.
_SETTINGS = {
    'thresholds': ('thresholds',),
    'carve': ('carve', 'settings'),
    'select': ('select', 'settings'),
    'guard': ('guard',),
    'audit': ('audit', 'settings'),
    'calibration': ('calibration',),
    'convergence': ('convergence',),
    'budget': ('budget',),
    'train': ('train', 'inputs', 'settings'),
    'ensemble': ('ensemble', 'settings'),
}


def build_extension(
    campaign: orm.WorkChainNode, changes: Mapping[str, Any] | None = None, rounds: int | None = None
) -> ProcessBuilder:
    """Return the builder of a campaign that goes on with what another one has learned and labelled.

    It has the same walkers, settings, codes, computers and options. Nothing is labelled or trained again: structures
    that the other one chose and has no label of are labelled first, and what was learned is trained again before the
    first round if there are labels that it has not seen.

    :param changes: nested settings that replace those of the other: ``thresholds``, ``carve``, ``select``, ``guard``,
        ``audit``, ``calibration``, ``convergence``, ``budget``, ``ensemble``, ``train`` (of the trainer: its settings,
        and what stands beside them), ``md`` (of all walkers) and ``walkers`` (by name); ``schedule``, a list, replaces
        that of all walkers. Legs of the schedule that have passed and in which nothing is changed are not repeated. A
        walker with another name and a ``structure`` (a node) is a further one: it has the settings that all others
        have in common, and its own.
    :param rounds: how many further rounds it may have; as many as the other one where not given.
    :raises OodalError: if the other one has not ended, or has converged and nothing is changed, or a change is not
        possible.
    """
    if not campaign.is_terminated:
        raise OodalError(
            f'{campaign.process_label}<{campaign.pk}> has not ended: `aiida-oodal campaign stop {campaign.pk}` ends it '
            f'after its round, `verdi process kill {campaign.pk}` at once'
        )
    if campaign.is_finished_ok and not changes:
        raise OodalError(
            f'{campaign.process_label}<{campaign.pk}> has converged: say what is to be different, such as '
            '--set md.steps=100000 for longer walks'
        )
    inputs = campaign.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
    inputs = _plain(inputs)
    campaign.recursive_merge(inputs, read_places(campaign))
    inputs = _renew_engine(inputs)
    left = read_left(campaign)
    inputs['initial'] = _begin(campaign, left, inputs.get('initial', {}))
    if rounds is not None:
        inputs['max_rounds'] = orm.Int(rounds)
    before = {name: dict(walker) for name, walker in inputs['walkers'].items()}
    _change(inputs, changes or {})
    inputs['initial']['progress'] = _take_up_schedule(left, before, inputs['walkers'])
    require_valid(CampaignWorkChain, inputs)
    builder = CampaignWorkChain.get_builder()
    builder._update(inputs)
    return builder


def _begin(campaign: orm.WorkChainNode, left: Left, initial: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the extension begins with."""
    labels = find_labels(initial)
    for name, node in left.labels.items():
        labels[name if name not in labels else f'{name}_{campaign.pk}'] = node
    begin: dict[str, Any] = dict(left.learned)
    if labels:
        begin['labels'] = labels
    if 'structures' in initial and not left.labels:  # it ended before they were labelled
        begin['structures'] = initial['structures']
    elif left.waiting:
        begin['clusters'] = left.waiting
    begin['train'] = orm.Bool(bool(left.learned) and (left.is_behind or 'clusters' in begin))
    if left.judged:
        begin['judged'] = left.judged
    if left.calibration is not None:
        begin['calibration'] = left.calibration
    return begin


def _take_up_schedule(
    left: Left, before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> orm.Dict:
    """Return where the extension begins: with the first leg that has not passed, or in which something is changed.

    :param before: inputs of the walkers of the other campaign.
    :param after: those of the extension.
    """

    def is_same(leg: int) -> bool:
        return before.keys() == after.keys() and all(
            settings_of_leg(before[name], leg) == settings_of_leg(after[name], leg) for name in after
        )

    count = count_legs(after)
    leg = next((leg for leg in range(1, count) if leg > left.passed or not is_same(leg)), count)
    return orm.Dict({'leg': leg, 'reseeded': left.reseeded})


def _change(inputs: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Replace settings among the inputs."""
    require_known(changes, (*_SETTINGS, 'md', 'walkers', 'schedule'), 'what to change')
    for name, values in changes.items():
        if name == 'schedule':
            continue
        if not isinstance(values, Mapping):
            raise OodalError(f'{name} = {values!r}: give names and values, such as {name}.name=value')
        if name == 'train':
            values = _change_trainer(inputs['train']['inputs'], values)
        if name in _SETTINGS and values:
            _merge_into(inputs, _SETTINGS[name], values)
    walkers = inputs['walkers']
    added = _add_walkers(walkers, changes.get('walkers', {}))
    require_known(changes.get('walkers', {}), walkers, 'walkers')
    for name in walkers:
        own = dict(changes.get('walkers', {}).get(name, {}))
        if name in added:
            del own['structure']
        schedule = own.pop('schedule', changes.get('schedule'))
        if schedule is not None:
            walkers[name]['schedule'] = orm.List(_require_list(name, schedule))
        if values := merge(changes.get('md', {}), own):
            _merge_into(walkers, (name, 'settings'), values)


def _change_trainer(trainer: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace inputs of the trainer that stand beside its settings, such as ``seeds``, and return its settings."""
    beside = {
        name: node for name, node in trainer.items() if isinstance(node, (orm.List, orm.Str, orm.Float, orm.Bool))
    }
    trainer |= {name: type(beside[name])(value) for name, value in values.items() if name in beside}
    settings = {name: value for name, value in values.items() if name not in (*beside, 'settings')}
    return merge(settings, values.get('settings', {}))


def _add_walkers(walkers: dict[str, dict[str, Any]], changes: Mapping[str, Any]) -> list[str]:
    """Add the walkers that are new and have a structure, with the settings that all others have in common.

    :return: their names.
    """
    settings = [walker['settings'].get_dict() for walker in walkers.values()]
    shared = {key: value for key, value in settings[0].items() if all(each.get(key) == value for each in settings)}
    added = [name for name, own in changes.items() if name not in walkers and 'structure' in own]
    walkers |= {name: {'structure': changes[name]['structure'], 'settings': orm.Dict(shared)} for name in added}
    return added


def _require_list(name: str, schedule: Any) -> list[Any]:
    if not isinstance(schedule, list):
        raise OodalError(f'schedule of walker {name!r}: give a list of settings, [{{...}}, ...], not {schedule!r}')
    return schedule


def _merge_into(inputs: dict[str, Any], path: tuple[str, ...], values: Mapping[str, Any]) -> None:
    """Replace a node of settings by one with other values."""
    for name in path[:-1]:
        inputs = inputs.setdefault(name, {})
    old = inputs[path[-1]].get_dict() if path[-1] in inputs else {}
    inputs[path[-1]] = orm.Dict(merge(old, values))


def _renew_engine(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Put the engine of this version in the place of another version's."""
    return {
        name: _renew_engine(value)
        if isinstance(value, dict)
        else get_engine_code()
        if isinstance(value, orm.AbstractCode) and is_engine(value)
        else value
        for name, value in inputs.items()
    }


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) if isinstance(value, Mapping) else value for name, value in inputs.items()}
