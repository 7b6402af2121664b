"""Options of an engine command, declared once: a frozen dataclass whose fields carry their limits and descriptions.

The host makes them by :meth:`Options.load`, which checks every field and needs pydantic. The job file holds
:meth:`Options.plain`. The compute node, where pydantic may be missing, makes them by :meth:`Options.read`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from .errors import OodalError

__all__ = ['Options', 'option']


def option(default: Any, description: str, *, factory: Callable[[], Any] | None = None, **limits: Any) -> Any:
    """Declare a field of :class:`Options`.

    :param default: value where none is given; ``...`` for a field that must be given.
    :param description: one sentence for users, with the unit.
    :param factory: makes the default where it can be changed in place, as a dictionary; ``default`` is ``...`` then.
    :param limits: what the host checks, in pydantic's words: ``gt``, ``ge``, ``lt``, ``le``, ``min_length``,
        ``max_length``, ``pattern``.
    """
    metadata = {'description': description, **limits}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is ...:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of options; a subclass is a frozen dataclass and says in :attr:`TITLE` what messages call it.

    Rules that concern several fields go into ``__post_init__``, which raises :class:`OodalError`.
    """

    TITLE: ClassVar[str]

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        """Make options on the host.

        :raises OodalError: naming every wrong field, its value and what is allowed.
        """
        from .settings import settings_of  # needs pydantic

        kind: Any = cls  # mypy does not take `type[Self]` for hashable
        checked = settings_of(kind).load(values)
        try:
            return cls(**dict(checked))
        except OodalError as error:
            raise OodalError(f'{cls.TITLE}: {error}') from None

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> str | None:
        """Say what is wrong with plain values, or return None: the form that AiiDA's validators want."""
        try:
            cls.load(values)
        except OodalError as error:
            return str(error)
        return None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Make options in a job, of what :meth:`plain` gave on the host; fields that are missing have their defaults.

        :raises OodalError: if there is a field that this engine does not know.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise OodalError(
                f'{cls.TITLE}: this engine does not know {", ".join(unknown)}, only {", ".join(known)}: was the job '
                'prepared for another version?'
            )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def plain(self) -> dict[str, Any]:
        """Return all fields as plain values, for JSON."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
