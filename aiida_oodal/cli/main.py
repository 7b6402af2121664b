"""The group of commands. AiiDA is imported by the command that needs it, so that ``--help`` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_oodal import __version__

from .doctor import doctor
from .screen import scores, screen
from .setup import setup


@click.group(context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='aiida-oodal')
def main() -> None:
    """Self-healing machine-learned potentials: find where a potential is ignorant, label it, retrain."""


main.add_command(doctor)
main.add_command(screen)
main.add_command(scores)
main.add_command(setup)


@main.command()
@click.argument('script', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    '--folder',
    type=click.Path(file_okay=False, path_type=Path),
    default=Path('.quickstart'),
    show_default=True,
    help='Home of the embedded profile: database, files, reports. Delete it to start from zero.',
)
@click.option('--workers', type=click.IntRange(1), default=2, show_default=True, help='Daemon workers.')
def quickstart(script: Path, folder: Path, workers: int) -> None:
    """Run the campaign that SCRIPT launches in an embedded profile, through the daemon, to its report.

    Called again it goes on with a campaign that was interrupted, or shows the one that is done.
    """
    from .quickstart import run_quickstart

    run_quickstart(script, folder, workers)


_profile = click.option('-p', '--profile', help='AiiDA profile; the default one if not given.')


@main.command()
@click.argument('campaign')
@_profile
def watch(campaign: str, profile: str | None) -> None:
    """Follow CAMPAIGN (its PK or UUID) until it ends, and show what it learned."""
    from .watch import show_rounds, watch_campaign

    node = _load_campaign(campaign, profile)
    watch_campaign(node)
    show_rounds(node)


@main.command()
@click.argument('campaign')
@click.option('-o', '--output', type=click.Path(dir_okay=False, path_type=Path), help='Default: campaign-<pk>.html.')
@_profile
def report(campaign: str, output: Path | None, profile: str | None) -> None:
    """Write the self-contained HTML report of CAMPAIGN (its PK or UUID), finished or not."""
    node = _load_campaign(campaign, profile)
    from aiida_oodal.report import write_report

    click.echo(write_report(node, output or Path(f'campaign-{node.pk}.html')))


def _load_campaign(identifier: str, profile: str | None) -> Any:
    from aiida import load_profile, orm
    from aiida.common.exceptions import NotExistent

    from aiida_oodal.workchains.campaign import CampaignWorkChain

    load_profile(profile)
    try:
        node = orm.load_node(identifier)
    except NotExistent as error:
        raise click.ClickException(f'{error}. `verdi process list -a -L CampaignWorkChain` lists campaigns.') from error
    if getattr(node, 'process_class', None) is not CampaignWorkChain:
        raise click.ClickException(
            f'{node} is not a campaign. `verdi process list -a -L CampaignWorkChain` lists them.'
        )
    return node
