"""Campaigns side by side: what was different about them, and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiida import orm

from aiida_oodal.calculations.codes.lammps_code import is_engine
from aiida_oodal.calculations.job.cost import count_core_hours
from aiida_oodal.data.content import hash_content
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.differences import input_nodes, value_of

from .settings import SECTIONS, fill_settings
from .status import CampaignStatus, read_status

#: What stands for a result that a campaign does not have, and for a setting that it was not given.
MISSING, NOT_GIVEN = '–', 'not given'


@dataclass(frozen=True)
class Comparison:
    """Rows of a table with a column for each campaign.

    :param pks: of the campaigns, in the order in which they were asked for.
    :param results: name and values of what came out.
    :param settings: name and values of the inputs that differ, or that were asked for.
    :param n_equal: how many settings are the same in all.
    """

    pks: tuple[int, ...]
    results: tuple[tuple[str, tuple[str, ...]], ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    n_equal: int


def compare_campaigns(campaigns: Sequence[orm.WorkChainNode], *, everything: bool = False) -> Comparison:
    """Compare campaigns, whatever their state; of a single one all settings are returned that were given to it.

    A setting that was not given has its default of the installed version.

    :param everything: return all settings, those with their defaults too, whether they differ or not.
    :raises OodalError: if one is given twice.
    """
    pks = tuple(campaign.pk for campaign in campaigns)
    if len(set(pks)) < len(pks):
        raise OodalError(f'give each campaign once; got {", ".join(map(str, pks))}')
    statuses = [read_status(campaign) for campaign in campaigns]
    hours = [count_core_hours(campaign) for campaign in campaigns]
    settings = [dict(_read_settings(campaign)) for campaign in campaigns]
    names = sorted({name for each in settings for name in each})
    rows = {name: [each.get(name, _Setting('', NOT_GIVEN, is_given=False)) for each in settings] for name in names}
    if everything:
        differing = rows
    elif len(pks) == 1:
        differing = {name: row for name, row in rows.items() if row[0].is_given}
    else:
        given = {name: row for name, row in rows.items() if any(setting.is_given for setting in row)}
        differing = {name: row for name, row in given.items() if len({setting.identity for setting in row}) > 1}
    return Comparison(
        pks=pks,
        results=tuple((name, tuple(values)) for name, values in _list_results(statuses, hours)),
        settings=tuple((name, tuple(setting.text for setting in row)) for name, row in differing.items()),
        n_equal=len(rows) - len(differing),
    )


def _list_results(statuses: list[CampaignStatus], hours: list[float | None]) -> Iterator[tuple[str, list[str]]]:
    yield 'label', [status.label or MISSING for status in statuses]
    yield 'outcome', [status.state for status in statuses]
    yield 'rounds', [f'{status.round} of {status.most_rounds}' for status in statuses]
    yield 'labels', [str(status.n_labels) for status in statuses]
    yield 'labelled atoms', [str(status.n_atoms) for status in statuses]
    yield 'core hours', [MISSING if value is None else f'{value:.3g}' for value in hours]
    for number in range(max(len(status.force_rmse) for status in statuses)):
        name = 'force RMSE [meV/Å], training 0' if number == 0 else f'training {number}'
        yield name, [_error_of(status, number) for status in statuses]


def _error_of(status: CampaignStatus, number: int) -> str:
    error = status.force_rmse[number] if number < len(status.force_rmse) else None
    return MISSING if error is None else f'{error:.1f}'


@dataclass(frozen=True)
class _Setting:
    """One value of an input.

    :param identity: the same for equal content.
    :param text: as it is shown.
    :param is_given: whether it is an input, and not a default.
    """

    identity: str
    text: str
    is_given: bool = True


def _read_settings(campaign: orm.WorkChainNode) -> Iterator[tuple[str, _Setting]]:
    """Yield name and value of every input, those of dictionaries one by one, with the defaults of what was not given.

    Versions of the engine do not count.
    """
    for label, node in input_nodes(campaign).items():
        name = label.replace('__', '.').replace('.settings', '')  # which walkers and stages all have
        if isinstance(node, orm.AbstractCode):
            if not is_engine(node):
                yield name, _Setting(node.uuid, node.full_label)
        elif isinstance(node, (orm.Dict, orm.List, orm.Int, orm.Float, orm.Str, orm.Bool)):
            given = value_of(node)
            paths = {path for path, _ in _flatten(name, given)}
            section = _find_section(name, campaign) if isinstance(given, Mapping) else None  # a schedule is a list
            for path, value in _flatten(name, given if section is None else fill_settings(section, given)):
                yield path, _Setting(repr(value), str(value), path in paths)
        else:
            yield name, _Setting(hash_content(node), f'{type(node).__name__}<{node.pk}>')


def _find_section(name: str, campaign: orm.WorkChainNode) -> str | None:
    """Return which settings an input holds; None if it is none of them."""
    if name == 'train.inputs':
        return {'oodal.train.ace': 'train_ace', 'oodal.train.mace': 'train_mace'}.get(
            campaign.inputs.train.workflow.value
        )
    return 'md' if name.startswith('walkers.') else name if name in SECTIONS else None


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flatten(f'{name}.{key}', part)
    else:
        yield name, value
