"""Submitting from launch scripts that can be run twice."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiida import orm
from aiida.engine import ProcessBuilder, submit
from aiida.engine.daemon.client import get_daemon_client

from aiida_oodal.engine.errors import OodalError


def submit_once(label: str, build: Callable[[], ProcessBuilder]) -> orm.ProcessNode:
    """Submit a process, or return the one that an earlier call submitted under the same label.

    One that was killed or excepted is not counted: it is submitted anew.

    :param label: what the process is called; one label, one process.
    :param build: makes the filled builder; not called when the process is there, so that no input is made twice.
    """
    existing = (
        orm.QueryBuilder()
        .append(
            orm.ProcessNode,
            filters={'label': label, 'attributes.process_state': {'!in': ['killed', 'excepted']}},
            tag='process',
        )
        .order_by({'process': {'id': 'desc'}})
        .first(flat=True)
    )
    if existing is not None:
        return existing
    builder = build()
    builder.metadata.label = label
    return submit(builder)


def wait_for(process: orm.ProcessNode, poll_seconds: float = 0.5) -> orm.ProcessNode:
    """Return a process once the daemon has brought it to its end.

    :raises OodalError: if it did not succeed, with its exit message, or if there is no daemon to bring it anywhere.
    """
    daemon = get_daemon_client()
    while not process.is_terminated:
        if not daemon.is_daemon_running:
            raise OodalError(
                f'{process.process_label}<{process.pk}> waits for a daemon, and none is running: `verdi daemon start`, '
                'then run this again'
            )
        time.sleep(poll_seconds)
    if not process.is_finished_ok:
        raise OodalError(
            f'{process.process_label}<{process.pk}> did not succeed: '
            f'{process.exit_message or process.process_state.value} See `verdi process report {process.pk}`.'
        )
    return process
