"""The settings of a campaign, with what they are under a protocol: what ``aiida-oodal settings`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.carve.settings import CarveSettings, SelectSettings
from aiida_oodal.engine.errors import OodalError, suggest
from aiida_oodal.engine.mace.train.settings import MaceTrainSettings
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.options import Options
from aiida_oodal.engine.settings import Settings, describe_allowed, settings_of
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.engine.trust.audit import AuditSettings
from aiida_oodal.engine.trust.budget import Budget
from aiida_oodal.engine.trust.calibration import CalibrationSettings
from aiida_oodal.engine.trust.convergence import ConvergenceSettings
from aiida_oodal.engine.trust.guard import GuardSettings
from aiida_oodal.workchains.protocols import load_protocol


@dataclass(frozen=True)
class Section:
    """Settings that stand together.

    :param kind: the class that checks them.
    :param where: how they are given to a campaign.
    :param file: protocol that has values for them, and the names below which these are.
    """

    kind: type[Settings] | type[Options]
    where: str
    file: tuple[str, ...]

    @classmethod
    def of(cls, name: str, kind: type[Settings] | type[Options]) -> Section:
        """Make a section of the overrides of a campaign."""
        return cls(kind, f"overrides={{'{name}': {{...}}}}", ('campaign', name))


#: What a campaign can be told, by name.
SECTIONS = {
    'thresholds': Section.of('thresholds', Thresholds),
    'md': Section(
        MdSettings,
        "overrides={'md': {...}} for all walkers, or walkers={NAME: {'settings': {...}}}",
        ('campaign', 'md'),
    ),
    'carve': Section.of('carve', CarveSettings),
    'select': Section.of('select', SelectSettings),
    'train_ace': Section(AceFitSettings, "overrides={'train': {...}}", ('train_ace',)),
    'train_mace': Section(
        MaceTrainSettings,
        "overrides={'train': {'settings': {...}}} with trainer='oodal.train.mace'",
        ('train_mace', 'settings'),
    ),
    'audit': Section.of('audit', AuditSettings),
    'guard': Section.of('guard', GuardSettings),
    'calibration': Section.of('calibration', CalibrationSettings),
    'convergence': Section.of('convergence', ConvergenceSettings),
    'budget': Section.of('budget', Budget),
}


@dataclass(frozen=True)
class Setting:
    """One setting.

    :param value: under the protocol, as Python writes it; None if it has to be given.
    :param allowed: type and limits.
    """

    name: str
    value: str | None
    allowed: str
    description: str


def fill_settings(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the defaults of this version for what was not given; as they are if it refuses them.

    :param section: one of :data:`SECTIONS`.
    """
    kind: Any = SECTIONS[section].kind
    try:
        loaded = kind.load(values)
    except OodalError:  # of another version
        return dict(values)
    return loaded.plain() if isinstance(loaded, Options) else loaded.model_dump()


def list_settings(section: str, protocol: str | None = None) -> list[Setting]:
    """Return the settings of a section.

    :param section: one of :data:`SECTIONS`.
    :param protocol: ``quick``, ``balanced`` or ``careful``; the default one when not given.
    :raises OodalError: if there is no such section or protocol.
    """
    if section in ('label', 'train'):
        raise OodalError(
            'settings of labellers are in docs/labels.md, their defaults in the protocols label_*.yaml'
            if section == 'label'
            else 'settings of trainers are train_ace and train_mace'
        )
    if section not in SECTIONS:
        raise OodalError(f'there are no settings {section!r}; {suggest(section, SECTIONS)}')
    found = SECTIONS[section]
    file, *names = found.file
    given: Mapping[str, Any] = load_protocol(file, protocol)
    for name in names:
        given = given[name]
    kind: Any = found.kind
    model: type[Settings] = settings_of(kind) if issubclass(kind, Options) else kind
    try:
        loaded = model.load(given)
    except OodalError:  # some have no default
        loaded = model.model_construct(**given)
    return [
        Setting(
            name,
            repr(getattr(loaded, name)) if hasattr(loaded, name) else None,
            describe_allowed(model, name),
            field.description or '',
        )
        for name, field in model.model_fields.items()
        if section != 'md' or name not in Thresholds.__dataclass_fields__
    ]
