"""Walkers of a campaign: replicas that differ in their velocities, and schedules that make the walks harder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm

from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.engine.trust.convergence import ConvergenceSettings
from aiida_oodal.workchains.protocols import merge

#: What a walker is to the builder of a campaign.
WALKER = ('structure', 'settings', 'schedule', 'replicas')
#: Largest `velocity_seed` of MD.
_MOST_SEEDS = 900_000_000
#: Distance of the seeds of two runs of one walker: larger than any number of replicas, and a prime.
_STRIDE = 1_000_003
_MOST_REPLICAS = 1000


def expand_replicas(walkers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return walkers with ``NAME_1`` to ``NAME_n`` in the place of each that has ``replicas: n``.

    They differ in their ``velocity_seed`` only, which rises by 1 from that of the walker.

    :param walkers: by name, with ``settings`` and ``schedule`` as plain values, what all walkers share merged in.
    :raises OodalError: if the number is none, if a name is taken, or if all replicas would do the same.
    """
    expanded: dict[str, dict[str, Any]] = {}
    for name, walker in walkers.items():
        count = walker.get('replicas', 1)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_REPLICAS:
            raise OodalError(f'walker {name!r}: replicas = {count!r} must be a whole number, 1 to {_MOST_REPLICAS}')
        single = {key: value for key, value in walker.items() if key != 'replicas'}
        if count > 1:
            _require_own_velocities(name, single)
        for number in range(count):
            own = name if count == 1 else f'{name}_{number + 1}'
            if own in expanded or (own != name and own in walkers):
                raise OodalError(
                    f'walker {name!r}: its replica {own!r} has the name of another walker; give one of them another'
                )
            settings = single['settings'] if count == 1 else _shift_seed(single['settings'], number)
            expanded[own] = {**single, 'settings': settings}
    return expanded


def _shift_seed(settings: Mapping[str, Any], by: int) -> dict[str, Any]:
    """Return settings of MD, as a user gave them, with another ``velocity_seed``; what is no number is left."""
    seed = settings.get('velocity_seed', MdSettings.model_fields['velocity_seed'].default)
    return {**settings, 'velocity_seed': (seed + by - 1) % _MOST_SEEDS + 1 if isinstance(seed, int) else seed}


def _require_own_velocities(name: str, walker: Mapping[str, Any]) -> None:
    """Refuse a walker whose replicas would all do the same."""
    for number, entry in enumerate(walker.get('schedule', []), start=1):
        if isinstance(entry, Mapping) and 'velocity_seed' in entry:
            raise OodalError(
                f'walker {name!r}: entry {number} of its schedule gives velocity_seed, with which all of its replicas '
                'would be the same; leave it out, or give walkers of their own'
            )
    if _keeps_velocities(walker['structure'], walker['settings']):
        raise OodalError(
            f'walker {name!r}: its structure has velocities, so that all of its replicas would be the same; give '
            'initial_temperature for new ones'
        )


def _keeps_velocities(structure: Any, settings: Mapping[str, Any]) -> bool:
    """Return whether MD begins with the velocities of the structure."""
    if settings.get('initial_temperature') is not None or not isinstance(
        structure, (StructureSetData, orm.StructureData)
    ):
        return False
    frames = get_structures(structure)
    return len(frames) > 0 and bool(frames[0].has('momenta'))


def count_legs(walkers: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many legs the walkers have: their own settings, then the entries of the longest schedule."""
    return 1 + max((len(_schedule_of(walker)) for walker in walkers.values()), default=0)


def settings_of_leg(walker: Mapping[str, Any], leg: int) -> dict[str, Any]:
    """Return the settings of MD of a walker in a leg: its own, with those of the entry of the schedule merged over.

    :param walker: the inputs of the walker, nodes.
    :param leg: from 1; a walker whose schedule is shorter stays with its last entry.
    """
    settings: dict[str, Any] = walker['settings'].get_dict()
    schedule = _schedule_of(walker)
    entry = min(leg - 1, len(schedule))
    return merge(settings, schedule[entry - 1]) if entry else settings


def reseed(settings: Mapping[str, Any], shift: int) -> dict[str, Any]:
    """Return settings of MD with another ``velocity_seed``, which no replica and no other shift has.

    :param shift: how often the velocities were changed so far; 0 changes nothing.
    """
    seed = MdSettings.load(settings).velocity_seed
    return _shift_seed({**settings, 'velocity_seed': seed}, shift * _STRIDE) if shift else dict(settings)


def list_legs(walker: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of MD of every leg.

    :param walker: the inputs of the walker, nodes.
    :raises OodalError: if the schedule is no list of settings by name.
    """
    schedule = _schedule_of(walker)
    for number, entry in enumerate(schedule, start=1):
        if not isinstance(entry, Mapping):
            raise OodalError(f'schedule: entry {number} is {entry!r}, and must be settings of MD by name')
    return [settings_of_leg(walker, leg) for leg in range(1, len(schedule) + 2)]


def check_convergence(inputs: Mapping[str, Any]) -> None:
    """Refuse a convergence that a campaign could not reach, or would not know of.

    :param inputs: of the campaign, nodes.
    :raises OodalError: if walkers would repeat themselves, or rounds, frames or a validation set are missing.
    """
    settings = ConvergenceSettings.load(inputs['convergence'].get_dict())
    for name, walker in inputs['walkers'].items():
        try:
            _require_new_velocities(walker, settings.rounds)
        except OodalError as error:
            raise OodalError(f'walker {name!r}: {error}') from error
    limits = Thresholds.load(inputs['thresholds'].get_dict() if 'thresholds' in inputs else {})
    if settings.gamma is not None and settings.gamma < limits.gamma_select:
        raise OodalError(
            f'convergence: gamma = {settings.gamma:g} is below gamma_select = {limits.gamma_select:g}: no frame would '
            'be kept to learn from; raise it, or lower gamma_select'
        )
    if settings.flat_share is not None and 'validation' not in inputs:
        raise OodalError(
            f'convergence: flat_share = {settings.flat_share:g} is about the error on the validation set, and there is '
            'none: give `validation`'
        )
    legs = count_legs(inputs['walkers'])
    first = inputs['initial']['progress'].get_dict().get('leg', 1) if 'progress' in inputs.get('initial', {}) else 1
    if first > legs:
        raise OodalError(f'initial.progress: leg = {first}, but the schedule has {legs} legs')
    least = (legs - first + 1) * settings.rounds
    if (most := inputs['max_rounds'].value) < least:
        raise OodalError(
            f'max_rounds = {most} is too few: {legs - first + 1} legs of the schedule with convergence.rounds = '
            f'{settings.rounds} each take {least} rounds at least'
        )


def _require_new_velocities(walker: Mapping[str, Any], rounds: int) -> None:
    """Refuse a walker that has to run to its end several times and would do the same each time."""
    if rounds > 1 and any(_keeps_velocities(walker['structure'], leg) for leg in list_legs(walker)):
        raise OodalError(
            f'its structure has velocities, and convergence.rounds = {rounds}: with the same velocities a round in '
            'which nothing was learned would only be repeated; give initial_temperature for new ones'
        )


def _schedule_of(walker: Mapping[str, Any]) -> Sequence[Any]:
    schedule = walker.get('schedule')
    if schedule is not None and not isinstance(schedule, orm.List):
        raise OodalError(f'schedule: give a List of settings of MD, not {schedule!r}')
    return [] if schedule is None else schedule.get_list()
