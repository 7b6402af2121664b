"""Commands that change the queue."""

from __future__ import annotations

from typing import Any

import click

from aiida_oodal.cli.params import PROFILE, ProfileCommand, plain_errors

from .filters import filters, make_selection, require_some


@click.command(cls=ProfileCommand)
@click.argument('node')
@click.option('--target', help='Take the candidates of this target of a screening only.  [default: of all targets]')
@click.option('--carve', is_flag=True, help='Cut a cluster around the worst atom of each candidate of a screening.')
@click.option('--cutoff', type=float, help='With --carve: cutoff of the potential, angstrom.')
@click.option('--radius', type=float, help='With --carve: radius of the core, angstrom.')
@click.option('--buffer', type=float, help='With --carve: thickness of the buffer, angstrom.')
@click.option(
    '-n',
    'limit',
    type=click.IntRange(1),
    help='How many to add at most: the first ones, or the worst ones of a screening.  [default: all]',
)
@click.option(
    '--priority', type=int, default=0, show_default=True, help='Entries with a higher priority are labelled first.'
)
@PROFILE
def add(
    node: str,
    target: str | None,
    carve: bool,
    cutoff: float | None,
    radius: float | None,
    buffer: float | None,
    limit: int | None,
    priority: int,
) -> None:
    """Put the structures of NODE into the queue; they get the level of theory of the labeller that takes them.

    NODE is the PK or UUID of a screening, whose candidates are taken whole or carved around their worst atom, of
    another process with clusters, of a structure set, or of a structure.

    \b
    Example: the surroundings of the worst atoms of the ten worst candidates
      aiida-oodal queue add 1234 --carve --cutoff 5 --radius 4 --buffer 3 -n 10
    """  # noqa: D301
    from aiida_oodal.engine.errors import OodalError
    from aiida_oodal.operations.queueing import add_to_queue

    sizes = {'cutoff': cutoff, 'radius': radius, 'buffer': buffer}
    given = {name: value for name, value in sizes.items() if value is not None}
    with plain_errors():
        if given and not carve:
            raise OodalError(f'--{next(iter(given))} can only be given with --carve')
        entries = add_to_queue(node, target=target, carve=given if carve else None, limit=limit, priority=priority)
    waiting = sum(entry.is_open for entry in entries)
    click.echo(f'{len(entries)} structures are in the queue, {waiting} of them wait for a label:')
    for entry in entries:
        click.echo(f'{entry.key}  {entry.status.value:<11}  {entry.formula}')


@click.command(cls=ProfileCommand)
@filters
@PROFILE
def retry(**which: Any) -> None:
    """Let entries that failed or were rejected wait again. Filters take what is FAILED, KEYs whatever can be retried.

    \b
    Example: what failed of a campaign
      aiida-oodal queue retry --campaign 1234
    """  # noqa: D301
    from aiida_oodal import queue

    if not which['keys'] and not which['statuses']:
        which['statuses'] = ('FAILED',)
    with plain_errors():
        _report(queue.retry(_find_keys(which)), 'wait again')


@click.command(cls=ProfileCommand)
@filters
@click.option('--reason', required=True, help='The reason; it is shown to everybody who asks for these labels.')
@PROFILE
def reject(reason: str, **which: Any) -> None:
    """Take entries out of the queue that are not to be labelled. Filters take what is PENDING_DFT.

    \b
    Example: cells that are too wrong to be worth a label
      aiida-oodal queue reject --gamma-above 1000 --reason "the frame is not physical"
    """  # noqa: D301
    from aiida_oodal import queue

    if not which['keys'] and not which['statuses']:
        which['statuses'] = ('PENDING_DFT',)
    with plain_errors():
        _report(queue.reject(_find_keys(which), reason), 'are rejected')


@click.command(cls=ProfileCommand)
@click.argument('priority', type=int)
@filters
@PROFILE
def prioritise(priority: int, **which: Any) -> None:
    """Set the PRIORITY of entries; those with a higher one are labelled first. New entries have 0.

    \b
    Example: what holds up a campaign
      aiida-oodal queue prioritise 10 --campaign 1234 --status PENDING_DFT
    """  # noqa: D301
    from aiida_oodal import queue

    with plain_errors():
        _report(queue.prioritise(_find_keys(which), priority), f'have the priority {priority}')


def _find_keys(which: dict[str, Any]) -> list[str]:
    """Return the keys of the selected entries."""
    from aiida_oodal.queue.listing import select_entries

    named = any(value for name, value in which.items() if name != 'statuses')
    selection = make_selection(**which)
    if not named:
        require_some(make_selection(**{**which, 'statuses': ()}))
    return [entry.key for entry in select_entries(selection)]


def _report(changed: list[Any], what: str) -> None:
    click.echo(f'{len(changed)} entries {what}' + (f': {", ".join(e.key for e in changed[:5])}' if changed else ''))
