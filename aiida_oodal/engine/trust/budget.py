"""What a campaign may cost, and whether it has cost that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from aiida_oodal.engine.options import Options, option


@dataclass(frozen=True)
class Budget(Options):
    """The largest cost of a campaign; what is None has no limit. A round that has begun is brought to its end."""

    TITLE: ClassVar[str] = 'budget'

    labels: int | None = option(
        None, 'Structures that the campaign has had labelled, those before its first round included.', ge=1
    )
    labelled_atoms: int | None = option(None, 'Atoms of these structures.', ge=1)
    core_hours: float | None = option(None, 'Core hours of all jobs, as far as they are known.', gt=0.0)
    hours: float | None = option(None, 'Time since the campaign was submitted, hours.', gt=0.0)
    failures: int | None = option(None, 'Structures that are FAILED in the queue.', ge=1)

    def find_spent(self, spent: Mapping[str, float]) -> list[str]:
        """Return for each limit that is reached how much was spent, as ``31 of 30 labels``.

        :param spent: by the names of the fields; what is missing is not known, and not compared.
        """
        limits = {name: limit for name, limit in self.plain().items() if limit is not None and name in spent}
        return [
            f'{_format(spent[name])} of {_format(limit)} {name.replace("_", " ")}'
            for name, limit in limits.items()
            if spent[name] >= limit
        ]

    def limits(self) -> set[str]:
        """Return the names of what is limited."""
        return {name for name, limit in self.plain().items() if limit is not None}


def _format(number: float) -> str:
    """Return all digits of a count, and one decimal of a time."""
    return str(number) if isinstance(number, int) else f'{number:.1f}'
