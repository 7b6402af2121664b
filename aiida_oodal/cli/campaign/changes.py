"""Commands that launch a campaign, change what it does next, or go on with what it learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_oodal.cli.params import PROFILE, ProfileCommand, plain_errors


@click.command(cls=ProfileCommand)
@click.argument('script', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--force', is_flag=True, help='Submit although a check failed.')
@click.option('--dry-run', 'only_check', is_flag=True, help='Check all up to the first submission, and end there.')
@PROFILE
def launch(script: Path, force: bool, only_check: bool) -> None:
    """Run SCRIPT, which submits a campaign by `submit_once`, after a check of its inputs, the daemon and its computers.

    It is `verdi run SCRIPT` with the checks of `aiida-oodal doctor` for what the campaign needs. Launched again, it
    finds the campaign of the first time.

    \b
    Example: look first, then launch
      aiida-oodal campaign launch cuo/launch.py --dry-run
      aiida-oodal campaign launch cuo/launch.py
    """  # noqa: D301  click looks for the character, not for its name
    from aiida.common.exceptions import AiidaException

    from aiida_oodal.operations.campaign.launch import launch_campaign, name_place

    try:
        campaign = launch_campaign(script, click.echo, force=force, dry_run=only_check)
    except OSError as error:
        raise click.ClickException(f'{name_place(error, script)}: {error}') from error
    except (AiidaException, ValueError) as error:
        # Refused inputs are a ValueError, and so is every OodalError: the message is what helps.
        raise click.ClickException(str(error) or name_place(error, script)) from error
    if campaign is None:
        return
    click.echo(f'Campaign {campaign.pk} {campaign.label}'.rstrip() + ('' if campaign.is_terminated else ' runs. Then:'))
    click.echo(f'  aiida-oodal campaign status {campaign.pk}')
    click.echo(f'  aiida-oodal campaign watch {campaign.pk}')
    click.echo(f'  aiida-oodal campaign report {campaign.pk}')


@click.command(cls=ProfileCommand)
@click.argument('campaign')
@PROFILE
def pause(campaign: str) -> None:
    """Let CAMPAIGN (its PK or UUID) begin nothing new. Jobs that were begun go on to their end.

    \b
    Example: before the cluster is serviced
      aiida-oodal campaign pause 1234
    """  # noqa: D301  click looks for the character, not for its name
    from aiida_oodal.operations.campaign.control import pause_campaign

    with plain_errors():
        paused = pause_campaign(_find(campaign))
    click.echo(f'{len(paused)} WorkChains pause; `aiida-oodal campaign resume {campaign}` lets them go on')


@click.command(cls=ProfileCommand)
@click.argument('campaign')
@PROFILE
def resume(campaign: str) -> None:
    """Let CAMPAIGN (its PK or UUID) go on that was paused, or that was asked to stop and has not ended yet.

    \b
    Example:
      aiida-oodal campaign resume 1234
    """  # noqa: D301
    from aiida_oodal.operations.campaign.control import resume_campaign

    with plain_errors():
        resumed, was_stopping = resume_campaign(_find(campaign))
    if was_stopping:
        click.echo('The stop is taken back: it goes on after this round')
    if resumed or not was_stopping:
        click.echo(f'{len(resumed)} processes were paused and go on')


@click.command(cls=ProfileCommand)
@click.argument('campaign')
@click.option('--reason', default='', help='A few words that the campaign keeps.')
@PROFILE
def stop(campaign: str, reason: str) -> None:
    """Let CAMPAIGN (its PK or UUID) end after its present round, with all that it learned.

    `verdi process kill` ends one at once; nothing is lost by that either, but it attaches no outputs.

    \b
    Example:
      aiida-oodal campaign stop 1234 --reason 'the error is small enough'
    """  # noqa: D301
    from aiida_oodal.operations.campaign.control import ask_to_stop

    with plain_errors():
        ask_to_stop(_find(campaign), reason)
    click.echo(
        f'It ends after this round; `aiida-oodal campaign resume {campaign}` takes that back, '
        f'`aiida-oodal campaign extend {campaign}` goes on when it has ended'
    )


@click.command(cls=ProfileCommand)
@click.argument('campaign')
@click.option('--rounds', type=click.IntRange(1), help='Further rounds at most.  [default: as many as it had]')
@click.option(
    '--set',
    'settings',
    multiple=True,
    metavar='NAME=VALUE',
    help='Change a setting: thresholds.gamma_break=8, md.steps=100000 (of all walkers), '
    'walkers.hot.temperature=[300,1200], budget.labels=200, convergence.rounds=2, train.max_functions=400, ... '
    'May repeat; values are YAML.',
)
@click.option(
    '--schedule',
    metavar='[{NAME: VALUE, ...}, ...]',
    help='Settings of MD for all walkers, one leg after the other: [{steps: 50000}, {temperature: [300, 2000]}].',
)
@click.option(
    '--walker',
    'walkers',
    multiple=True,
    metavar='NAME=FILE',
    help='Add a walker that begins with the structure of a file. Settings that all others share are its own, too; '
    '--set walkers.NAME... gives others. May repeat.',
)
@click.option('--label', help='Label of the new campaign.  [default: that of the other, and its PK]')
@click.option('--dry-run', is_flag=True, help='Say what it would begin with, and submit nothing.')
@PROFILE
def extend(
    campaign: str,
    rounds: int | None,
    settings: tuple[str, ...],
    schedule: str | None,
    walkers: tuple[str, ...],
    label: str | None,
    dry_run: bool,
) -> None:
    """Submit a new campaign that goes on where CAMPAIGN (its PK or UUID) ended: finished, stopped, excepted or killed.

    Nothing is labelled or trained twice: labels and potential or ensemble go on, and what the queue still holds of it
    is labelled first.

    \b
    Example: five more rounds with another threshold
      aiida-oodal campaign extend 1234 --rounds 5 --set thresholds.gamma_break=8

    \b
    Example: a further walker
      aiida-oodal campaign extend 1234 --walker slab=slab.cif --set walkers.slab.temperature=[300,900]
    """  # noqa: D301
    from aiida_oodal.operations.campaign.extend import build_extension
    from aiida_oodal.operations.launch import require_places, submit_once

    with plain_errors():
        node = _find(campaign)
        changes = _parse(settings)
        for text in walkers:
            _add_walker(changes, text)
        if schedule is not None:
            changes['schedule'] = _read_yaml('--schedule', schedule)
        builder = build_extension(node, changes, rounds)
        click.echo(_describe(builder))
        if dry_run:
            require_places(builder)
            return
        name = label or f'{node.label or "campaign"}, going on from {node.pk}'
        extension = submit_once(name, lambda: builder)
    click.echo(f'campaign {extension.pk} "{name}": follow it with `aiida-oodal watch {extension.pk}`')


def _find(identifier: str) -> Any:
    from aiida_oodal.operations.campaign.find import find_campaign

    return find_campaign(identifier)


def _parse(settings: tuple[str, ...]) -> dict[str, Any]:
    """Return nested settings of words such as ``thresholds.gamma_break=8``."""
    from aiida_oodal.engine.errors import OodalError

    values: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition('=')
        *path, last = name.split('.')
        if not (equals and path and all(path) and last):
            raise OodalError(f'--set {text}: write it as NAME=VALUE, such as thresholds.gamma_break=8')
        place = values
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise OodalError(f'--set {text}: {part} was set to {place!r} before, and cannot have names below it')
        place[last] = _read_yaml(f'--set {text}', value)
    return values


def _add_walker(changes: dict[str, Any], text: str) -> None:
    """Put the structure of ``NAME=FILE`` among the settings of a walker."""
    from aiida_oodal.data import StructureSetData
    from aiida_oodal.engine.errors import OodalError
    from aiida_oodal.operations.campaign.begin import read_start

    name, _, file = text.partition('=')
    if not (name and file):
        raise OodalError(f'--walker {text}: write it as NAME=FILE, such as slab=slab.cif')
    structure = StructureSetData([read_start(Path(file))])
    changes.setdefault('walkers', {}).setdefault(name, {})['structure'] = structure


def _read_yaml(option: str, value: str) -> Any:
    import yaml

    from aiida_oodal.engine.errors import OodalError

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise OodalError(f'{option}: {value!r} is not YAML: {error}') from error


def _describe(builder: Any) -> str:
    """Say what an extension begins with."""
    from aiida_oodal.workchains.calls import Leg
    from aiida_oodal.workchains.trust.schedule import count_legs

    initial = builder._inputs(prune=True)['initial']
    parts = [f'{sum(node.n_structures for node in initial.get("labels", {}).values())} labelled structures']
    parts += [f'the last {name}' for name in ('potential', 'ensemble') if name in initial]
    if 'structures' in initial:
        parts.append(f'{initial["structures"].n_structures} structures to label')
    if 'clusters' in initial:
        parts.append(f'{len(initial["clusters"])} structures of the queue to label')
    first = ', trained again before the first round' if initial['train'].value else ''
    leg = Leg(initial['progress']['leg'], count_legs(builder.walkers))
    where = f' in {leg}' if leg.count > 1 else ''
    rounds = builder.max_rounds.value
    return f'It begins{where} with {", ".join(parts)}{first}; at most {rounds} round{"s" if rounds > 1 else ""}'
