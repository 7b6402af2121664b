"""Submitting a screening, and finding it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiida import orm

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.screen import ScreenWorkChain
from aiida_oodal.workchains.screen_inputs import validate_screen

from .computers import find_computer
from .launch import submit_process
from .targets import ScreenFile, ScreenInputs


def submit_screen(targets: Path, computer: str, say: Callable[[str], None]) -> orm.WorkChainNode:
    """Submit what a file of targets asks for.

    :param computer: label of the computer that runs the models.
    :param say: told what was read.
    :raises OodalError: if the file, a node or the computer is not there, or does not fit, or no daemon is running.
    """
    inputs = ScreenInputs(targets, say)
    builder = ScreenWorkChain.get_builder()
    try:
        for name, value in inputs.build().items():
            setattr(builder, name, value)
        if builder.ensembles:
            _set_up_jobs(builder, inputs.content, find_computer(computer), targets)
        # Before anything else: without a daemon `submit` would ask for one first.
        if problem := validate_screen(builder, None):
            raise OodalError(f'{targets}: {problem}')
        builder.metadata.label = f'screen {targets.name}'
        return submit_process(builder)
    except OodalError:
        raise
    except ValueError as error:  # what validators say
        raise OodalError(f'{targets}: {error}') from error


def _set_up_jobs(builder: Any, content: ScreenFile, computer: orm.Computer, targets: Path) -> None:
    """Say with which code and options the jobs run, and where.

    :raises OodalError: for an option that is none.
    """
    own = get_job_options(computer, 'latents', content.options)
    # Who fits and scores needs no GPU; where a computer was set up before there were such jobs, any partition will do.
    wanted = {'judge': {**(get_job_options(computer, 'fit_reference') or own), **content.judge_options}}
    if any('models' in ensemble for ensemble in builder.ensembles.values()):
        wanted['embed'] = own
        builder.embed.settings = orm.Dict(content.latents)
    for stage, options in wanted.items():
        builder[stage].code = get_engine_code()
        builder[stage].metadata.computer = computer
        try:
            builder[stage].metadata.options.update(options)
        except AttributeError as error:  # AiiDA's word for a name that it does not know
            raise OodalError(f'{targets}: options: {error}') from error
