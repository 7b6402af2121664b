"""The command that labels waiting entries without a campaign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from aiida_oodal.cli.params import PROFILE, ProfileCommand, plain_errors
from aiida_oodal.engine.errors import OodalError

from .filters import filters, make_selection

_POLL_SECONDS = 2.0


@click.command(cls=ProfileCommand)
@filters
@click.option('--with', 'name', required=True, help='Entry point of the labeller: oodal.label.ase, oodal.label.pw, ...')
@click.option('--computer', default='localhost', show_default=True, help='Label of the computer that runs it.')
@click.option('--code', help='Label of the code, such as pw.x@cluster; default: the engine of this package.')
@click.option('--protocol', help='Of the labeller.')
@click.option(
    '--settings',
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='YAML file with overrides of the protocol.',
)
@click.option(
    '--set', 'values', multiple=True, metavar='NAME=VALUE', help='One override, such as batch_size=50; may be repeated.'
)
@click.option(
    '--option',
    'options',
    multiple=True,
    metavar='NAME=VALUE',
    help='One option of the jobs, such as queue_name=a100; may be repeated.',
)
@click.option('-n', 'limit', type=click.IntRange(1), default=1000, show_default=True, help='How many at most.')
@click.option('--no-wait', is_flag=True, help='Submit and come back.')
@PROFILE
def label(
    name: str,
    computer: str,
    code: str | None,
    protocol: str | None,
    settings: Path | None,
    values: tuple[str, ...],
    options: tuple[str, ...],
    limit: int,
    no_wait: bool,
    **which: Any,
) -> None:
    """Label entries that are PENDING_DFT, without a campaign: those with the highest priority first.

    Entries without a level of theory get that of the labeller; those of another level are left alone. It may run
    several times at once: each entry is labelled once.

    \b
    Example: with EMT here, and with Quantum ESPRESSO on a cluster
      aiida-oodal queue label --with oodal.label.ase --set calculator.calculator=emt
      aiida-oodal queue label --with oodal.label.pw --computer cluster --code pw.x@cluster --settings pw.yaml
    """  # noqa: D301
    from aiida_oodal.operations.follow import follow
    from aiida_oodal.operations.launch import require_daemon
    from aiida_oodal.operations.queueing import drain

    with plain_errors():
        process, count = drain(
            make_selection(**which),
            name,
            computer=computer,
            code=code,
            protocol=protocol,
            overrides=_read_overrides(settings, values),
            options=_read_values(options),
            limit=limit,
        )
        click.echo(f'Submitted {process.process_label}<{process.pk}> with {count} structures')
        if no_wait:
            return
        for reports in follow(process, _POLL_SECONDS):
            for report in reports:
                click.echo(report)
            require_daemon(process)
        done = process.outputs.labels.n_structures if 'labels' in process.outputs else 0
        click.echo(f'{done} of {count} structures are labelled')
        if not process.is_finished_ok:
            raise OodalError(process.exit_message or process.process_state.value)


def _read_overrides(path: Path | None, values: tuple[str, ...]) -> dict[str, Any]:
    """Return the overrides of a file, and those of the command line, which win."""
    overrides = {} if path is None else _load(path)
    for dotted, value in _read_values(values).items():
        *parents, last = dotted.split('.')
        place = overrides
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise OodalError(f'--set {dotted}={value}: {parent} is {place!r} and has no entries')
        place[last] = value
    return overrides


def _load(path: Path) -> dict[str, Any]:
    """Read a YAML file with a mapping.

    :raises OodalError: if it is another thing.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise OodalError(f'{path} is not YAML: {error}') from error
    if not isinstance(content, dict):
        raise OodalError(f'{path} must hold names and values, and holds {type(content).__name__}')
    return content


def _read_values(values: tuple[str, ...]) -> dict[str, Any]:
    """Read ``NAME=VALUE``; values are YAML.

    :raises OodalError: if there is no ``=``.
    """
    found = {}
    for text in values:
        name, sign, value = text.partition('=')
        if not sign or not name:
            raise OodalError(f'{text!r} is not NAME=VALUE')
        found[name] = yaml.safe_load(value)
    return found
