"""Screening on the command line: run it, and read, export and plot what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .errors import plain_errors

_profile = click.option('-p', '--profile', help='AiiDA profile; the default one if not given.')
_folder = click.option(
    '-o',
    '--folder',
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default=True,
    help='Where files are written.',
)


@click.command()
@click.argument('targets', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--computer', default='localhost', show_default=True, help='Label of the computer that runs the models.')
@click.option('--no-wait', is_flag=True, help='Submit and come back; `aiida-oodal scores export PK` when it is done.')
@click.option('--no-copy', is_flag=True, help='Write the tables only, no files of structures.')
@_folder
@_profile
def screen(targets: Path, computer: str, no_wait: bool, no_copy: bool, folder: Path, profile: str | None) -> None:
    """Screen the sets of structures that TARGETS, a YAML file, names.

    \b
    ensembles:
      A:
        models: models/T1_w*.model        # four seeds w1..w4; two or more work
        reference: T1_train.extxyz        # what they were trained on
        heldout: T1_valid.extxyz          # like it, not trained on: sets the thresholds
    targets:
      T1_OOD: {structures: T1_OOD.extxyz.gz}

    Tables, candidates and a page are written when it ends. The daemon must run.
    """  # noqa: D301  click looks for the character, not for its name
    with plain_errors():
        _load_profile(profile)
        from .run_screen import submit_screen, wait_for_screen
        from .scores_export import export_scores

        node = submit_screen(targets, computer)
        click.echo(f'Submitted ScreenWorkChain<{node.pk}>: `verdi process report {node.pk}` tells how far it is')
        if no_wait:
            return
        wait_for_screen(node)
        for path in export_scores(node, folder, copy=not no_copy):
            click.echo(path)
        _write_page(node, folder)


@click.group()
def scores() -> None:
    """Read what a screening found: SCREEN is the PK or UUID of a ScreenWorkChain."""


@scores.command()
@click.argument('screen')
@click.option('--aggregate', type=click.Choice(['mean', 'max', 'p95']), default='mean', show_default=True)
@_profile
def stats(screen: str, aggregate: str, profile: str | None) -> None:
    """Print for every set the share above the 90, 95 and 99 % thresholds, and what each score separates."""
    with plain_errors():
        node = _load_screen(screen, profile)
        from .scores_stats import print_stats

        print_stats(node, aggregate)


@scores.command()
@click.argument('screen')
@click.option('-n', 'limit', type=click.IntRange(1), default=20, show_default=True, help='How many to print at most.')
@_profile
def suspects(screen: str, limit: int, profile: str | None) -> None:
    """Print outliers inside the reference sets: each structure scored against the others (suspect labels)."""
    with plain_errors():
        node = _load_screen(screen, profile)
        from .scores_stats import print_suspects

        print_suspects(node, limit)


@scores.command()
@click.argument('screen')
@click.option('--no-copy', is_flag=True, help='Write the tables only, no files of structures.')
@click.option(
    '--table', 'tables', multiple=True, default=('xlsx',), show_default=True, help='xlsx, csv, parquet; repeatable.'
)
@click.option(
    '--structures',
    'formats',
    multiple=True,
    default=('cif',),
    show_default=True,
    help='cif, extxyz, poscar; may repeat.',
)
@click.option('--embeddings', is_flag=True, help='Write the latents too: embeddings_MACE_{ensemble}_{wX}_on_{target}.')
@_folder
@_profile
def export(
    screen: str,
    no_copy: bool,
    tables: tuple[str, ...],
    formats: tuple[str, ...],
    embeddings: bool,
    folder: Path,
    profile: str | None,
) -> None:
    """Write OOD_ALL_SCORES_{target} tables, and the candidates into OOD_labelling/{target}."""
    with plain_errors():
        node = _load_screen(screen, profile)
        from .scores_export import export_embeddings, export_scores

        paths = export_scores(node, folder, tables=tables, formats=formats, copy=not no_copy)
        for path in paths + (export_embeddings(node, folder) if embeddings else []):
            click.echo(path)


@scores.command()
@click.argument('screen')
@click.option('--png', is_flag=True, help='Write figures for papers too.')
@_folder
@_profile
def plot(screen: str, png: bool, folder: Path, profile: str | None) -> None:
    """Write the self-contained page: map of latent space, scores by set, candidates."""
    with plain_errors():
        node = _load_screen(screen, profile)
        _write_page(node, folder, png=png)


def _write_page(node: Any, folder: Path, *, png: bool = False) -> None:
    from aiida_oodal.report.screen_page import write_screen_page
    from aiida_oodal.report.screen_plots import write_screen_plots
    from aiida_oodal.report.screen_view import view_from_screen

    view = view_from_screen(node)
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(write_screen_page(view, folder / f'screen-{node.pk}.html'))
    if png:
        for path in write_screen_plots(view, folder):
            click.echo(path)


def _load_profile(profile: str | None) -> None:
    from aiida import load_profile

    load_profile(profile)


def _load_screen(identifier: str, profile: str | None) -> Any:
    """Load a finished screening.

    :raises click.ClickException: if it is another process or has no scores yet.
    """
    _load_profile(profile)
    from aiida import orm
    from aiida.common.exceptions import NotExistent

    from aiida_oodal.workchains.screen import ScreenWorkChain

    try:
        node = orm.load_node(identifier)
    except NotExistent as error:
        raise click.ClickException(f'{error}. `verdi process list -a -L ScreenWorkChain` lists screenings.') from error
    if getattr(node, 'process_class', None) is not ScreenWorkChain:
        raise click.ClickException(f'{node} is no screening. `verdi process list -a -L ScreenWorkChain` lists them.')
    if 'scores' not in node.outputs:
        raise click.ClickException(
            f'ScreenWorkChain<{node.pk}> has no scores: {node.exit_message or node.process_state.value}. '
            f'See `verdi process report {node.pk}`.'
        )
    return node
