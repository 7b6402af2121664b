"""How commands write times and long lines."""

from __future__ import annotations

import shutil
import textwrap
from datetime import UTC, datetime

#: Longest line, however wide the terminal is.
_WIDEST = 120


def format_age(time: datetime) -> str:
    """Return how long ago a time was, as ``5 min``, ``7 h`` or ``3 d``."""
    hours = (datetime.now(UTC) - time).total_seconds() / 3600
    return f'{hours / 24:.0f} d' if hours >= 48 else f'{hours:.0f} h' if hours >= 1 else f'{hours * 60:.0f} min'


def wrap(text: str, *, indent: int, first: str = '') -> str:
    """Return text that fits the terminal, its lines indented.

    :param indent: columns.
    :param first: what stands in these columns of the first line.
    """
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.fill(text, width, initial_indent=f'{first:<{indent}}', subsequent_indent=' ' * indent)
