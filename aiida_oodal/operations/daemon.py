"""The daemon of the loaded profile and its broker: check them, and repair them after a process was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from aiida import orm
from aiida.brokers.zeromq import ZeromqBroker
from aiida.brokers.zeromq.queue import PersistentQueue
from aiida.engine.daemon.client import get_daemon_client
from aiida.engine.processes.control import get_active_processes
from aiida.manage import get_manager
from aiida.manage.configuration import get_config, get_profile
from aiida.storage.psql_dos.backend import PsqlDosBackend
from plumpy import ProcessState
from plumpy.process_comms import RemoteProcessThreadController, create_continue_body

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.broker import broker_layout, look_at_broker, read_tasks

from .processes import find_stranded

#: Longest that a process may take to be with the broker after it was submitted [s].
_ARRIVAL = 5.0
#: Longest that a `verdi` command about the daemon may take [s]; far above what it takes.
_VERDI_TIMEOUT = 300


def daemon_runs() -> bool:
    """Tell whether the daemon of the loaded profile is alive; AiiDA's own answer is that there is a file with a pid."""
    return any('start-circus' in process.info['cmdline'] for process in find_daemon_processes())


def stop_daemon() -> None:
    """Stop the daemon if it runs; processes stay where they are and go on when it is started again."""
    # Asking one that is not there to stop would wait for `daemon.timeout`.
    if daemon_runs():
        run_verdi('daemon', 'stop')


def start_daemon(workers: int, *, repair: bool) -> None:
    """Start the daemon of the loaded profile afresh.

    :param repair: repair what a kill left: end workers and broker that still run without their daemon, remove the
        address file of a killed broker (workers that read it would never find the new one), and give processes that
        lost their task a new one.
    """
    if repair:
        _end_daemon()
        _forget_killed_broker()
        _replace_lost_tasks()
        run_verdi('process', 'repair', '--force')
    else:
        stop_daemon()
    run_verdi('daemon', 'start', str(workers))


def require_task(process: orm.ProcessNode) -> None:
    """Send a submitted process to the ZeroMQ broker again if it did not arrive.

    A shell, a notebook or a script stays connected to the broker that it found first. Once the daemon is restarted,
    that one is gone, and what is sent to it is lost without an error.

    :raises OodalError: if there is no broker that takes it.
    """
    if _arrives(process):
        return
    # A connection beside that of the runner, which would not survive if its own was closed.
    with suppress(ConnectionError), ZeromqBroker(get_profile()) as broker:
        controller = RemoteProcessThreadController(broker.get_communicator())
        controller.continue_process(process.pk, nowait=False, no_reply=True)
        if _arrives(process):
            return
    raise OodalError(
        f'{process.process_label}<{process.pk}> was stored, but the daemon or its broker is dead and does not take it: '
        '`aiida-oodal doctor --fix` starts them again and gives it its task'
    )


def _arrives(process: orm.ProcessNode) -> bool:
    """Return whether the broker has a task for a process before long, or none is needed."""
    end = time.monotonic() + _ARRIVAL
    while time.monotonic() < end:
        tasks = read_tasks()
        # One that has been begun, or has ended, may have no task any more.
        if tasks is None or process.pk in tasks or process.process_state is not ProcessState.CREATED:
            return True
        time.sleep(0.1)
    return False


class DaemonKeeper:
    """Start the daemon again if it is gone or its workers lost the broker; find workers whose death was missed.

    :param workers: how many it is started with.
    :param say: told what was done, and why.
    """

    def __init__(self, workers: int, say: Callable[[str], None]) -> None:
        self._workers, self._say = workers, say
        self._was_deaf = self._was_unnoticed = False

    def __call__(self) -> None:
        """Check the daemon, and repair it."""
        if not daemon_runs():
            self._restart('The daemon is gone: starting it again')
            return
        broker = look_at_broker()
        deaf = broker is not None and (broker.deaf or not broker.alive)
        # Twice in a row: a daemon that has only just started is deaf for a moment.
        if deaf and self._was_deaf:
            self._restart('The workers have lost the broker: starting the daemon again')
            deaf = False
        self._was_deaf = deaf
        workers = sum('worker' in process.info['cmdline'] for process in find_daemon_processes())
        unnoticed = broker is not None and broker.workers > workers and bool(find_stranded())
        if unnoticed and not self._was_unnoticed:
            self._say('A worker died, and the broker had not noticed: another one goes on with what it had in hand')
        self._was_unnoticed = unnoticed

    def _restart(self, reason: str) -> None:
        self._say(reason)
        start_daemon(self._workers, repair=True)


def find_daemon_processes() -> list[psutil.Process]:
    """Return the processes of the loaded profile's daemon: circus, workers, broker."""
    name, folder = get_profile().name, Path(get_config().dirpath)
    found = []
    for process in psutil.process_iter(['cmdline', 'environ']):
        words, environment = process.info['cmdline'] or [], process.info['environ'] or {}
        if words[-2:] == ['daemon', 'worker'] or {'start-circus', 'broker'} & set(words):
            home = Path(environment.get('AIIDA_PATH') or environment.get('HOME') or os.sep)
            if 'daemon' in words and name in words and folder in (home, home / '.aiida'):
                found.append(process)
    return found


def _end_daemon() -> None:
    """End all of the daemon, also what outlived a killed circus: it would hold tasks that are given out again.

    By signals: workers that lost the broker do not end in the time that `verdi daemon stop` gives them.
    """
    masters = [process for process in find_daemon_processes() if 'start-circus' in process.info['cmdline']]
    children = [child for master in masters for child in master.children()]
    # The master first: it would start again what ends before it.
    _end(masters)
    _end([*children, *find_daemon_processes()])
    # A file with the pid of a killed daemon is a running daemon to AiiDA.
    Path(get_daemon_client().circus_pid_file).unlink(missing_ok=True)


def _end(processes: list[psutil.Process]) -> None:
    """Ask processes to end, and kill those that do not."""
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                end(process)
        _, processes = psutil.wait_procs(processes, timeout=10)


def _forget_killed_broker() -> None:
    """Remove address, pid and status of a broker that was killed; its tasks stay.

    Source: ``aiida.brokers.zeromq``: a worker takes the address that it finds in ``broker.sockets``, once, and a pid
    that now belongs to another process counts as a running broker.
    """
    if look_at_broker() is None:
        return
    layout = broker_layout()
    for path in (layout.sockets_file, layout.pid_file, layout.status_file):
        path.unlink(missing_ok=True)


def _replace_lost_tasks() -> None:
    """Give every active process a task that has none; the daemon must not run.

    `verdi process repair` does so, too, but its tasks end when a worker has read them: were that one killed, the
    process would be lost again, and this time nobody would notice.
    """
    tasks = read_tasks()
    if tasks is None:
        return
    queue = PersistentQueue(broker_layout().storage_path / 'tasks')
    for pk in get_active_processes(project='id'):
        if pk not in tasks:
            queue.push(uuid.uuid4().hex, {'body': create_continue_body(pid=pk, nowait=False), 'no_reply': True})
    # `verdi process repair` ends what it takes for stray connections to PostgreSQL; ours would be one of them.
    if type(get_manager().get_profile_storage()) is PsqlDosBackend:
        get_manager().reset_profile_storage()


def run_verdi(*arguments: str) -> str:
    """Run ``verdi`` on the loaded profile and return what it printed.

    :raises OodalError: if it fails or does not end, with what it printed and how to try by hand.
    """
    by_hand = f'Try it by hand with AIIDA_PATH={get_config().dirpath}'
    command = [str(Path(sys.executable).parent / 'verdi'), '-p', get_profile().name, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_VERDI_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise OodalError(f'`verdi {" ".join(arguments)}` did not end in {_VERDI_TIMEOUT} s. {by_hand}') from error
    if done.returncode:
        raise OodalError(f'`verdi {" ".join(arguments)}` failed:\n{done.stdout}{done.stderr}\n{by_hand}')
    return done.stdout
