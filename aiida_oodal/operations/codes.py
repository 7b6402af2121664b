"""The codes of a computer: the engine that travels, and the programs that are there already."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Sequence

from aiida.orm import AbstractCode, Computer, InstalledCode, QueryBuilder

from aiida_oodal.calculations.codes.engine_code import find_engine_code, get_engine_code
from aiida_oodal.calculations.codes.lammps_build import NATIVE_STYLE
from aiida_oodal.calculations.codes.lammps_code import ask_build
from aiida_oodal.engine.errors import OodalError

from .computers import find_computers, run_as_job

#: What the commands of the engine import, and which command is lost without it.
MODULES = {
    'numpy': 'everything',
    'ase': 'everything',
    'scipy': 'everything',
    'lammps': 'md',
    'pyace': 'md and train_ace',
    'torch': 'latents and train_mace',
    'mace': 'latents and train_mace',
}
#: How the answer begins of a Python that does not find a calculator.
_NOT_FOUND = 'not found: '
#: Entry point of the calculation that LAMMPS runs.
LAMMPS_PLUGIN = 'oodal.md'
#: Program, which gives its code the label -> entry point of the calculation it is for.
_PROGRAMS = {'lmp': LAMMPS_PLUGIN, 'pw.x': 'quantumespresso.pw'}


def make_codes(label: str | None, paths: Sequence[str], say: Callable[[str], None]) -> None:
    """Make the code of the current engine, and a code for every known program on a computer.

    :param label: of the computer; None: every computer that is configured.
    :param paths: folders to look into before PATH.
    :raises OodalError: if there is no such computer or it does not answer.
    """
    fresh = find_engine_code() is None
    say(f'{"made" if fresh else "found"} the engine {get_engine_code().label}: it travels with every job')
    for computer in find_computers(label):
        say(f'computer {computer.label}:')
        for line in describe_python(computer):
            say(f'  {line}')
        for program, plugin in _PROGRAMS.items():
            say(f'  {_make_code(computer, program, plugin, paths)}')


def describe_python(computer: Computer) -> list[str]:
    """Return which Python jobs get, and which modules that the engine needs are missing."""
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


def missing_modules(computer: Computer) -> list[str]:
    """Return the modules without which nothing runs on a computer, if any."""
    lines = ' '.join(describe_python(computer))
    return [module for module, use in MODULES.items() if use == 'everything' and f'it lacks {module}:' in lines]


def find_calculator_fault(computer: Computer, name: str) -> str | None:
    """Say why jobs on a computer do not find an ASE calculator, or return None if they do.

    :param name: what ASE calls it, or ``package.module:Class``.
    :raises OodalError: if the computer does not answer.
    """
    module, _, attribute = name.partition(':')
    lookup = f'getattr(importlib.import_module({module!r}), {attribute!r})'
    if not attribute:
        lookup = f"importlib.import_module('ase.calculators.calculator').get_calculator_class({name!r})"
    lines = ('import importlib', 'try:', f' {lookup}', 'except (ImportError, AttributeError, ValueError) as error:')
    probe = '\n'.join((*lines, f' print({_NOT_FOUND!r}, error, sep="")'))
    said = run_as_job(computer, f'python3 -c {shlex.quote(probe)}')
    found = [line.removeprefix(_NOT_FOUND) for line in said.splitlines() if line.startswith(_NOT_FOUND)]
    return f'python3 of jobs on {computer.label} does not find {name!r}: {found[0]}' if found else None


def find_codes(computer: Computer) -> list[InstalledCode]:
    """Return the programs of a computer that are known, the oldest first."""
    query = QueryBuilder().append(Computer, filters={'id': computer.pk}, tag='computer')
    query.append(InstalledCode, with_computer='computer', tag='code')
    return list(query.order_by({'code': {'ctime': 'asc'}}).all(flat=True))


def describe_build(code: AbstractCode) -> str:
    """Ask LAMMPS what its build can do, store the answer with the code, and return a sentence on what it means for ACE.

    :raises OodalError: if it does not answer.
    """
    build = ask_build(code)
    if build.lacks(NATIVE_STYLE) is None:
        return f'LAMMPS {build.version} with {NATIVE_STYLE}: it computes gamma of ACE itself'
    return f'LAMMPS {build.version} without {NATIVE_STYLE}: for ACE give the engine as code'


def _make_code(computer: Computer, program: str, plugin: str, paths: Sequence[str]) -> str:
    """Make the code of a program if it is found and has no code yet; return a sentence on what was done.

    Codes are compared by the path of the file: another file gets a code of its own.
    """
    folders = ':'.join(shlex.quote(path) for path in paths)
    search = f'export PATH={folders}:"$PATH"; ' if paths else ''
    try:
        path = run_as_job(computer, f'{search}command -v {program}').strip().splitlines()[-1]
    except OodalError:
        return f'{program} is not there'
    known = find_codes(computer)
    code = next((code for code in known if str(code.filepath_executable) == path), None)
    done = 'found'
    if code is None:
        taken = {code.label for code in known}
        names = itertools.chain([program], (f'{program}-{number}' for number in itertools.count(2)))
        code = InstalledCode(
            label=next(name for name in names if name not in taken),
            computer=computer,
            filepath_executable=path,
            default_calc_job_plugin=plugin,
            description='made by aiida-oodal setup',
        ).store()
        done = 'made'
    text = f'{done} {code.full_label}: {path}'
    if plugin != LAMMPS_PLUGIN:
        return text
    try:
        return f'{text}, {describe_build(code)}'
    except OodalError as error:
        return f'{text}; what it can do is not known: {error}'
