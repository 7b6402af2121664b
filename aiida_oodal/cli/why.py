"""``aiida-oodal why``: the chain behind a cluster, a label or a potential, in sentences."""

from __future__ import annotations

import re
import shutil
import textwrap
from typing import TYPE_CHECKING

import click
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent

from aiida_oodal.engine.errors import OodalError

from .params import PROFILE, ProfileCommand, plain_errors

if TYPE_CHECKING:
    from aiida_oodal.report.campaign.why import Section


@click.command(cls=ProfileCommand)
@click.argument('node')
@click.option('--markdown', is_flag=True, help='Write it as Markdown, for a supplement or a referee.')
@PROFILE
def why(node: str, markdown: bool) -> None:
    """Tell how NODE came about, and what it was used for.

    NODE is a cluster, another structure of the queue, a set of labels or a potential: a PK, a UUID, or the key of an
    entry of the queue.

    \b
    Example: which model extrapolated at this cluster, in which MD, and which one was trained on it
      aiida-oodal why 93
    """  # noqa: D301  click looks for the character, not for its name
    from aiida_oodal.report.campaign.why import explain

    with plain_errors():
        sections = explain(_find(node))
    click.echo(_to_markdown(sections) if markdown else _to_text(sections))


def _find(identifier: str) -> orm.Node:
    """Return the node of a PK, a UUID or a key of the queue."""
    from aiida_oodal.queue import get_entries
    from aiida_oodal.queue.listing import find_keys

    try:
        return orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        try:
            (key,) = find_keys([identifier])
        except OodalError:
            raise OodalError(
                f'{identifier!r} is neither the PK or UUID of a node nor a key of the queue: `aiida-oodal queue list` '
                'lists keys, the report of a campaign PKs'
            ) from error
    return get_entries([key])[key].load_node()


def _to_text(sections: list[Section]) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    lines: list[str] = []
    for section in sections:
        lines += [section.title]
        for sentence in section.sentences:
            lines += textwrap.wrap(sentence, width, initial_indent='  ', subsequent_indent='    ')
        lines.append('')
    return '\n'.join(lines).rstrip()


def _to_markdown(sections: list[Section]) -> str:
    """Return the sections, and which node each number stands for: numbers are another in another profile."""
    parts: list[str] = []
    for number, section in enumerate(sections):
        parts.append(f'{"##" if number == 0 else "###"} {section.title}\n')
        parts += [f'- {sentence}' for sentence in section.sentences] + ['']
    named = {int(number) for number in re.findall(r'\w<(\d+)>', '\n'.join(parts))}
    query = orm.QueryBuilder().append(orm.Node, filters={'id': {'in': sorted(named)}}, project=['id', 'uuid'])
    parts += ['### Nodes\n', '| number here | UUID |', '|---|---|']
    parts += [f'| {number} | {uuid} |' for number, uuid in sorted(query.all())]
    return '\n'.join(parts)
