"""Commands that take a campaign elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from aiida_oodal.cli.params import PROFILE, ProfileCommand, plain_errors


@click.command(cls=ProfileCommand)
@click.argument('campaign')
@click.option(
    '-o',
    '--output',
    type=click.Path(dir_okay=False, path_type=Path),
    help='File of the archive.  [default: campaign-<pk>.aiida]',
)
@click.option('--overwrite', is_flag=True, help='Replace a file that is there.')
@PROFILE
def export(campaign: str, output: Path | None, overwrite: bool) -> None:
    """Write CAMPAIGN (its PK or UUID), which has ended, to an AiiDA archive for another profile or a repository.

    All that it called and all that led to what it began with come along, and the state of its entries of the queue:
    where the archive is imported, `status`, `why` and `report` say the same.

    \b
    Example:
      aiida-oodal campaign export 1234 -o copper.aiida
    """  # noqa: D301  click looks for the character, not for its name
    from aiida_oodal.operations.campaign.archive import export_campaign
    from aiida_oodal.operations.campaign.find import find_campaign

    with plain_errors():
        node = find_campaign(campaign)
        done = export_campaign(node, output or Path(f'campaign-{node.pk}.aiida'), overwrite=overwrite)
    others = '' if len(done.campaigns) == 1 else f', with {len(done.campaigns) - 1} campaigns that it goes back to'
    click.echo(f'{done.path} ({done.size / 1e6:.1f} MB){others}')
    click.echo('PKs change when it is imported, the UUID stays. In another profile:')
    click.echo(f'  verdi archive import {done.path.name}')
    click.echo(f'  aiida-oodal campaign status {node.uuid}')
