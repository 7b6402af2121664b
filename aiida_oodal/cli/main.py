"""The group of commands. AiiDA is imported by the command that needs it, so that ``--help`` answers at once."""

from __future__ import annotations

from pathlib import Path

import click

from aiida_oodal import __version__


@click.group(context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='aiida-oodal')
def main() -> None:
    """Self-healing machine-learned potentials: find where a potential is ignorant, label it, retrain."""


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


@main.command()
@click.argument('campaign')
def watch(campaign: str) -> None:
    """Follow CAMPAIGN (its PK or UUID in the loaded profile) until it ends, and show what it learned."""
    from aiida import load_profile, orm

    from .watch import show_rounds, watch_campaign

    load_profile()
    node = orm.load_node(campaign)
    watch_campaign(node)
    show_rounds(node)


@main.command()
@click.argument('campaign')
@click.option('-o', '--output', type=click.Path(dir_okay=False, path_type=Path), help='Default: campaign-<pk>.html.')
def report(campaign: str, output: Path | None) -> None:
    """Write the self-contained HTML report of CAMPAIGN, finished or not."""
    from aiida import load_profile, orm

    from aiida_oodal.report import write_report

    load_profile()
    node = orm.load_node(campaign)
    click.echo(write_report(node, output or Path(f'campaign-{node.pk}.html')))
