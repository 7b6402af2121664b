"""Commands that show the queue."""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from aiida_oodal.cli.params import PROFILE, ProfileCommand, plain_errors
from aiida_oodal.cli.tables import format_age

from .filters import filters, make_selection

if TYPE_CHECKING:
    from aiida_oodal.queue import Entry

#: Characters of a line where the next program reads it: an entry is never broken into two.
_PIPE_WIDTH = 10_000
#: Columns of the list, and how wide they are at least.
_COLUMNS = {
    'key': 10,
    'status': 11,
    'formula': 6,
    'γ or score': 6,
    'priority': 3,
    'core h': 6,
    'age': 6,
    'level': 8,
    'remark': 10,
}


@click.command('list', cls=ProfileCommand)
@filters
@click.option('-n', 'limit', type=click.IntRange(0), default=20, show_default=True, help='How many to print at most.')
@click.option('--json', 'as_json', is_flag=True, help='Print the entries as JSON, with all their fields.')
@PROFILE
def list_(limit: int, as_json: bool, **which: Any) -> None:
    """Count entries by status, and list them: those with the highest priority first, then the oldest.

    In a pipe each entry is one line, however long, unless the variable COLUMNS says how wide lines are.

    \b
    Example: what failed in the last two days, and why
      aiida-oodal queue list --status FAILED --newer-than 2d
    """  # noqa: D301  click looks for the character, not for its name
    from rich.console import Console
    from rich.table import Table

    from aiida_oodal.queue.listing import count_selected, select_entries

    with plain_errors():
        selection = make_selection(**which)
        entries = select_entries(selection, limit)
        if as_json:
            click.echo(json.dumps([entry.to_extra() for entry in entries], indent=1))
            return
        counts = count_selected(selection)
    click.echo(', '.join(f'{count} {status.value}' for status, count in counts.items()))
    if not entries:
        return
    table = Table(box=None, pad_edge=False)
    for name, width in _COLUMNS.items():
        table.add_column(name, overflow='fold', min_width=width)
    for entry in entries:
        table.add_row(
            entry.key[:10],
            entry.status.value,
            entry.formula,
            _number(entry.score if entry.gamma is None else entry.gamma),
            str(entry.priority),
            _number(entry.core_hours),
            format_age(datetime.fromisoformat(entry.added)),
            entry.theory or '-',
            entry.reason or '',
        )
    is_for_people = click.get_text_stream('stdout').isatty() or 'COLUMNS' in os.environ
    Console(highlight=False, width=None if is_for_people else _PIPE_WIDTH).print(table)
    if (total := sum(counts.values())) > len(entries):
        click.echo(f'{total - len(entries)} more: -n {total} lists all')


@click.command(cls=ProfileCommand)
@click.argument('key')
@PROFILE
def show(key: str) -> None:
    """Show all that is known of the entry KEY: what it is, who asked, who labels it, what it cost, its label.

    \b
    Example:
      aiida-oodal queue show q3f81c
    """  # noqa: D301
    from aiida_oodal.queue import get_entries
    from aiida_oodal.queue.listing import find_keys

    with plain_errors():
        (full,) = find_keys([key])
    for name, value in _describe(get_entries([full])[full]):
        click.echo(f'{name:<16} {value}')


@click.command(cls=ProfileCommand)
@PROFILE
def levels() -> None:
    """List the levels of theory in the queue, with their hashes and how many entries they have by status.

    \b
    Example:
      aiida-oodal queue levels
    """  # noqa: D301
    from aiida_oodal.queue.listing import count_levels

    for level in count_levels():
        counts = ', '.join(f'{count} {status}' for status, count in sorted(level.counts.items()))
        click.echo(f'{level.hash or "-":<16}  {level.labeller or "-":<20}  {level.text}: {counts}')


def _describe(entry: Entry) -> list[tuple[str, str]]:
    """Return the lines of one entry."""
    node = entry.load_node()
    lines = [
        ('key', entry.key),
        ('status', entry.status.value),
        ('structure', f'{type(node).__name__}<{node.pk}>, {entry.formula}, {entry.atoms} atoms'),
        ('level of theory', f'{entry.theory} ({entry.labeller}, {entry.level})' if entry.level else 'none yet'),
        ('asked for by', ', '.join(_name_process(uuid) for uuid in entry.campaigns) or 'nobody but the queue'),
        ('asked first', entry.added),
        ('last change', entry.changed),
        ('priority', str(entry.priority)),
        ('attempts', str(entry.attempts)),
        ('core hours', 'not known' if entry.core_hours is None else f'{entry.core_hours:.4g}'),
    ]
    if entry.gamma is not None:
        lines.append(('gamma', f'{entry.gamma:.4g}'))
    if entry.score is not None:
        lines.append(('score', f'{entry.score:.4g}'))
    if entry.owner is not None:
        lines.append(('labelled by', _name_process(entry.process or entry.owner)))
    if entry.reason is not None:
        lines.append(('reason', entry.reason))
    if entry.label is not None:
        lines += _describe_label(entry)
    return lines


def _describe_label(entry: Entry) -> list[tuple[str, str]]:
    from aiida import orm
    from numpy.linalg import norm

    from aiida_oodal.engine.labels import ENERGY, FORCES
    from aiida_oodal.queue.exchange import read_labels

    labels, atoms = orm.load_node(entry.label), read_labels([entry])[entry.key]
    largest = float(norm(atoms.arrays[FORCES], axis=1).max())
    return [('label', f'StructureSetData<{labels.pk}>: {atoms.info[ENERGY]:.6f} eV, largest force {largest:.4f} eV/Å')]


def _name_process(uuid: str) -> str:
    from aiida import orm
    from aiida.common.exceptions import NotExistent

    try:
        node = orm.load_node(uuid)
    except NotExistent:
        return f'{uuid[:8]} (deleted)'
    return f'{node.process_label}<{node.pk}>'


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3g}'
