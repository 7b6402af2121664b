"""A computer from one of the templates in ``templates/computers``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import Field, field_validator

from aiida_oodal.calculations.job_options import PROPERTY, SINFO_COMMAND, parse_partitions, parse_walltime
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.settings import Settings

from .remote import run_on

_SUFFIX = '.yaml.j2'
_POWERS = {'K': 0, 'M': 1, 'G': 2, 'T': 3}


class ComputerSettings(Settings):
    """What a user says of a computer; the rest is the preset's."""

    TITLE: ClassVar[str] = 'computer'

    label: str = Field(min_length=1, pattern=r'^[A-Za-z0-9_.-]+$', description='What AiiDA calls it.')
    host: str = Field('localhost', min_length=1, description='`localhost`, or a Host of ~/.ssh/config.')
    work_dir: str = Field(pattern='^/', description='Absolute path on the computer; jobs run in folders below.')
    partition: str = Field('a100', min_length=1, description='Slurm partition of the jobs that need a card.')
    cpu_partition: str | None = Field(None, description='Partition of the jobs that need no card.')
    memory: str = Field('60G', description='Memory per job.')
    cpu_memory: str = Field('8G', description='Memory per job on cpu_partition.')
    gres: str = Field('gpu:a100:1', description='Generic resources per job; empty: none.')
    walltime: str = Field('24:00:00', description='[days-]hours:minutes:seconds.')
    account: str | None = Field(None, description='Slurm account.')
    qos: str | None = Field(None, description='Slurm quality of service.')
    modules: tuple[str, ...] = Field((), description='Environment modules that jobs load.')
    conda: str | None = Field(None, description='Conda environment of the jobs.')
    venv: str | None = Field(None, description='Virtual environment of the jobs.')
    mpirun: str = Field('mpirun -np {tot_num_mpiprocs}', description='How parallel programs are started.')
    poll_interval: float = Field(10.0, ge=0.1, description='Seconds between two looks at the queue.')
    allow_h200: bool = Field(False, description='Let embedding jobs go to partition h200.')

    @field_validator('label')
    @classmethod
    def _is_no_uuid(cls, text: str) -> str:
        if re.fullmatch('[0-9a-fA-F-]+', text):
            raise ValueError(f'AiiDA takes {text!r} for the beginning of a UUID, or for a PK; add another letter')
        return text

    @field_validator('memory', 'cpu_memory')
    @classmethod
    def _is_memory(cls, text: str) -> str:
        memory_kb(text)
        return text

    @field_validator('walltime')
    @classmethod
    def _is_time(cls, text: str) -> str:
        parse_walltime(text)
        return text


def memory_kb(text: str) -> int:
    """Return kilobytes of Slurm's ``60G``; a bare number is in megabytes, as for ``sbatch --mem``.

    :raises ValueError: if it is no such text.
    """
    match = re.fullmatch(r'(\d+)([KMGT]?)', text.strip().upper())
    if match is None or int(match[1]) == 0:
        raise ValueError(f'{text!r} is no amount of memory like 60G')
    return int(match[1]) * int(1024 ** _POWERS[match[2] or 'M'])


def list_presets() -> list[str]:
    """Return the names of the presets."""
    folder = files('aiida_oodal.templates') / 'computers'
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder.iterdir() if path.name.endswith(_SUFFIX))


def render_preset(preset: str, settings: ComputerSettings) -> dict[str, Any]:
    """Return ``computer``, ``configuration``, ``poll_interval`` and ``options`` of a preset filled with settings.

    :raises OodalError: if there is no such preset.
    """
    if preset not in list_presets():
        raise OodalError(f'there is no preset {preset!r}; there are {", ".join(list_presets())}')
    loader = PackageLoader('aiida_oodal.templates', 'computers')
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    values = settings.model_dump() | {
        'memory_kb': memory_kb(settings.memory),
        'cpu_memory_kb': memory_kb(settings.cpu_memory),
        'walltime_s': parse_walltime(settings.walltime),
    }
    for name in ('venv', 'conda'):
        values[name] = values[name] and shlex.quote(values[name])
    values['modules'] = [shlex.quote(module) for module in settings.modules]
    result: dict[str, Any] = yaml.safe_load(environment.get_template(preset + _SUFFIX).render(values))
    result['options'] = {
        process: {key: value for key, value in options.items() if value is not None}
        for process, options in result['options'].items()
    }
    return result


def make_computer(preset: str, settings: ComputerSettings, say: Callable[[str], None]) -> Any:
    """Make a computer, or bring the one of this label up to date, and look at what it offers.

    :returns: the stored and configured computer.
    :raises OodalError: if the label belongs to a computer elsewhere, the computer does not answer, or it has not what
        the options ask for.
    """
    from aiida.orm import Computer, QueryBuilder

    values = render_preset(preset, settings)
    wanted = values['computer']
    computer = QueryBuilder().append(Computer, filters={'label': settings.label}).first(flat=True)
    if computer is None:
        computer = _build(wanted)
        computer.store()
        say(f'made computer {settings.label!r}: {wanted["transport"]}, {wanted["scheduler"]} on {wanted["hostname"]}')
    else:
        _refuse_another(computer, wanted)
        _apply(computer, wanted)
        computer.store()
        say(f'brought computer {settings.label!r} up to date')
    computer.configure(**values['configuration'])
    computer.set_minimum_job_poll_interval(values['poll_interval'])
    facts = {
        'command': describe_command(preset, settings),
        'options': values['options'],
        'allow_h200': settings.allow_h200,
        'partitions': {},
    }
    folder = settings.work_dir.replace('{username}', run_on(computer, 'whoami').strip())
    run_on(computer, f'mkdir -p {shlex.quote(folder)}')
    say(f'it answers; jobs run below {folder}')
    if wanted['scheduler'] == 'core.slurm':
        facts['partitions'] = parse_partitions(run_on(computer, SINFO_COMMAND))
        say(f'Slurm has the partitions {", ".join(sorted(facts["partitions"]))}')
    computer.set_property(PROPERTY, facts)
    _check_options(computer, values['options'])
    for process, options in values['options'].items():
        say(f'jobs of {process}: {describe_options(options)}')
    return computer


def render_script(preset: str, settings: ComputerSettings, process: str) -> str:
    """Return the script that ``sbatch`` would get for a job of a process; nothing is stored, nobody is asked."""
    from aiida.common.datastructures import CodeRunMode
    from aiida.plugins import CalculationFactory, SchedulerFactory
    from aiida.schedulers.datastructures import JobTemplate, JobTemplateCodeInfo

    from aiida_oodal.calculations.engine_code import EXECUTABLE
    from aiida_oodal.calculations.submit_script import EPILOGUE, prologue

    values = render_preset(preset, settings)
    computer = values['computer']
    scheduler = SchedulerFactory(computer['scheduler'])()
    options = values['options'].get(process, {})
    calculation = CalculationFactory(f'oodal.{process}')
    job = JobTemplate()
    # As `aiida.engine.CalcJob.presubmit` does with the options that nobody gave.
    job.rerunnable, job.import_sys_environment = False, True
    job.shebang = computer['shebang']
    job.job_name = f'aiida-{process}'
    job.sched_output_path, job.sched_error_path = '_scheduler-stdout.txt', '_scheduler-stderr.txt'
    job.job_resource = scheduler.create_job_resource(num_machines=1, num_mpiprocs_per_machine=1)
    job.prepend_text = '\n\n'.join(text for text in (computer['prepend_text'], prologue(computer['scheduler'])) if text)
    job.job_environment = {'OMP_NUM_THREADS': '1'}
    for name, value in options.items():
        setattr(job, name, value)
    code = JobTemplateCodeInfo(
        prepend_cmdline_params=[],
        cmdline_params=[f'./{EXECUTABLE}', calculation.COMMAND, calculation.JOB_FILE],
        use_double_quotes=[False, False],
        wrap_cmdline_params=False,
        stdout_name=calculation.OUTPUT_FILE,
    )
    job.codes_info, job.codes_run_mode = [code], CodeRunMode.SERIAL
    job.append_text = EPILOGUE
    return str(scheduler.get_submit_script(job))


def describe_command(preset: str, settings: ComputerSettings) -> str:
    """Return the command that makes this computer, to be repeated or changed."""
    words = ['aiida-oodal', 'setup', 'computer', '--preset', preset]
    for name, value in settings.model_dump(exclude_defaults=True).items():
        option = f'--{name.removesuffix("s" if name == "modules" else "").replace("_", "-")}'
        if value is True:
            words.append(option)
        else:
            words += [word for item in (value if name == 'modules' else [value]) for word in (option, str(item))]
    return shlex.join(words)


def describe_options(options: Mapping[str, Any]) -> str:
    """Say in one line what a job asks for."""
    words = [f'partition {options["queue_name"]}'] if 'queue_name' in options else []
    if 'max_memory_kb' in options:
        words.append(f'--mem={options["max_memory_kb"] // 1024}M')
    if 'custom_scheduler_commands' in options:
        words.append(options['custom_scheduler_commands'].removeprefix('#SBATCH '))
    if 'max_wallclock_seconds' in options:
        words.append(f'{options["max_wallclock_seconds"] / 3600:g} h')
    return ', '.join(words) or 'nothing in particular'


def default_work_dir(host: str) -> str | None:
    """Return where jobs run on this machine; elsewhere only the user knows."""
    return str(Path.home() / 'aiida_run') if host == 'localhost' else None


def _build(wanted: Mapping[str, Any]) -> Any:
    from aiida.orm import Computer

    computer = Computer(
        label=wanted['label'],
        hostname=wanted['hostname'],
        transport_type=wanted['transport'],
        scheduler_type=wanted['scheduler'],
    )
    _apply(computer, wanted)
    return computer


def _apply(computer: Any, wanted: Mapping[str, Any]) -> None:
    """Write what may change over the life of a computer."""
    computer.description = wanted['description']
    computer.set_workdir(wanted['work_dir'])
    computer.set_shebang(wanted['shebang'])
    computer.set_mpirun_command(wanted['mpirun_command'].split())
    computer.set_default_mpiprocs_per_machine(wanted['mpiprocs_per_machine'])
    computer.set_use_double_quotes(wanted['use_double_quotes'])
    computer.set_prepend_text(wanted['prepend_text'])
    computer.set_append_text(wanted['append_text'])


def _refuse_another(computer: Any, wanted: Mapping[str, Any]) -> None:
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


def _check_options(computer: Any, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Hold the options of every process against what Slurm offers."""
    from aiida_oodal.calculations.job_options import check_job_options

    for process, values in options.items():
        problem = check_job_options(computer, process, values)
        if problem:
            raise OodalError(f'jobs of {process}: {problem}')
