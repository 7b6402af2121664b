"""A test: one small job through daemon and scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiida import orm
from ase.build import bulk

from aiida_oodal.calculations.codes import get_engine_code
from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError

from .computers import find_computer
from .follow import follow
from .launch import require_daemon, submit_process


def run_test_job(label: str, timeout: float, say: Callable[[str], None]) -> orm.CalcJobNode:
    """Label four atoms of aluminium by EMT on a computer, through the daemon.

    :param timeout: seconds after which the job is left to itself.
    :returns: the process.
    :raises OodalError: if there is no daemon, or the job does not succeed in time, with where to look.
    """
    computer = find_computer(label)
    builder = LabelCalculation.get_builder()
    builder.code = get_engine_code()
    builder.structures = StructureSetData([bulk('Al', cubic=True)])
    builder.calculator = {'calculator': 'emt'}
    builder.metadata.label = 'aiida-oodal setup test'
    builder.metadata.computer = computer
    builder.metadata.options.update({**get_job_options(computer, 'label'), 'max_wallclock_seconds': 300})
    node = submit_process(builder)
    say(f'submitted {node.process_label}<{node.pk}> to {label}')
    end = time.monotonic() + timeout
    state = None
    for _ in follow(node):
        require_daemon(node)
        if not node.is_terminated and time.monotonic() > end:
            raise OodalError(
                f'{node.process_label}<{node.pk}> is still {node.process_state.value} after {timeout:g} s '
                f'({node.process_status}); it goes on. `aiida-oodal doctor` looks for the cause, '
                f'`verdi process report {node.pk}` says what happened so far.'
            )
        if (now := node.get_state()) != state and now is not None:
            say(f'  {now.value}')
        state = now
    if not node.is_finished_ok:
        raise OodalError(
            f'{node.process_label}<{node.pk}> ended with status {node.exit_status}: {node.exit_message} '
            f'See `verdi process report {node.pk}`.'
        )
    say(f'it came back: {node.outputs.labels.get_set().info["REF_energy"][0]:.4f} eV for four atoms of aluminium')
    return node
