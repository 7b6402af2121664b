"""``aiida-oodal report``: the page of a campaign."""

from __future__ import annotations

from pathlib import Path

import click

from .params import PROFILE, ProfileCommand, plain_errors


@click.command(cls=ProfileCommand)
@click.argument('campaign')
@click.option('-o', '--output', type=click.Path(dir_okay=False, path_type=Path), help='Default: campaign-<pk>.html.')
@PROFILE
def report(campaign: str, output: Path | None) -> None:
    """Write the self-contained HTML report of CAMPAIGN (its PK or UUID), finished or not."""
    from aiida_oodal.operations.campaign.find import find_campaign
    from aiida_oodal.report import write_report

    with plain_errors():
        node = find_campaign(campaign)
        click.echo(write_report(node, output or Path(f'campaign-{node.pk}.html')))
