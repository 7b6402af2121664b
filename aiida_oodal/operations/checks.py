"""What a campaign needs besides the daemon: versions, storage, disk, computers, codes."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from aiida.manage.configuration import get_profile
from aiida.orm import Computer, InstalledCode
from packaging.requirements import Requirement

from aiida_oodal.calculations.codes.engine_code import engine_label, find_engine_code
from aiida_oodal.calculations.job.options import PROPERTY, SINFO_COMMAND, check_job_options, parse_partitions
from aiida_oodal.engine.errors import OodalError

from .codes import LAMMPS_PLUGIN, describe_build, describe_python, find_codes, missing_modules
from .computers import find_computers, find_work_folder, run_on
from .doctor import Finding

#: Free disk below which a campaign should not go on [bytes].
_FREE = 5e9


def check_installation(label: str | None) -> Iterator[Finding]:
    """Look at everything but the daemon.

    :param label: of the only computer to look at; None: all.
    """
    yield _check_versions()
    yield from _check_storage()
    there = 'is not made yet: the next launch makes it' if find_engine_code() is None else 'is there'
    yield Finding('codes', True, f'{engine_label()} {there}')
    try:
        computers = find_computers(label)
    except OodalError as error:
        yield Finding('computer', False, str(error), 'aiida-oodal setup computer --preset local')
        return
    for computer in computers:
        yield from check_computer(computer)


def _check_versions() -> Finding:
    """Compare the installed packages with the requirements of this package."""
    wrong = []
    for line in requires('aiida-oodal') or ():
        requirement = Requirement(line)
        if requirement.marker is None and not requirement.specifier.contains(
            version(requirement.name), prereleases=True
        ):
            wrong.append(f'{requirement.name} {version(requirement.name)} (needs {requirement.specifier})')
    text = f'aiida-oodal {version("aiida-oodal")}, aiida-core {version("aiida-core")}, Python {sys.version.split()[0]}'
    return Finding('versions', not wrong, '; '.join([text, *wrong]), "pip install --upgrade 'aiida-oodal[ace,md]'")


def _check_storage() -> Iterator[Finding]:
    """Look at the database's journal and at the disk below repository and database."""
    profile = get_profile()
    config = profile.storage_config
    if profile.storage_backend == 'core.sqlite_dos':
        folder = Path(config['filepath'])
        with sqlite3.connect(f'file:{folder / "database.sqlite"}?mode=ro', uri=True) as connection:
            (mode,) = connection.execute('PRAGMA journal_mode').fetchone()
        connection.close()
        cure = f'verdi daemon stop; aiida-oodal setup profile --name {profile.name}'
        yield Finding('storage', mode == 'wal', f'SQLite in {folder}, journal mode {mode}', cure)
    else:
        folder = Path(unquote(urlsplit(config['repository_uri']).path))
        yield Finding('storage', True, f'{profile.storage_backend} at {config["database_hostname"]}, files in {folder}')
    yield _check_space(f'for {folder}', shutil.disk_usage(folder).free, 'verdi storage maintain --full')


def _check_space(where: str, free: float, cure: str) -> Finding:
    return Finding('disk', free > _FREE, f'{free / 1e9:.0f} GB free {where} (at least {_FREE / 1e9:.0f} wanted)', cure)


def check_computer(computer: Computer, codes: Iterable[InstalledCode] | None = None) -> Iterator[Finding]:
    """Look at a computer: whether it answers, its space, Slurm, python and codes.

    :param codes: of the codes on it only these; None: all.
    """
    name = computer.label
    try:
        user = run_on(computer, 'whoami').strip()
    except OodalError as error:
        yield Finding('computer', False, str(error), f'verdi computer test {name}')
        return
    yield Finding('computer', True, f'{name} answers as {user}')
    facts = computer.get_property(PROPERTY, {})
    renew = facts.get('command', f'aiida-oodal setup computer --preset a100-slurm --label {name} ...')
    try:
        folder = find_work_folder(computer, lambda command: run_on(computer, command))
        free = float(run_on(computer, f'df --output=avail --block-size=1 {shlex.quote(folder)} | tail -1'))
        yield _check_space(
            f'on {name} for {folder}', free, f'verdi calcjob cleanworkdir --computers {name} --older-than 7'
        )
    except OodalError as error:
        yield Finding('disk', False, str(error), f'make the folder writable, or give another: {renew}')
    if computer.scheduler_type == 'core.slurm':
        yield from _check_slurm(computer, facts, renew)
    try:
        lines = describe_python(computer)
        missing = missing_modules(computer)
        yield Finding(
            'python', not missing, f'on {name}: {"; ".join(lines)}', f'{renew} with --conda, --venv or --module'
        )
    except OodalError as error:
        yield Finding('python', False, str(error), f'{renew} with --conda, --venv or --module')
    yield from _check_codes(computer, find_codes(computer) if codes is None else codes)


def _check_slurm(computer: Computer, facts: dict[str, Any], renew: str) -> Iterator[Finding]:
    """Ask Slurm again for the partitions that the default options name, and whether they have a node that works."""
    wanted = sorted({options['queue_name'] for options in facts.get('options', {}).values() if 'queue_name' in options})
    try:
        known = parse_partitions(run_on(computer, SINFO_COMMAND))
        states = run_on(computer, "sinfo --noheader --format='%R %a %D %T'").splitlines()
    except OodalError as error:
        yield Finding('slurm', False, str(error), f'verdi computer test {computer.label}')
        return
    for partition in wanted:
        if partition not in known:
            text = f'{computer.label} has no partition {partition}; there are {", ".join(sorted(known))}'
            yield Finding('slurm', False, text, renew)
            continue
        lines = [line.split() for line in states if line.split()[0] == partition]
        usable = [
            line for line in lines if line[1] == 'up' and line[3].rstrip('*~#$@+') in ('idle', 'mixed', 'allocated')
        ]
        text = f'partition {partition}: ' + ', '.join(f'{count} nodes {state}' for _, _, count, state in lines)
        # Only an administrator can bring a node back; jobs wait meanwhile, nothing is lost.
        yield Finding(
            'slurm', bool(usable), text, f'sinfo --list-reasons --partition {partition}; ask an administrator'
        )
    for process, options in facts.get('options', {}).items():
        problem = check_job_options(computer, process, options)
        if problem:
            yield Finding('slurm', False, f'jobs of {process}: {problem}', renew)


def _check_codes(computer: Computer, codes: Iterable[InstalledCode]) -> Iterator[Finding]:
    """Check whether the programs of the codes still exist, and which pair styles LAMMPS has now."""
    for code in codes:
        path = code.filepath_executable
        text = f'{code.full_label}: {path}'
        try:
            run_on(computer, f'test -x {shlex.quote(str(path))}')
        except OodalError:
            cure = f'aiida-oodal setup codes --computer {computer.label}; verdi code delete {code.pk}'
            yield Finding('codes', False, f'{text} is gone', cure)
            continue
        if code.default_calc_job_plugin == LAMMPS_PLUGIN:
            try:
                text = f'{text}, {describe_build(code)}'
            except OodalError as error:
                text = f'{text}; what it can do is not known: {error}'
        yield Finding('codes', True, text)
