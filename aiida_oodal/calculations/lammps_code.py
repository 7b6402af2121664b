"""A LAMMPS executable as a code: what its build can do is asked once, before anything enters a queue."""

from __future__ import annotations

import dataclasses
import shlex

from aiida import orm
from aiida.common.exceptions import AiidaException

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.build import LammpsBuild, read_help

from .engine_code import EXECUTABLE

#: Where a code keeps what its build can do.
EXTRA = 'oodal_lammps'


def is_engine(code: orm.AbstractCode) -> bool:
    """Tell the engine's own code, which brings LAMMPS as a library, from LAMMPS itself."""
    return isinstance(code, orm.PortableCode) and str(code.filepath_executable) == EXECUTABLE


def check_pair_style(code: orm.AbstractCode, pair_style: str) -> str | None:
    """Say why a code cannot run a pair style, or return None.

    A yes is kept with the code. A no is not: LAMMPS is asked again every time, for somebody may have built it anew.
    """
    try:
        known = code.base.extras.get(EXTRA, None)
        if known is not None and _build(known).lacks(pair_style) is None:
            return None
        obstacle = record_help(code, ask_for_help(code)).lacks(pair_style)
    except OodalError as error:
        return str(error)
    return None if obstacle is None else f'code {code.label!r}: {obstacle}'


def record_help(code: orm.AbstractCode, text: str) -> LammpsBuild:
    """Keep with a code what ``lmp -h`` printed, for instance on a compute node, where alone it may run.

    :raises OodalError: if this is not LAMMPS's help.
    """
    try:
        build = read_help(text)
    except OodalError as error:
        raise OodalError(
            f'code {code.label!r}: {error}. If it runs on compute nodes only, keep there what `lmp -h` prints and give '
            'it here: `aiida_oodal.calculations.lammps_code.record_help(code, text)`'
        ) from None
    code.base.extras.set(EXTRA, dataclasses.asdict(build))
    return build


def ask_for_help(code: orm.AbstractCode) -> str:
    """Return what ``lmp -h`` prints on the computer of the code, in the environment that its jobs get.

    :raises OodalError: if the code has no computer, or that cannot be reached.
    """
    computer = getattr(code, 'computer', None)
    if computer is None:
        raise OodalError(
            f'code {code.label!r} is neither LAMMPS on a computer (InstalledCode, ContainerizedCode) nor the engine '
            '(aiida_oodal.calculations.engine_code.get_engine_code)'
        )
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
    return str(output if output.strip() else errors)


def _build(values: dict[str, object]) -> LammpsBuild:
    """Read back what :func:`record_help` kept."""
    version, packages, pair_styles = (values[field.name] for field in dataclasses.fields(LammpsBuild))
    return LammpsBuild(str(version), tuple(packages), tuple(pair_styles))  # type: ignore[arg-type]
