"""``aiida-oodal queue``: the DFT queue as people use it."""

from __future__ import annotations

import click

from .changes import add, prioritise, reject, retry
from .exchange import export, import_
from .labelling import label
from .looks import levels, list_, show

__all__ = ('queue',)


@click.group()
def queue() -> None:
    """List, change and label the entries of the DFT queue.

    An entry is a structure at a level of theory; its KEY may be shortened as long as it means one entry.
    """


for _command in (list_, show, levels, add, export, import_, label, retry, reject, prioritise):
    queue.add_command(_command)
