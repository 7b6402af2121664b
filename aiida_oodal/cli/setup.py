"""``aiida-oodal setup``: profile, computer, codes; every step says what it did and can be repeated."""

from __future__ import annotations

from typing import Any

import click

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.codes import make_codes
from aiida_oodal.operations.computers import make_computer
from aiida_oodal.operations.presets import (
    ComputerSettings,
    default_work_dir,
    find_waste,
    render_preset,
    render_script,
)
from aiida_oodal.operations.profiles import make_profile
from aiida_oodal.operations.trial import run_test_job

from .params import PROFILE, ProfileCommand, plain_errors


@click.group()
def setup() -> None:
    """Set up profile, computer and codes, and test them."""


@setup.command()
@click.option('--name', default='oodal', show_default=True, help='Name of the profile.')
@click.option('--email', default='aiida@localhost', show_default=True, help='Who owns the nodes made here.')
@click.option(
    '--postgresql',
    metavar='URL',
    help='PostgreSQL, for campaigns of weeks: postgresql://user:password@host:port/database.  [default: SQLite]',
)
@click.option(
    '--rabbitmq',
    metavar='URL',
    help='A RabbitMQ server, amqp://user:password@host:port.  [default: ZeroMQ, which needs no service]',
)
def profile(name: str, email: str, postgresql: str | None, rabbitmq: str | None) -> None:
    """Make the AiiDA profile, with settings for campaigns of many jobs."""
    with plain_errors():
        make_profile(name, email=email, postgresql=postgresql, rabbitmq=rabbitmq, say=click.echo)


@setup.command(cls=ProfileCommand)
@click.option('--preset', required=True, help='Which template: a100-slurm, or local for this machine without Slurm.')
@click.option('--label', help='Label of the computer in AiiDA.  [default: the preset; localhost for local]')
@click.option('--host', default='localhost', show_default=True, help='localhost, or a Host of ~/.ssh/config.')
@click.option(
    '--work-dir',
    help='Where jobs run: absolute, {username} allowed.  [default here: aiida_run in AIIDA_PATH or at home]',
)
@click.option('--partition', help='Slurm partition.  [default: a100]')
@click.option('--cpu-partition', help='Partition of jobs that need no GPU (MD, labels, training of ACE).')
@click.option('--memory', help='Memory per job.  [default: 60G]')
@click.option('--cpu-memory', help='Memory per job on the CPU partition.  [default: 8G]')
@click.option('--gres', help="GPUs per job as Slurm's --gres, '' for none.  [default: gpu:a100:1]")
@click.option('--walltime', help='[days-]hours:minutes:seconds.  [default: 24:00:00]')
@click.option('--account', help='Slurm account.')
@click.option('--qos', help='Slurm quality of service.')
@click.option('--module', 'modules', multiple=True, help='Environment module that jobs load; may be repeated.')
@click.option('--conda', help='Conda environment that jobs activate.')
@click.option('--venv', help='Virtual environment that jobs activate.')
@click.option('--path', multiple=True, help='Folder that comes first on the PATH of jobs; may be repeated.')
@click.option('--mpirun', help="How MPI programs are started.  [default: 'mpirun -np {tot_num_mpiprocs}']")
@click.option('--poll-interval', type=float, help='Seconds between two looks at the queue.  [default: 10]')
@click.option('--allow-h200', is_flag=True, help='Let embedding jobs go to the h200 partition.')
@click.option('--dry-run', is_flag=True, help='Print the submit script of every kind of job, and set up nothing.')
@PROFILE
def computer(preset: str, dry_run: bool, **choices: Any) -> None:
    """Make a computer from a preset, and look at what it offers."""
    given = {name: value for name, value in choices.items() if value not in (None, (), False)}
    given.setdefault('label', 'localhost' if preset == 'local' else preset)
    given.setdefault('work_dir', default_work_dir(given['host']))
    with plain_errors():
        if given['work_dir'] is None:
            raise OodalError(
                f'say with --work-dir where jobs run on {given["host"]}, for example /scratch/{{username}}'
            )
        settings = ComputerSettings.load(given)
        if dry_run:
            for process in render_preset(preset, settings)['options'] or ['md']:
                click.echo(f'===== {process}\n{render_script(preset, settings, process)}')
            if waste := find_waste(preset, settings):
                click.echo(f'===== {waste}')
            return
        make_computer(preset, settings, click.echo)


@setup.command(cls=ProfileCommand)
@click.option('--computer', 'label', help='Only on this computer.  [default: every computer]')
@click.option('--path', 'paths', multiple=True, help='Folder in which to look for programs, too; may be repeated.')
@PROFILE
def codes(label: str | None, paths: tuple[str, ...]) -> None:
    """Make the codes: the engine, LAMMPS (is ML-PACE in it?) and, where it is, pw.x."""
    with plain_errors():
        make_codes(label, paths, click.echo)


@setup.command(cls=ProfileCommand)
@click.option('--computer', 'label', required=True, help='Where the job runs.')
@click.option('--timeout', default=600, show_default=True, help='Seconds to wait for it at most.')
@PROFILE
def test(label: str, timeout: int) -> None:
    """Send one small job through daemon and scheduler, and look at what it brings back."""
    with plain_errors():
        run_test_job(label, timeout, click.echo)
