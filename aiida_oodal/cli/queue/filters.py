"""Options that select entries, shared by the commands of the queue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from aiida_oodal.engine.errors import OodalError

if TYPE_CHECKING:
    from aiida_oodal.queue.listing import Selection

_UNITS = {'m': 'minutes', 'h': 'hours', 'd': 'days', 'w': 'weeks'}
_STATUSES = ('PENDING_DFT', 'SUBMITTED', 'LABELLED', 'FAILED', 'REJECTED')


class _Age(click.ParamType):
    """A time such as 12h or 3d."""

    name = 'age'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        found = re.fullmatch(r'(\d+(?:\.\d+)?)([mhdw])', str(value))
        if found is None:
            self.fail(f'{value!r} is no length of time: write 30m, 12h, 3d or 2w', param, ctx)
        return timedelta(**{_UNITS[found[2]]: float(found[1])})


_OPTIONS = (
    click.argument('keys', nargs=-1, metavar='[KEY]...'),
    click.option(
        '--status', 'statuses', multiple=True, type=click.Choice(_STATUSES, case_sensitive=False), help='May repeat.'
    ),
    click.option('--campaign', help='Entries that this process (PK or UUID) asked for.'),
    click.option(
        '--element',
        'elements',
        multiple=True,
        help='Entries with this element; if repeated, with all of these elements.',
    ),
    click.option(
        '--older-than', type=_Age(), help='Entries that were first asked for longer ago than this: 30m, 12h, 3d, 2w.'
    ),
    click.option('--newer-than', type=_Age(), help='Entries that were first asked for within this time.'),
    click.option('--gamma-above', type=float, help='Clusters whose centre atom had a gamma above this.'),
    click.option('--gamma-below', type=float, help='Clusters whose centre atom had a gamma below this.'),
    click.option(
        '--labeller',
        help='Entries whose level of theory belongs to this labeller (entry point), such as oodal.label.pw.',
    ),
    click.option(
        '--level',
        help='Entries of this level of theory: its hash, as `queue levels` shows it, or "" for '
        'entries without a level.',
    ),
)


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the arguments that :func:`make_selection` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_selection(
    keys: Iterable[str], statuses: Iterable[str], campaign: str | None, elements: Iterable[str], **others: Any
) -> Selection:
    """Return the selection that the options describe.

    :raises OodalError: if a campaign or an element is not there.
    """
    from ase.data import atomic_numbers

    from aiida_oodal.operations.queueing import find_node
    from aiida_oodal.queue import QueueStatus
    from aiida_oodal.queue.listing import Selection

    if unknown := [element for element in elements if element not in atomic_numbers]:
        raise OodalError(f'--element {unknown[0]} is no chemical element')
    return Selection(
        keys=tuple(keys),
        statuses=tuple(QueueStatus(status.upper()) for status in statuses),
        campaign=None if campaign is None else find_node(campaign).uuid,
        elements=tuple(elements),
        **others,
    )


def require_some(selection: Selection) -> None:
    """Refuse to change all entries because no filter was given.

    :raises OodalError: if there is no filter.
    """
    if selection.is_empty:
        raise OodalError('say which entries you mean: KEYs or filters such as --campaign 123 or --status FAILED')
