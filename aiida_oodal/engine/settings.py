"""What all settings have in common: frozen, checked when a job is prepared, and refused in plain words.

Settings are read on the host; a compute node gets their plain values.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from .errors import OodalError, suggest


class Settings(BaseModel):
    """Base of settings; a subclass says in :attr:`TITLE` what its messages call it."""

    model_config = ConfigDict(frozen=True, extra='forbid', allow_inf_nan=False)

    TITLE: ClassVar[str]

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from plain values.

        :raises OodalError: naming every wrong field, its value and what is allowed.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            sentences = dict.fromkeys(cls._explain(item) for item in error.errors(include_url=False))
            raise OodalError(f'{cls.TITLE}: {"; ".join(sentences)}') from None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> str | None:
        """Say what is wrong with plain values, or return None: the form AiiDA's validators want."""
        try:
            cls.load(values)
        except OodalError as error:
            return str(error)
        return None

    @classmethod
    def _explain(cls, item: Any) -> str:
        """Turn one finding of pydantic into a sentence with the field, its value and what is allowed."""
        if not item['loc']:
            return str(item['msg']).removeprefix('Value error, ')
        name = str(item['loc'][0])
        if item['type'] == 'extra_forbidden':
            return f'{name!r} is not a setting; {suggest(name, cls.model_fields)}'
        if item['type'] == 'missing':
            return f'{name} is missing ({cls.allowed(name)})'
        return f'{name} = {item["input"]!r}: {item["msg"]} ({cls.allowed(name)})'

    @classmethod
    def allowed(cls, name: str) -> str:
        """Describe what a field takes, from its own declaration: ``'allowed: float, > 1.0, <= 20.0'``."""
        field = cls.model_fields[name]
        signs = {'gt': '>', 'ge': '>=', 'lt': '<', 'le': '<=', 'min_length': 'at least', 'max_length': 'at most'}
        limits = [
            f'{sign} {getattr(limit, attribute)}' + (' entries' if 'length' in attribute else '')
            for limit in field.metadata
            for attribute, sign in signs.items()
            if getattr(limit, attribute, None) is not None
        ]
        annotation = field.annotation
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace('typing.', '')
        return ', '.join([f'allowed: {kind}', *limits])


def describe_allowed(settings: type[Settings], name: str) -> str:
    """Return type and limits of a field for people: of a choice the words that there are."""
    text = settings.allowed(name).removeprefix('allowed: ')
    return re.sub(r'Literal\[([^]]*)\]', lambda match: match[1].replace(', ', ' or '), text)


@functools.cache
def settings_of(kind: type[Any]) -> type[Settings]:
    """Make settings of a frozen dataclass, so that its fields, defaults, limits and descriptions stand once.

    :param kind: a subclass of :class:`~aiida_oodal.engine.options.Options`: the metadata of its fields are arguments
        of pydantic's ``Field``.
    """
    hints = get_type_hints(kind, include_extras=True)
    declared: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        arguments = dict(field.metadata)
        if field.default is not dataclasses.MISSING:
            arguments['default'] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            arguments['default_factory'] = field.default_factory
        declared[field.name] = (hints[field.name], Field(**arguments))
    settings: type[Settings] = create_model(kind.__name__, __base__=Settings, **declared)
    settings.TITLE = kind.TITLE
    return settings
