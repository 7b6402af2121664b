"""A LAMMPS executable as a code: what its build can do is asked when the code is set up, and kept with the code.

Building and checking the inputs of a process asks no computer: :func:`check_pair_style` knows only what was kept.
Whoever submits asks with :func:`require_pair_style`.
"""

from __future__ import annotations

import dataclasses
import shlex

from aiida import orm
from aiida.common.exceptions import AiidaException

from aiida_oodal.calculations.codes.lammps_build import LammpsBuild, read_help
from aiida_oodal.engine.errors import OodalError

from .engine_code import EXECUTABLE

#: Extra of a code: what its build can do.
EXTRA = 'oodal_lammps'


def is_engine(code: orm.AbstractCode) -> bool:
    """Tell the engine's own code, which brings LAMMPS as a library, from LAMMPS itself."""
    return isinstance(code, orm.PortableCode) and str(code.filepath_executable) == EXECUTABLE


def find_build(code: orm.AbstractCode) -> LammpsBuild | None:
    """Return what is known of the build of a code, None if nobody asked it yet."""
    known = code.base.extras.get(EXTRA, None)
    if known is None:
        return None
    version, packages, pair_styles = (known[field.name] for field in dataclasses.fields(LammpsBuild))
    return LammpsBuild(version, tuple(packages), tuple(pair_styles))


def check_pair_style(code: orm.AbstractCode, pair_style: str) -> str | None:
    """Say why a code cannot run a pair style; None if it can, or if nobody asked it yet. No computer is asked."""
    if problem := _find_misuse(code):
        return problem
    build = find_build(code)
    obstacle = None if build is None else build.lacks(pair_style)
    if obstacle is None:
        return None
    return (
        f'code {code.label!r}: {obstacle}. If LAMMPS was built anew, run `aiida-oodal setup codes`, which asks it again'
    )


def require_pair_style(code: orm.AbstractCode, pair_style: str) -> None:
    """Refuse a code that cannot run a pair style, before anything is submitted.

    LAMMPS is asked if nobody did before; and once more if it could not, for somebody may have built it anew.

    :raises OodalError: if it cannot, or does not answer.
    """
    if problem := _find_misuse(code):
        raise OodalError(problem)
    build = find_build(code)
    if build is None or build.lacks(pair_style):
        ask_build(code)
    if problem := check_pair_style(code, pair_style):
        raise OodalError(problem)


def ask_build(code: orm.AbstractCode) -> LammpsBuild:
    """Ask LAMMPS what its build can do, in the environment that its jobs get, and keep the answer with the code.

    :raises OodalError: if the code is none of LAMMPS, its computer does not answer, or LAMMPS does not run there.
    """
    if problem := _find_misuse(code):
        raise OodalError(problem)
    computer = code.computer
    command = ' '.join(shlex.quote(word) for word in code.get_executable_cmdline_params(['-h']))
    script = '\n'.join([computer.get_prepend_text(), code.prepend_text, command])
    try:
        with computer.get_transport() as transport:
            _, output, errors = transport.exec_command_wait(script)
    except (AiidaException, OSError) as error:
        raise OodalError(
            f'code {code.label!r}: computer {computer.label!r} cannot be asked whether this LAMMPS has what the run '
            f'needs ({error}); try again when `verdi computer test {computer.label}` passes'
        ) from error
    return record_help(code, output if output.strip() else errors)


def record_help(code: orm.AbstractCode, text: str) -> LammpsBuild:
    """Keep with a code what ``lmp -h`` printed, for instance on a compute node, where alone it may run.

    :raises OodalError: if this is not LAMMPS's help.
    """
    try:
        build = read_help(text)
    except OodalError as error:
        raise OodalError(
            f'code {code.label!r}: {error}. If it runs on compute nodes only, save the output of `lmp -h` there, and '
            'record it here: `aiida_oodal.calculations.codes.lammps_code.record_help(code, text)`'
        ) from None
    code.base.extras.set(EXTRA, dataclasses.asdict(build))
    return build


def _find_misuse(code: orm.AbstractCode) -> str | None:
    """Say that a code is no executable on a computer, as LAMMPS is; None if it is one."""
    if getattr(code, 'computer', None) is not None:
        return None
    return (
        f'code {code.label!r} is neither LAMMPS on a computer (InstalledCode, ContainerizedCode) nor the engine '
        '(aiida_oodal.calculations.codes.get_engine_code)'
    )
