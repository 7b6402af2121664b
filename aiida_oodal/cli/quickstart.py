"""``aiida-oodal quickstart``: from nothing to a healed potential and its report, by a command that can be repeated."""

from __future__ import annotations

import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from aiida_oodal.operations.profiles import EmbeddedProfile


@click.command()
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

    SCRIPT is one for `verdi run`, which leaves the process in the variable `campaign` and does not submit again what an
    earlier call submitted. Called again, this goes on with a campaign that was interrupted, or shows the one that is
    done.
    """
    profile = EmbeddedProfile(folder)

    # AiiDA reads AIIDA_PATH when it is imported.
    from .params import plain_errors

    with plain_errors():
        fresh = profile.load()
    verdi = f'AIIDA_PATH={shlex.quote(str(profile.folder))} {shlex.quote(str(Path(sys.executable).parent / "verdi"))}'
    click.echo(f'{"Made" if fresh else "Found"} the AiiDA profile in {profile.folder}')
    click.echo(f'Look inside at any time: {verdi} process list -a')

    from aiida.common.exceptions import AiidaException

    from aiida_oodal.operations.daemon import DaemonKeeper, stop_daemon
    from aiida_oodal.operations.launch import launch_script
    from aiida_oodal.report import read_history, write_report

    from .watch import show_rounds, watch_campaign

    try:
        campaign = launch_script(script, 'campaign', workers, click.echo)
        if campaign.is_terminated:
            click.echo(f'Campaign {campaign.pk} is done already; this is what it found')
        else:
            watch_campaign(campaign, keep_alive=DaemonKeeper(workers, click.echo))
    except KeyboardInterrupt:
        click.echo(
            '\nThe campaign goes on under the daemon. `make quickstart` shows it again; to stop the daemon:\n'
            f'  {verdi} daemon stop'
        )
        raise SystemExit(130) from None
    except (AiidaException, ValueError) as error:
        # Refused inputs are a ValueError, and so is every OodalError: the message is what helps.
        raise click.ClickException(str(error)) from error
    with ThreadPoolExecutor(1) as aside:
        stopping = aside.submit(stop_daemon)  # it takes seconds
        history = read_history(campaign)
        show_rounds(history)
        path = write_report(campaign, profile.folder / 'reports' / f'campaign-{campaign.pk}.html', history)
        click.echo(f'\nReport: {path}')
        stopping.result()
    if not campaign.is_finished_ok:
        raise click.ClickException(
            f'campaign {campaign.pk} ended without success: '
            f'{campaign.exit_message or campaign.process_state.value} All its nodes are kept in {profile.folder}.'
        )
