"""A decorator for calcfunctions: bad input ends in an exit code with a message, not in a traceback."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from aiida.engine import ExitCode

from aiida_oodal.engine.errors import OodalError

#: Exit status of a calcfunction that refused its input.
ERROR_INPUT = 210


def explained(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with every :class:`OodalError` turned into an exit code; goes below ``@calcfunction``."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except OodalError as error:
            return ExitCode(ERROR_INPUT, str(error))

    return run
