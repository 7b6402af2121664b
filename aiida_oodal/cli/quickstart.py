"""From nothing to a healed potential and its report, in one command that can be repeated."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from .daemon import daemon_runs, look_at_broker, start_daemon, stop_daemon
from .embedded import EmbeddedProfile


def run_quickstart(script: Path, folder: Path, workers: int) -> None:
    """Launch, or find, the campaign of a script; watch it to its end; show the table and write the report.

    :param script: a launch script as for ``verdi run``, which leaves its process node in the variable ``campaign``
        and does not submit again what an earlier call submitted.
    """
    profile = EmbeddedProfile(folder)
    fresh = profile.load()
    click.echo(f'{"Made" if fresh else "Found"} the AiiDA profile in {profile.folder}')
    _hint(profile)

    from aiida.common.exceptions import AiidaException
    from aiida.orm import WorkChainNode

    from aiida_oodal.report import write_report

    from .watch import show_rounds, watch_campaign

    try:
        campaign: WorkChainNode = _find_or_launch(script, workers)
        if campaign.is_terminated:
            click.echo(f'Campaign {campaign.pk} is done already; this is what it found')
        else:
            watch_campaign(campaign, keep_alive=_Reviver(workers))
    except KeyboardInterrupt:
        click.echo(
            '\nThe campaign goes on under the daemon. `make quickstart` shows it again; to stop the daemon:\n'
            f'  AIIDA_PATH={shlex.quote(str(profile.folder))} {_verdi()} daemon stop'
        )
        raise SystemExit(130) from None
    except (AiidaException, ValueError) as error:
        # Refused inputs are a ValueError, and so is every OodalError: the message is what helps.
        raise click.ClickException(str(error)) from error
    stop_daemon()
    show_rounds(campaign)
    path = write_report(campaign, profile.folder / 'reports' / f'campaign-{campaign.pk}.html')
    click.echo(f'\nReport: {path}')
    if not campaign.is_finished_ok:
        raise click.ClickException(
            f'campaign {campaign.pk} ended without success: '
            f'{campaign.exit_message or campaign.process_state.value} All its nodes are kept in {profile.folder}.'
        )


def _find_or_launch(script: Path, workers: int) -> Any:
    """Run the script; the daemon is started only if there is work to do."""
    from aiida.common.exceptions import InvalidOperation

    interrupted = _has_active_processes()
    if interrupted:
        click.echo('An earlier run was interrupted: going on from its last step')
        start_daemon(workers, repair=True)
    try:
        return runpy.run_path(str(script))['campaign']
    except InvalidOperation:
        # There is something to submit, and no daemon to submit it to.
        start_daemon(workers, repair=False)
        return runpy.run_path(str(script))['campaign']


def _has_active_processes() -> bool:
    from aiida.orm import ProcessNode, QueryBuilder

    active = {'attributes.process_state': {'in': ['created', 'waiting', 'running']}}
    return bool(QueryBuilder().append(ProcessNode, filters=active).count())


class _Reviver:
    """Start the daemon again if something killed it, or if its workers lost the broker."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.was_deaf = False

    def __call__(self) -> None:
        if not daemon_runs():
            click.echo('The daemon is gone: starting it again')
            start_daemon(self.workers, repair=True)
            return
        broker = look_at_broker()
        deaf = broker is not None and (broker.deaf or not broker.alive)
        # Twice in a row: a daemon that has only just started is deaf for a moment.
        if deaf and self.was_deaf:
            click.echo('The workers have lost the broker: starting the daemon again')
            start_daemon(self.workers, repair=True)
            deaf = False
        self.was_deaf = deaf


def _verdi() -> str:
    return shlex.quote(str(Path(sys.executable).parent / 'verdi'))


def _hint(profile: EmbeddedProfile) -> None:
    click.echo(f'Look inside at any time: AIIDA_PATH={shlex.quote(str(profile.folder))} {_verdi()} process list -a')
