"""Errors that a user can mend, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from aiida_oodal.engine.errors import OodalError


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show an :class:`OodalError` as one line."""
    try:
        yield
    except OodalError as error:
        raise click.ClickException(str(error)) from error
