"""``aiida-oodal setup``: profile, computer, codes; every step says what it did and can be repeated."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from aiida_oodal.engine.errors import OodalError

_profile = click.option('-p', '--profile', help='AiiDA profile; the default one if not given.')


@click.group()
def setup() -> None:
    """Walk from nothing to a tested installation: profile, computer, codes, test."""
    extend_path()


@setup.command()
@click.option('--name', default='oodal', show_default=True, help='What the profile is called.')
@click.option('--email', default='aiida@localhost', show_default=True, help='Who owns the nodes made here.')
@click.option(
    '--postgresql',
    metavar='URL',
    help='postgresql://user:password@host:port/database, for campaigns of weeks; SQLite if not given.',
)
@click.option(
    '--rabbitmq',
    metavar='URL',
    help='amqp://user:password@host:port of one that is looked after; ZeroMQ, which needs no service, if not given.',
)
def profile(name: str, email: str, postgresql: str | None, rabbitmq: str | None) -> None:
    """Make the AiiDA profile, with settings for campaigns of many jobs."""
    from .setup_profile import make_profile

    with plain_errors():
        make_profile(name, email=email, postgresql=postgresql, rabbitmq=rabbitmq, say=click.echo)


@setup.command()
@click.option('--preset', required=True, help='Which template: a100-slurm, or local for this machine without Slurm.')
@click.option('--label', help='What AiiDA calls the computer.  [default: the preset; localhost for local]')
@click.option('--host', default='localhost', show_default=True, help='localhost, or a Host of ~/.ssh/config.')
@click.option('--work-dir', help='Where jobs run: absolute, {username} allowed.  [default here: ~/aiida_run]')
@click.option('--partition', help='Slurm partition.  [default: a100]')
@click.option('--cpu-partition', help='Partition of jobs that need no card (MD, labels, training of ACE).')
@click.option('--memory', help='Memory per job.  [default: 60G]')
@click.option('--cpu-memory', help='Memory per job on the CPU partition.  [default: 8G]')
@click.option('--gres', help="Cards per job, '' for none.  [default: gpu:a100:1]")
@click.option('--walltime', help='[days-]hours:minutes:seconds.  [default: 24:00:00]')
@click.option('--account', help='Slurm account.')
@click.option('--qos', help='Slurm quality of service.')
@click.option('--module', 'modules', multiple=True, help='Environment module that jobs load; may be repeated.')
@click.option('--conda', help='Conda environment that jobs activate.')
@click.option('--venv', help='Virtual environment that jobs activate.')
@click.option('--mpirun', help="How MPI programs are started.  [default: 'mpirun -np {tot_num_mpiprocs}']")
@click.option('--poll-interval', type=float, help='Seconds between two looks at the queue.  [default: 10]')
@click.option('--allow-h200', is_flag=True, help='Let embedding jobs go to the h200 partition.')
@click.option('--dry-run', is_flag=True, help='Show the script of a job of every process, and make nothing.')
@_profile
def computer(preset: str, profile: str | None, dry_run: bool, **choices: Any) -> None:
    """Make a computer from a preset, and look at what it offers."""
    from .setup_computer import ComputerSettings, default_work_dir, make_computer, render_preset, render_script

    given = {name: value for name, value in choices.items() if value not in (None, (), False)}
    given.setdefault('label', 'localhost' if preset == 'local' else preset)
    given.setdefault('work_dir', default_work_dir(given['host']))
    with plain_errors():
        if given['work_dir'] is None:
            raise OodalError(
                f'say with --work-dir where jobs run on {given["host"]}, for example /scratch/{{username}}'
            )
        settings = ComputerSettings.load(given)
        if preset == 'a100-slurm' and not settings.allow_h200 and 'h200' in f'{settings.partition} {settings.gres}':
            from aiida_oodal.calculations.job_options import H200_REFUSED

            raise OodalError(H200_REFUSED)
        if dry_run:
            for process in render_preset(preset, settings)['options'] or ['md']:
                click.echo(f'===== {process}\n{render_script(preset, settings, process)}')
            return
        load_profile(profile)
        make_computer(preset, settings, click.echo)


@setup.command()
@click.option('--computer', 'label', help='Only on this computer.  [default: every computer]')
@click.option('--path', 'paths', multiple=True, help='Look for programs here too; may be repeated.')
@_profile
def codes(label: str | None, paths: tuple[str, ...], profile: str | None) -> None:
    """Make the codes: the engine, LAMMPS (is ML-PACE in it?) and, where it is, pw.x."""
    with plain_errors():
        load_profile(profile)
        from .setup_codes import make_codes

        make_codes(label, paths, click.echo)


@setup.command()
@click.option('--computer', 'label', required=True, help='Where the job runs.')
@click.option('--timeout', default=600, show_default=True, help='Seconds to wait for it at most.')
@_profile
def test(label: str, timeout: int, profile: str | None) -> None:
    """Send one small job through daemon and scheduler, and look at what it brings back."""
    with plain_errors():
        load_profile(profile)
        from .setup_test import run_test_job

        run_test_job(label, timeout, click.echo)


def extend_path() -> None:
    """Put the folder of ``verdi`` on PATH, where AiiDA looks when it is imported; nobody may have activated it."""
    os.environ['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])


def load_profile(name: str | None) -> None:
    """Load an AiiDA profile.

    :raises OodalError: if there is none, with how to make one.
    """
    from aiida import load_profile as load
    from aiida.common.exceptions import ConfigurationError

    try:
        load(name)
    except ConfigurationError as error:
        raise OodalError(f'{error}; `aiida-oodal setup profile` makes one') from error


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show errors that a user can mend without a traceback."""
    try:
        yield
    except OodalError as error:
        raise click.ClickException(str(error)) from error
