"""Computers: what they say, making one from a preset, and finding it again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from aiida.orm import Computer, QueryBuilder
from aiida.plugins import TransportFactory
from aiida.transports import Transport

from aiida_oodal.calculations.job.options import PROPERTY, SINFO_COMMAND, check_job_options, parse_partitions
from aiida_oodal.engine.errors import OodalError

from .presets import ComputerSettings, describe_command, describe_options, find_waste, render_preset


def run_on(computer: Computer, command: str) -> str:
    """Run a command on a computer and return what it printed.

    :raises OodalError: if the computer does not answer or the command fails, with what it said.
    """
    where = f'computer {computer.label!r} ({computer.hostname})'
    return _run(computer.get_transport, command, where, f'verdi computer test {computer.label}')


def run_as_job(computer: Computer, command: str) -> str:
    """Run a command in the environment that jobs get from the computer's prepend text.

    :raises OodalError: as :func:`run_on`.
    """
    return run_on(computer, f'{computer.get_prepend_text()}\n{command}')


def find_computers(label: str | None = None) -> list[Computer]:
    """Return the computer of a label, or all that are configured.

    :raises OodalError: if there is none, with those there are and how to make one.
    """
    known = [c for c in QueryBuilder().append(Computer).all(flat=True) if c.is_configured]
    computers = [computer for computer in known if label in (None, computer.label)]
    if not computers:
        name = 'no computer' if label is None else f'no computer {label!r}'
        others = f' (there are {", ".join(sorted(c.label for c in known))})' if known else ''
        raise OodalError(
            f'there is {name} that is configured{others}; `aiida-oodal setup computer --preset local` makes one of '
            'this machine, `--preset a100-slurm` one of a cluster'
        )
    return computers


def find_computer(label: str) -> Computer:
    """Return the computer of a label.

    :raises OodalError: as :func:`find_computers`.
    """
    return find_computers(label)[0]


def find_work_folder(computer: Computer, run: Callable[[str], str]) -> str:
    """Return the folder below which jobs run, after a file was written there and removed.

    :param run: runs a command on the computer.
    :raises OodalError: if nothing can be written there, with what the computer said.
    """
    folder = str(computer.get_workdir()).replace('{username}', run('whoami').strip())
    try:
        run(f'file=$(mktemp {shlex.quote(folder)}/.oodal-XXXXXX) && rm "$file"')
    except OodalError as error:
        raise OodalError(f'nothing can be written into {folder}, where jobs would run: {error}') from error
    return folder


def make_computer(preset: str, settings: ComputerSettings, say: Callable[[str], None]) -> Computer:
    """Make a computer, or bring the one of this label up to date, after looking at what it offers.

    If anything is refused, nothing is stored and nothing is changed.

    :returns: the stored and configured computer.
    :raises OodalError: if the label belongs to a computer elsewhere, the computer does not answer, or it lacks what the
        settings ask for.
    """
    values = render_preset(preset, settings)
    wanted, configuration = values['computer'], values['configuration']
    existing = QueryBuilder().append(Computer, filters={'label': settings.label}).first(flat=True)
    if existing is not None:
        _refuse_another(existing, wanted)
        configuration = {**existing.get_configuration(), **configuration}
    facts = {
        'command': describe_command(preset, settings),
        'options': values['options'],
        'allow_h200': settings.allow_h200,
        'partitions': {},
    }
    _probe(wanted, configuration, facts, say)
    computer = _build(wanted) if existing is None else existing
    _apply(computer, wanted)
    computer.set_property(PROPERTY, facts)
    computer.store()
    computer.configure(**configuration)
    computer.set_minimum_job_poll_interval(values['poll_interval'])
    if existing is None:
        say(f'made computer {settings.label!r}: {wanted["transport"]}, {wanted["scheduler"]} on {wanted["hostname"]}')
    else:
        say(f'brought computer {settings.label!r} up to date')
    for process, options in values['options'].items():
        say(f'jobs of {process}: {describe_options(options)}')
    if waste := find_waste(preset, settings):
        say(waste)
    return computer


def _probe(
    wanted: Mapping[str, Any], configuration: Mapping[str, Any], facts: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Check that a machine has what the settings of a computer say, and note the partitions of Slurm.

    :param facts: ``partitions`` are filled in.
    :raises OodalError: as :func:`make_computer`.
    """
    computer = _build(wanted)  # never stored
    host = wanted['hostname']
    by_hand = 'bash -l' if wanted['transport'] == 'core.local' else f'ssh {configuration.get("host", host)} true'

    def run(command: str) -> str:
        open_transport = TransportFactory(wanted['transport'])
        return _run(lambda: open_transport(machine=host, **configuration), command, host, by_hand)

    run(f'mkdir -p {shlex.quote(wanted["work_dir"].replace("{username}", run("whoami").strip()))}')
    say(f'it answers; jobs run below {find_work_folder(computer, run)}')
    # Every line by itself, as in a job: what a script does within is its own affair.
    lines = [line for line in wanted['prepend_text'].splitlines() if line.strip()]
    try:
        run(' && '.join(lines))
    except OodalError as error:
        raise OodalError(
            f'jobs would not get their environment: {error}. Correct --module, --conda or --venv'
        ) from error
    if wanted['scheduler'] == 'core.slurm':
        facts['partitions'] = parse_partitions(run(SINFO_COMMAND))
        say(f'Slurm has the partitions {", ".join(sorted(facts["partitions"]))}')
    computer.set_property(PROPERTY, facts)
    for process, options in facts['options'].items():
        if problem := check_job_options(computer, process, options):
            raise OodalError(f'jobs of {process}: {problem}')


def _run(open_transport: Callable[[], Transport], command: str, where: str, by_hand: str) -> str:
    """Run a command through a transport and return what it printed.

    :param where: what messages call the computer.
    :param by_hand: command that shows what is wrong if it does not answer.
    :raises OodalError: if the computer does not answer or the command fails.
    """
    try:
        with open_transport() as transport:
            status, output, error = transport.exec_command_wait(command)
    except Exception as problem:  # transports raise what their libraries raise
        raise OodalError(f'{where} does not answer: {problem}. Try `{by_hand}`.') from problem
    if status:
        raise OodalError(f'{where}: `{command}` failed with status {status}: {(error or output).strip()}')
    return str(output)


def _build(wanted: Mapping[str, Any]) -> Computer:
    computer = Computer(
        label=wanted['label'],
        hostname=wanted['hostname'],
        transport_type=wanted['transport'],
        scheduler_type=wanted['scheduler'],
    )
    _apply(computer, wanted)
    return computer


def _apply(computer: Computer, wanted: Mapping[str, Any]) -> None:
    """Write the properties of a computer that may change later."""
    computer.description = wanted['description']
    computer.set_workdir(wanted['work_dir'])
    computer.set_shebang(wanted['shebang'])
    computer.set_mpirun_command(wanted['mpirun_command'].split())
    computer.set_default_mpiprocs_per_machine(wanted['mpiprocs_per_machine'])
    computer.set_use_double_quotes(wanted['use_double_quotes'])
    computer.set_prepend_text(wanted['prepend_text'])
    computer.set_append_text(wanted['append_text'])


def _refuse_another(computer: Computer, wanted: Mapping[str, Any]) -> None:
    is_there = {
        'hostname': computer.hostname,
        'transport': computer.transport_type,
        'scheduler': computer.scheduler_type,
    }
    for name, value in is_there.items():
        if value != wanted[name]:
            raise OodalError(
                f'computer {computer.label!r} exists with {name} {value}, and {wanted[name]} is asked for: jobs of the '
                'past ran there. Choose another --label.'
            )
