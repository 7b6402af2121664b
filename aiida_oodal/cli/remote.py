"""Asking a computer a question, through its own transport."""

from __future__ import annotations

from typing import Any

from aiida_oodal.engine.errors import OodalError


def run_on(computer: Any, command: str) -> str:
    """Run a command on a computer and return what it printed.

    :raises OodalError: if the computer does not answer or the command fails, with what it said.
    """
    where = f'computer {computer.label!r} ({computer.hostname})'
    try:
        with computer.get_transport() as transport:
            status, output, error = transport.exec_command_wait(command)
    except Exception as problem:  # transports raise what their libraries raise
        raise OodalError(
            f'{where} does not answer: {problem}. Try `verdi computer test {computer.label}`.'
        ) from problem
    if status:
        raise OodalError(f'{where}: `{command}` failed with status {status}: {(error or output).strip()}')
    return str(output)


def run_as_job(computer: Any, command: str) -> str:
    """Run a command in the environment that jobs get from the computer's prepend text.

    :raises OodalError: as :func:`run_on`.
    """
    return run_on(computer, f'{computer.get_prepend_text()}\n{command}')
