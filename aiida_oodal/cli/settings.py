"""``aiida-oodal settings``: what a campaign can be told, and what it is if nobody says it."""

from __future__ import annotations

import click

from .params import plain_errors
from .tables import wrap


@click.command()
@click.argument('sections', nargs=-1, metavar='[SECTION]...')
@click.option('--protocol', help='quick, balanced or careful.  [default: balanced]')
def settings(sections: tuple[str, ...], protocol: str | None) -> None:
    """Print the settings of SECTIONs with their values under a protocol, what is allowed and what they are.

    Without a SECTION: which there are, and how they are given. What labellers can be told is in docs/labels.md.

    \b
    Example:
      aiida-oodal settings carve select --protocol quick
    """  # noqa: D301  click looks for the character, not for its name
    from aiida_oodal.operations.campaign.settings import SECTIONS, list_settings

    if not sections:
        for name, section in SECTIONS.items():
            click.echo(wrap(section.where, indent=13, first=name))
        click.echo("Alone: overrides={'max_rounds': 20, 'schedule': [...], 'mix_levels': True}, see docs/campaigns.md")
        return
    with plain_errors():
        found = {name: list_settings(name, protocol) for name in sections}
    for name, rows in found.items():
        click.echo(wrap(f'{name}: {SECTIONS[name].where}', indent=0))
        for row in rows:
            value = 'must be given' if row.value is None else f'= {row.value}'
            click.echo(wrap(f'{row.name} {value}  ({row.allowed})', indent=2))
            click.echo(wrap(row.description, indent=6))
