"""Commands that export structures for labelling elsewhere, and import the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_oodal.cli.params import PROFILE, ProfileCommand, plain_errors

from .filters import filters, make_selection

#: How many keys and refusals are printed one by one.
_NAMED = 20


@click.command(cls=ProfileCommand)
@click.argument('path', type=click.Path(path_type=Path))
@filters
@click.option(
    '--format',
    'kind',
    default='extxyz',
    show_default=True,
    help='extxyz: one file; poscar: a POSCAR for each; qe: an input of Quantum ESPRESSO for each.',
)
@click.option(
    '--theory',
    help='What will compute the labels, in words, such as "PBE, ORCA 6.0"; needed for entries '
    'that have no level of theory yet.',
)
@click.option(
    '--labels',
    'labelled',
    is_flag=True,
    help='Write what is labelled, with REF_energy [eV], REF_forces [eV/Å], REF_stress [eV/Å³] where there is one, and '
    'force_mask: an extended XYZ file, for any other program.',
)
@PROFILE
def export(path: Path, kind: str, theory: str | None, labelled: bool, **which: Any) -> None:
    """Write entries with their keys to PATH, a file (extxyz) or a folder: for labels that somebody else computes.

    Without KEYs and filters: what campaigns wait for from outside, and what has no level of theory yet; with --labels:
    all that is labelled.

    \b
    Example: compute and bring back
      aiida-oodal queue export to_label.extxyz --theory "PBE, ORCA 6.0"
      aiida-oodal queue import labelled.extxyz
    All labels that a campaign asked for, as a file:
      aiida-oodal queue export labels.extxyz --labels --campaign 123
    """  # noqa: D301
    from aiida_oodal.engine.errors import OodalError
    from aiida_oodal.operations.queueing import give_outside
    from aiida_oodal.queue.exchange import export_labels
    from aiida_oodal.queue.listing import select_entries

    with plain_errors():
        if labelled:
            if kind != 'extxyz' or theory is not None:
                raise OodalError('--labels writes extended XYZ with the level of each label: leave out --format and '
                                 '--theory')  # fmt: skip
            click.echo(f'{export_labels(select_entries(make_selection(**which)), path)} labels: {path}')
            return
        entries, paths, others = give_outside(make_selection(**which), path, kind, theory)
    click.echo(f'{len(entries)} structures: {paths[0]}' + (f' and {len(paths) - 1} others' if len(paths) > 1 else ''))
    if others:
        click.echo(
            f'{others} of them belong to a level of theory that is computed here: labels from outside are refused'
        )


@click.command('import', cls=ProfileCommand)
@click.argument('path', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--dry-run', 'only_look', is_flag=True, help='Change nothing, only say which labels would be entered.')
@PROFILE
def import_(path: Path, only_look: bool) -> None:
    """Enter the labels of PATH, a file with queue_key, energy and forces; what does not fit is refused.

    It may have any format that keeps `queue_key`, such as extended XYZ or a trajectory of ASE; what counts as a label
    is the same as for structure sets. Each structure must name its entry and have the geometry that was asked for, in
    any order of atoms. Some of those that were exported are enough. Campaigns that wait for these labels go on.

    \b
    Example:
      aiida-oodal queue import labelled.extxyz --dry-run
      aiida-oodal queue import labelled.extxyz
    """  # noqa: D301
    from aiida_oodal.queue.exchange import import_file
    from aiida_oodal.queue.outside import wake_waiting

    with plain_errors():
        outcome = import_file(path, dry_run=only_look)
    click.echo(
        f'{len(outcome.accepted)} labels {"would be" if only_look else "were"} entered, {len(outcome.known)} were '
        f'there, {len(outcome.refused)} are refused'
    )
    for refusal in outcome.refused[:_NAMED]:
        click.echo(f'{refusal.place}: {refusal.reason}')
    if len(outcome.refused) > _NAMED:
        click.echo(f'... and {len(outcome.refused) - _NAMED} others')
    if not only_look and outcome.accepted:
        for node in wake_waiting():
            click.echo(f'{node.process_label}<{node.pk}> waits for labels from outside and looks for them now')
    if outcome.refused and not outcome.accepted and not outcome.known:
        raise click.exceptions.Exit(1)
