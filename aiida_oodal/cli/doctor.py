"""``aiida-oodal doctor``: check everything a campaign needs, and name the command that repairs what is broken."""

from __future__ import annotations

import click

from aiida_oodal.operations.checks import check_installation
from aiida_oodal.operations.doctor import check_daemon, mend_daemon

from .params import PROFILE, ProfileCommand, plain_errors


@click.command(cls=ProfileCommand)
@click.option('--computer', 'label', help='Only this computer.  [default: every computer]')
@click.option(
    '--fix',
    is_flag=True,
    help='Restart daemon and broker if they do not work, resume processes that were paused because their computer did '
    'not answer, if it answers now, and give processes that lost their task a new one. No finished work is repeated.',
)
@click.option('--workers', type=click.IntRange(1), default=2, show_default=True, help='Daemon workers after --fix.')
@PROFILE
def doctor(label: str | None, fix: bool, workers: int) -> None:
    """Check versions, storage, broker, daemon, disk, computers and codes; exit with 1 if something is broken.

    Every line of a failed check is followed by the command that repairs it.
    """
    broken = 0
    with plain_errors():
        findings = mend_daemon(workers, click.echo) if fix else check_daemon()
        for finding in (*findings, *check_installation(label)):
            click.echo(str(finding))
            broken += not finding.ok
    if broken:
        raise click.ClickException(f'{broken} of the checks above failed')
    click.echo('all is well')
