"""What the commands share: the option ``-p`` of AiiDA, and errors that a user can correct."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from aiida.cmdline.groups.verdi import VerdiContext
from aiida.cmdline.params import options
from aiida.cmdline.params.types import ProfileParamType
from aiida.cmdline.utils.defaults import get_default_profile
from aiida.manage.configuration import get_profile

from aiida_oodal.engine.errors import OodalError

_WAY_OUT = '`verdi profile list` lists what there is, `aiida-oodal setup profile` makes one'


class ProfileCommand(click.Command):
    """A command with :data:`PROFILE`; only one that shows what it would do (``dry_run``) runs without a profile."""

    #: AiiDA's option reads the configuration from it.
    context_class = VerdiContext

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command if there is a profile."""
        if get_profile() is None and not ctx.params.get('dry_run'):
            raise click.UsageError(f'there is no default profile; {_WAY_OUT}', ctx)
        return super().invoke(ctx)


class _ProfileType(ProfileParamType):
    """AiiDA's own, with the way out."""

    def fail(self, message: str, param: click.Parameter | None = None, ctx: click.Context | None = None) -> NoReturn:
        raise click.BadParameter(f'{message}; {_WAY_OUT}', ctx, param)


def _default_profile() -> str | None:
    """Return the name of the profile that is loaded, else of the default one."""
    profile = get_profile()
    name: str | None = get_default_profile() if profile is None else profile.name
    return name


#: Load the profile that ``-p`` names, or the default one; for commands of the class :class:`ProfileCommand`.
PROFILE = options.PROFILE(type=_ProfileType(load_profile=True), default=_default_profile, expose_value=False)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show an :class:`OodalError` as one line, without a traceback."""
    try:
        yield
    except OodalError as error:
        raise click.ClickException(str(error)) from error
