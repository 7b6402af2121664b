"""One small job, from the daemon through the scheduler and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiida_oodal.engine.errors import OodalError


def run_test_job(label: str, timeout: float, say: Callable[[str], None]) -> Any:
    """Label four atoms of aluminium by EMT on a computer, through the daemon.

    :param timeout: seconds after which the job is left to itself.
    :returns: the process.
    :raises OodalError: if there is no daemon, or the job does not succeed in time, with where to look.
    """
    from aiida.engine import submit
    from aiida.engine.daemon.client import get_daemon_client
    from ase.build import bulk

    from aiida_oodal.calculations.engine_code import get_engine_code
    from aiida_oodal.calculations.job_options import get_job_options
    from aiida_oodal.calculations.label import LabelCalculation
    from aiida_oodal.data import StructureSetData

    from .setup_codes import find_computers

    (computer,) = find_computers(label)
    if not get_daemon_client().is_daemon_running:
        raise OodalError('no daemon is running: `verdi daemon start 2`, then repeat')
    builder = LabelCalculation.get_builder()
    builder.code = get_engine_code()
    builder.structures = StructureSetData([bulk('Al', cubic=True)])
    builder.reference = {'calculator': 'emt'}
    builder.metadata.label = 'aiida-oodal setup test'
    builder.metadata.computer = computer
    builder.metadata.options.update({**get_job_options(computer, 'label'), 'max_wallclock_seconds': 300})
    node = submit(builder)
    say(f'submitted {node.process_label}<{node.pk}> to {label}')
    end = time.monotonic() + timeout
    state = None
    while not node.is_terminated:
        if time.monotonic() > end:
            raise OodalError(
                f'{node.process_label}<{node.pk}> is still {node.process_state.value} after {timeout:g} s '
                f'({node.process_status}); it goes on. `aiida-oodal doctor` looks for the cause, '
                f'`verdi process report {node.pk}` says what happened so far.'
            )
        if (now := node.get_state()) != state and now is not None:
            say(f'  {now.value}')
        state = now
        time.sleep(0.5)
    if not node.is_finished_ok:
        raise OodalError(
            f'{node.process_label}<{node.pk}> ended with status {node.exit_status}: {node.exit_message} '
            f'See `verdi process report {node.pk}`.'
        )
    say(f'it came back: {node.outputs.labels.get_set().info["REF_energy"][0]:.4f} eV for four atoms of aluminium')
    return node
