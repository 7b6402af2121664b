"""Screening on the command line: run it, and read, export and plot what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_oodal.engine.errors import OodalError

from .params import PROFILE, ProfileCommand, plain_errors

_POLL_SECONDS = 2.0
_folder = click.option(
    '-o',
    '--folder',
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default=True,
    help='Where files are written.',
)


@click.command(cls=ProfileCommand)
@click.argument('targets', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--computer', default='localhost', show_default=True, help='Label of the computer that runs the models.')
@click.option('--no-wait', is_flag=True, help='Submit and come back; `aiida-oodal scores export PK` when it is done.')
@click.option('--no-copy', is_flag=True, help='Write the tables only, no files of structures.')
@_folder
@PROFILE
def screen(targets: Path, computer: str, no_wait: bool, no_copy: bool, folder: Path) -> None:
    """Screen the sets of structures that TARGETS, a YAML file, names.

    \b
    ensembles:
      A:
        models: models/T1_w*.model        # four seeds w1..w4; one model works too
        reference: T1_train.extxyz        # what they were trained on
        heldout: T1_valid.extxyz          # like it, not trained on: sets the thresholds
    targets:
      T1_OOD: {structures: T1_OOD.extxyz.gz}

    Tables, candidates and a page are written when it ends. The daemon must run.
    """  # noqa: D301  click looks for the character, not for its name
    from aiida_oodal.operations.follow import follow
    from aiida_oodal.operations.launch import require_daemon, wait_for
    from aiida_oodal.operations.screening import submit_screen
    from aiida_oodal.report.screening.files import export_scores

    with plain_errors():
        node = submit_screen(targets, computer, click.echo)
        click.echo(f'Submitted ScreenWorkChain<{node.pk}>: `verdi process report {node.pk}` tells how far it is')
        if no_wait:
            return
        for reports in follow(node, _POLL_SECONDS):
            for report in reports:
                click.echo(report)
            require_daemon(node)
        wait_for(node)
        for path in export_scores(node, folder, copy=not no_copy):
            click.echo(path)
        _write_page(node, folder)


@click.group()
def scores() -> None:
    """Print and export what a screening found: SCREEN is the PK or UUID of a ScreenWorkChain."""


@scores.command(cls=ProfileCommand)
@click.argument('screen')
@click.option(
    '--aggregate',
    type=click.Choice(['either', 'mean', 'max', 'p95']),
    default='either',
    show_default=True,
    help='How the scores of atoms become the score of a structure; either: the mean or the worst atom, whichever is '
    'further above its threshold.',
)
@click.option('--all', 'everything', is_flag=True, help='Every score with its shares above all thresholds.')
@PROFILE
def stats(screen: str, aggregate: str, everything: bool) -> None:
    """Print how many structures of every set are out and why, and what each score separates."""
    from aiida_oodal.report.screening.summary import print_stats

    with plain_errors():
        node = _find_screen(screen)
        print_stats(node, aggregate, everything=everything)


@scores.command(cls=ProfileCommand)
@click.argument('screen')
@click.option('-n', 'limit', type=click.IntRange(1), default=20, show_default=True, help='How many to print at most.')
@PROFILE
def suspects(screen: str, limit: int) -> None:
    """Print outliers inside the reference sets: each structure scored against the others (suspect labels)."""
    from aiida_oodal.report.screening.summary import print_suspects

    with plain_errors():
        node = _find_screen(screen)
        print_suspects(node, limit)


@scores.command(cls=ProfileCommand)
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
@PROFILE
def export(
    screen: str,
    no_copy: bool,
    tables: tuple[str, ...],
    formats: tuple[str, ...],
    embeddings: bool,
    folder: Path,
) -> None:
    """Write OOD_ALL_SCORES_{target} tables, and the candidates into OOD_labelling/{target}."""
    from aiida_oodal.report.screening.files import export_embeddings, export_scores

    with plain_errors():
        node = _find_screen(screen)
        paths = export_scores(node, folder, tables=tables, formats=formats, copy=not no_copy)
        for path in paths + (export_embeddings(node, folder) if embeddings else []):
            click.echo(path)


@scores.command(cls=ProfileCommand)
@click.argument('screen')
@click.option('--png', is_flag=True, help='Write figures for papers too.')
@_folder
@PROFILE
def plot(screen: str, png: bool, folder: Path) -> None:
    """Write the self-contained page: map of latent space, scores by set, candidates."""
    with plain_errors():
        node = _find_screen(screen)
        _write_page(node, folder, png=png)


def _write_page(node: Any, folder: Path, *, png: bool = False) -> None:
    from aiida_oodal.report.screening.graph import view_from_screen
    from aiida_oodal.report.screening.page import write_screen_page
    from aiida_oodal.report.screening.plots import write_screen_plots

    view = view_from_screen(node)
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(write_screen_page(view, folder / f'screen-{node.pk}.html'))
    if png:
        for path in write_screen_plots(view, folder):
            click.echo(path)


def _find_screen(identifier: str) -> Any:
    """Return a screening that has scores.

    :raises OodalError: if it is another process or has no scores yet.
    """
    from aiida_oodal.operations.processes import find_process
    from aiida_oodal.workchains.screen import ScreenWorkChain

    node = find_process(identifier, ScreenWorkChain)
    if 'scores' not in node.outputs:
        raise OodalError(
            f'ScreenWorkChain<{node.pk}> has no scores: {node.exit_message or node.process_state.value}. '
            f'See `verdi process report {node.pk}`.'
        )
    return node
