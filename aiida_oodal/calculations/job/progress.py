"""Tell in `verdi process report` how far a job is while it runs."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from aiida import orm
from aiida.transports import Transport


def report_progress(node: orm.CalcJobNode, transport: Transport) -> None:
    """Report the last line that a job printed, once: to the process that called the job, or to the job itself.

    A monitor (``aiida.calculations.monitors``) that ends nothing: a file that is not there yet or cannot be read now is
    no reason to pause a job.
    """
    path = PurePosixPath(node.get_remote_workdir() or '') / node.get_option('output_filename')
    last_line = f"tail -n 1 {shlex.quote(str(path))} | tail -c 500 | tr -cd '[:print:]'"
    try:
        status, output, _ = transport.exec_command_wait(last_line)
    except Exception:  # transports raise what their libraries raise; one that is broken is found out by AiiDA itself
        return
    line = output.strip()
    if status != 0 or not line:
        return
    reader = node.caller or node
    label = node.base.attributes.get('metadata_inputs', {}).get('metadata', {}).get('call_link_label')
    text = f'{label or node.process_label}<{node.pk}>: {line}'
    if not orm.QueryBuilder().append(orm.Log, filters={'dbnode_id': reader.pk, 'message': text}).count():
        reader.logger.report(text)
