"""Presets of computers: the templates in ``templates/computers``, filled with what a user says."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import yaml
from aiida.common.datastructures import CodeRunMode
from aiida.plugins import CalculationFactory, SchedulerFactory
from aiida.schedulers.datastructures import JobTemplate, JobTemplateCodeInfo
from pydantic import Field, field_validator

from aiida_oodal.calculations.codes.engine_code import EXECUTABLE
from aiida_oodal.calculations.job.options import H200_REFUSED, parse_walltime
from aiida_oodal.calculations.job.submit_script import EPILOGUE, prologue
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import JOB_FILE
from aiida_oodal.engine.settings import Settings
from aiida_oodal.templates import get_template

_SUFFIX = '.yaml.j2'
_POWERS = {'K': 0, 'M': 1, 'G': 2, 'T': 3}


class ComputerSettings(Settings):
    """Settings of a computer that users give; all others come from the preset."""

    TITLE: ClassVar[str] = 'computer'

    label: str = Field(min_length=1, pattern=r'^[A-Za-z0-9_.-]+$', description='What AiiDA calls it.')
    host: str = Field('localhost', min_length=1, description='`localhost`, or a Host of ~/.ssh/config.')
    work_dir: str = Field(pattern='^/', description='Absolute path on the computer; jobs run in folders below.')
    partition: str = Field('a100', min_length=1, description='Slurm partition of the jobs that need a GPU.')
    cpu_partition: str | None = Field(None, description='Partition of the jobs that need no GPU.')
    memory: str = Field('60G', description='Memory per job.')
    cpu_memory: str = Field('8G', description='Memory per job on cpu_partition.')
    gres: str = Field('gpu:a100:1', description='Generic resources per job; empty: none.')
    walltime: str = Field('24:00:00', description='[days-]hours:minutes:seconds.')
    account: str | None = Field(None, description='Slurm account.')
    qos: str | None = Field(None, description='Slurm quality of service.')
    modules: tuple[str, ...] = Field((), description='Environment modules that jobs load.')
    conda: str | None = Field(None, description='Conda environment of the jobs.')
    venv: str | None = Field(None, description='Virtual environment of the jobs.')
    path: tuple[str, ...] = Field((), description='Folders that come first on the PATH of jobs.')
    mpirun: str = Field('mpirun -np {tot_num_mpiprocs}', description='How parallel programs are started.')
    poll_interval: float = Field(10.0, ge=0.1, description='Seconds between two looks at the queue.')
    login_shell: bool = Field(True, description='Preset local: commands run in a login shell, with what it sets up.')
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
    """Return the kilobytes of an amount of memory as Slurm writes it, like ``60G``.

    :raises ValueError: if it is no such text, or has no unit: ``sbatch`` takes 60 for 60 MB, people for 60 GB.
    """
    match = re.fullmatch(r'(\d+)([KMGT]?)', text.strip().upper())
    if match is None or int(match[1]) == 0:
        raise ValueError(f'{text!r} is no amount of memory like 60G')
    if not match[2]:
        raise ValueError(f'{text!r} has no unit: write {match[1]}G or {match[1]}M')
    return int(match[1]) * int(1024 ** _POWERS[match[2]])


def list_presets() -> list[str]:
    """Return the names of the presets."""
    folder = files('aiida_oodal.templates') / 'computers'
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder.iterdir() if path.name.endswith(_SUFFIX))


def render_preset(preset: str, settings: ComputerSettings) -> dict[str, Any]:
    """Return ``computer``, ``configuration``, ``poll_interval`` and ``options`` of a preset filled with settings.

    :raises OodalError: if there is no such preset, or it would send embedding jobs to an H200 unasked.
    """
    if preset not in list_presets():
        raise OodalError(f'there is no preset {preset!r}; there are {", ".join(list_presets())}')
    values = settings.model_dump() | {
        'memory_kb': memory_kb(settings.memory),
        'cpu_memory_kb': memory_kb(settings.cpu_memory),
        'walltime_s': parse_walltime(settings.walltime),
    }
    for name in ('venv', 'conda'):
        values[name] = values[name] and shlex.quote(values[name])
    for name in ('modules', 'path'):
        values[name] = [shlex.quote(text) for text in values[name]]
    result: dict[str, Any] = yaml.safe_load(get_template(f'computers/{preset}{_SUFFIX}').render(values))
    result['options'] = {
        process: {key: value for key, value in options.items() if value is not None}
        for process, options in result['options'].items()
    }
    unasked = 'latents' in result['options'] and not settings.allow_h200
    if unasked and 'h200' in f'{settings.partition} {settings.gres}'.lower():
        raise OodalError(H200_REFUSED)
    return result


def render_script(preset: str, settings: ComputerSettings, process: str) -> str:
    """Return the script that ``sbatch`` would get for a job of a process; nothing is stored, nobody is asked."""
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
        cmdline_params=[f'./{EXECUTABLE}', calculation.COMMAND, JOB_FILE],
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
            words += [word for item in (value if isinstance(value, tuple) else [value]) for word in (option, str(item))]
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
    """Return where jobs run on this machine, beside what AiiDA keeps; elsewhere only the user knows."""
    home = os.environ.get('AIIDA_PATH', '').split(os.pathsep)[0] or Path.home()
    return str(Path(home).absolute() / 'aiida_run') if host == 'localhost' else None


def find_waste(preset: str, settings: ComputerSettings) -> str | None:
    """Say which jobs will ask for a GPU that they do not need; None if none does."""
    if settings.cpu_partition is not None or not settings.gres:
        return None
    with_gpus = render_preset(preset, settings)['options']
    without = render_preset(preset, settings.model_copy(update={'cpu_partition': 'cpu'}))['options']
    idle = [process for process, options in with_gpus.items() if options != without[process]]
    if not idle:
        return None
    return (
        f'{", ".join(idle)} need no GPU, and yet every such job asks for {settings.gres} and {settings.memory}: give a '
        'partition without GPUs by --cpu-partition'
    )
