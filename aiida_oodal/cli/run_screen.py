"""Submit a screening and follow it."""

from __future__ import annotations

import time
from pathlib import Path

import click
from aiida import orm
from aiida.common.exceptions import InvalidOperation, NotExistent
from aiida.engine import submit

from aiida_oodal.calculations.engine_code import get_engine_code
from aiida_oodal.calculations.job_options import get_job_options
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.launch import wait_for
from aiida_oodal.workchains.screen import ScreenWorkChain
from aiida_oodal.workchains.screen_inputs import validate_screen

from .targets import ScreenInputs

_POLL_SECONDS = 2.0


def submit_screen(targets: Path, computer: str) -> orm.WorkChainNode:
    """Submit what a file of targets asks for.

    :param computer: label of the computer that runs the models.
    :raises OodalError: if the file, a node or the computer is not there, or does not fit.
    """
    inputs = ScreenInputs(targets)
    builder = ScreenWorkChain.get_builder()
    try:
        for name, value in inputs.build().items():
            setattr(builder, name, value)
        if any('models' in ensemble for ensemble in builder.ensembles.values()):
            builder.embed.code = get_engine_code()
            builder.embed.settings = orm.Dict(inputs.content.latents)
            builder.embed.metadata.computer = orm.load_computer(computer)
            defaults = get_job_options(builder.embed.metadata.computer, 'latents')
            try:
                builder.embed.metadata.options.update({**defaults, **inputs.content.options})
            except AttributeError as error:  # AiiDA's word for a name that it does not know
                raise OodalError(f'{targets}: options: {error}') from error
        # Before anything else: without a daemon `submit` would ask for one first.
        if problem := validate_screen(builder, None):
            raise OodalError(f'{targets}: {problem}')
        builder.metadata.label = f'screen {targets.name}'
        node: orm.WorkChainNode = submit(builder)
    except NotExistent as error:
        raise OodalError(
            f'{error}. `verdi computer list` lists computers, `aiida-oodal setup computer --preset local` makes '
            'localhost'
        ) from error
    except InvalidOperation as error:  # no daemon
        raise OodalError(str(error)) from error
    except OodalError:
        raise
    except ValueError as error:  # what validators say
        raise OodalError(f'{targets}: {error}') from error
    return node


def wait_for_screen(node: orm.WorkChainNode) -> None:
    """Print what a screening reports until it ends.

    :raises OodalError: if it did not succeed, or there is no daemon.
    """
    seen = 0
    while True:
        terminated = node.is_terminated
        query = orm.QueryBuilder().append(
            orm.Log, filters={'dbnode_id': node.pk, 'id': {'>': seen}}, project=['id', 'message'], tag='log'
        )
        for identifier, message in query.order_by({'log': {'id': 'asc'}}).iterall():
            click.echo(message.split(']: ', 1)[-1])
            seen = identifier
        if terminated:
            wait_for(node)
            return
        time.sleep(_POLL_SECONDS)
