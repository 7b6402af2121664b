"""``aiida-oodal campaign``: campaigns as a whole."""

from __future__ import annotations

import click

from aiida_oodal.cli.report import report
from aiida_oodal.cli.watch import watch

from .changes import extend, launch, pause, resume, stop
from .exchange import export
from .looks import compare, list_, status

__all__ = ('campaign',)


@click.group()
def campaign() -> None:
    """Launch campaigns, look at them, pause and stop them, and go on with what they learned.

    A launch script begins one: `aiida-oodal init` writes such a script, `launch` or `verdi run` runs it.
    """


for _command in (launch, list_, status, watch, report, compare, pause, resume, stop, extend, export):
    campaign.add_command(_command)
