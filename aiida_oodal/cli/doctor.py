"""``aiida-oodal doctor``: look at everything a campaign needs, and say which command mends what is broken."""

from __future__ import annotations

import click


@click.command()
@click.option('--computer', 'label', help='Only this computer.  [default: every computer]')
@click.option(
    '--fix',
    is_flag=True,
    help='Start daemon and broker afresh if they are ill, resume what was paused because a computer did not answer '
    'that answers now, and give processes that lost their task a new one; no finished work is repeated.',
)
@click.option('--workers', type=click.IntRange(1), default=2, show_default=True, help='Daemon workers after --fix.')
@click.option('-p', '--profile', help='AiiDA profile; the default one if not given.')
def doctor(label: str | None, fix: bool, workers: int, profile: str | None) -> None:
    """Check versions, storage, broker, daemon, disk, computers and codes; exit with 1 if something is broken.

    Every broken line is followed by the command that mends it.
    """
    from .setup import extend_path, load_profile, plain_errors

    extend_path()
    with plain_errors():
        load_profile(profile)
        from aiida.manage import get_manager

        from .checks import check_installation
        from .checks_daemon import check_daemon, name_processes
        from .daemon import start_daemon
        from .orphans import close_ended, find_begun_without_task, find_other_users, revive_orphans
        from .paused import resume_paused

        findings = list(check_daemon())
        if fix and not all(finding.ok for finding in findings if finding.fixable):
            for finding in findings:
                if not finding.ok:
                    click.echo(str(finding))
            if (begun := find_begun_without_task()) and (users := find_other_users()):
                raise click.ClickException(
                    f'{name_processes(begun)}: no task is there for them. Maybe `{" ".join(users[0].cmdline())}` (PID '
                    f'{users[0].pid}) runs them itself; a task, which the cure gives to all, would run them twice. End '
                    'it, or wait for its end, then repeat this.'
                )
            click.echo(f'starting daemon and broker afresh with {workers} workers')
            # `verdi process repair` ends what it takes for stray connections to PostgreSQL; ours would be one of them.
            get_manager().reset_profile_storage()
            start_daemon(workers, repair=True)
            findings = list(check_daemon(patience=20.0))
        if fix and all(finding.ok for finding in findings if finding.fixable):
            for done, cure in (('resumed', resume_paused), ('gave a task to', revive_orphans), ('closed', close_ended)):
                if nodes := cure():
                    click.echo(f'{done} {name_processes(nodes)}')
                    findings = list(check_daemon())
        broken = 0
        for finding in (*findings, *check_installation(label)):
            click.echo(str(finding))
            broken += not finding.ok
    if broken:
        raise click.ClickException(f'{broken} of the above must be mended')
    click.echo('all is well')
