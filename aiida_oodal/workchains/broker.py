"""The ZeroMQ broker of the loaded profile: whether it works, and which tasks it keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil
from aiida.brokers.zeromq import ZeromqBroker
from aiida.brokers.zeromq.service import ZeromqBrokerService
from aiida.manage import get_manager
from aiida.manage.configuration import get_config, get_profile


@dataclass(frozen=True)
class BrokerState:
    """What the ZeroMQ broker says of itself.

    :param alive: whether its process is there.
    :param pending: tasks that no worker has taken.
    :param processing: tasks that workers hold.
    :param workers: workers that listen to it.
    """

    alive: bool
    pending: int = 0
    processing: int = 0
    workers: int = 0

    @property
    def deaf(self) -> bool:
        """Whether tasks wait and no worker listens: the workers do not know the address of the restarted broker."""
        return self.alive and self.pending > 0 and self.workers == 0


def look_at_broker() -> BrokerState | None:
    """Return the state of the loaded profile's broker; None where it is not ZeroMQ."""
    broker = get_manager().get_broker()
    if not isinstance(broker, ZeromqBroker):
        return None
    if not broker.check_service_reachable():
        return BrokerState(alive=False)
    status = broker.probe_service_status()
    # A broker that was killed leaves its last status behind, until the next one has written its own.
    if not psutil.pid_exists(int(status.get('pid') or -1)):
        return BrokerState(alive=True)
    return BrokerState(
        alive=True,
        pending=int(status.get('pending_tasks') or 0),
        processing=int(status.get('processing_tasks') or 0),
        workers=int(status.get('task_subscribers') or 0),
    )


def read_tasks(folders: Sequence[str] = ('pending', 'processing', 'pending')) -> set[int] | None:
    """Return the processes for which the ZeroMQ broker has a task, in hand or not; None where it is not ZeroMQ.

    From its files, while it runs: AiiDA's own reader (``iterate_tasks``) puts all that are in hand back into the queue.

    :param folders: of the broker, in which they are looked for; a task moves from one to the other and back.
    """
    if look_at_broker() is None:
        return None
    layout = broker_layout()
    found = set()
    for folder in folders:
        for path in (layout.storage_path / 'tasks' / folder).glob('*.json'):
            with suppress(FileNotFoundError):
                found.add(json.loads(path.read_text())['body'].get('args', {}).get('pid'))
    return found - {None}


def broker_layout() -> ZeromqBrokerService.FilepathLayout:
    """Return where the ZeroMQ broker of the loaded profile keeps its files."""
    paths = get_config().filepaths(get_profile())['broker_service']
    return ZeromqBrokerService.FilepathLayout(paths['dir'], log_file_path=paths['log'])
