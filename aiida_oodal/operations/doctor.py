"""Check and repair the daemon, its workers, its broker and the processes of a profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiida.manage import get_manager
from aiida.manage.configuration import get_config_option, get_profile
from aiida.orm import Log

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.broker import BrokerState, look_at_broker

from .daemon import find_daemon_processes, start_daemon
from .processes import (
    close_ended,
    count_active,
    find_begun_without_task,
    find_orphans,
    find_other_users,
    find_paused,
    find_stranded,
    find_unclosed,
    resume_paused,
    revive_orphans,
)

#: Share of the workers' slots above which new processes will soon have to wait.
_FULL = 0.9
#: How many processes a line names.
_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    :param cure: the command that repairs it, if it is broken.
    :param fixable: whether ``doctor --fix`` is that command.
    """

    name: str
    ok: bool
    text: str
    cure: str | None = None
    fixable: bool = False

    def __str__(self) -> str:
        """Return the line, and below it the cure of what is broken."""
        line = f'{"ok " if self.ok else "BAD"} {self.name:<10} {self.text}'
        return line if self.ok or self.cure is None else f'{line}\n    mend it: {self.cure}'


def check_daemon(patience: float = 6.0) -> Iterator[Finding]:
    """Look at broker, daemon, workers and processes of the loaded profile.

    :param patience: seconds that workers may take to connect; the ZeroMQ broker tells its state every 5 s.
    """
    again = f'aiida-oodal doctor --fix -p {get_profile().name}'
    # AiiDA's own answer is that there is a file with a pid: after `kill -9` there is one, too.
    commands = {process.pid: process.info['cmdline'] for process in find_daemon_processes()}
    if not any('start-circus' in words for words in commands.values()):
        text = 'is not running'
        if commands:
            text = f'is dead, and left the processes {", ".join(map(str, sorted(commands)))} behind'
        yield Finding('daemon', False, text, again, fixable=True)
        yield from _check_processes(0)
        return
    workers = sum('worker' in words for words in commands.values())
    yield Finding('daemon', workers > 0, f'runs with {workers} workers', again, fixable=True)
    broker = _check_broker(workers, patience, again)
    yield broker
    yield from _check_processes(workers)
    if broker.ok:
        yield from _check_orphans(again)


def mend_daemon(workers: int, say: Callable[[str], None]) -> list[Finding]:
    """Restart daemon and broker if they do not work, then resume the processes that do not go on by themselves.

    :param workers: how many the daemon is started with.
    :param say: told what was broken and what was done.
    :return: what is found afterwards, as :func:`check_daemon` gives it.
    :raises OodalError: if a shell may be running a process that the repair would give to the workers.
    """
    findings = list(check_daemon())
    if not _is_well(findings):
        for finding in findings:
            if not finding.ok:
                say(str(finding))
        if (begun := find_begun_without_task()) and (users := find_other_users()):
            raise OodalError(
                f'{name_processes(begun)}: these processes have no task, and `{" ".join(users[0].cmdline())}` (PID '
                f'{users[0].pid}) may be running them itself. The repair gives a task to every process, so that they '
                'would run twice. End that program, or wait for its end, then repeat this.'
            )
        say(f'restarting daemon and broker with {workers} workers')
        # `verdi process repair` ends what it takes for stray connections to PostgreSQL; ours would be one of them.
        get_manager().reset_profile_storage()
        start_daemon(workers, repair=True)
        findings = list(check_daemon(patience=20.0))
    if _is_well(findings):
        for done, cure in (('resumed', resume_paused), ('gave a task to', revive_orphans), ('closed', close_ended)):
            if nodes := cure():
                say(f'{done} {name_processes(nodes)}')
                findings = list(check_daemon())
    return findings


def _is_well(findings: list[Finding]) -> bool:
    """Return whether a restart of the daemon would repair nothing."""
    return all(finding.ok for finding in findings if finding.fixable)


def _check_broker(workers: int, patience: float, again: str) -> Finding:
    """Tell whether the broker is there and all workers listen to it."""
    end = time.monotonic() + patience
    state = look_at_broker()
    if state is None:
        return _check_rabbitmq()
    while (not state.alive or state.workers < workers) and time.monotonic() < end:
        time.sleep(0.5)
        state = look_at_broker() or BrokerState(alive=False)
    if not state.alive:
        return Finding('broker', False, 'ZeroMQ is dead', again, fixable=True)
    tasks = f'{state.pending} tasks wait, {state.processing} are worked on'
    if state.workers < workers:
        text = (
            f'ZeroMQ runs, but only {state.workers} of {workers} workers listen to it ({tasks}): it died and came back'
        )
        return Finding('broker', False, text, again, fixable=True)
    if state.workers > workers and (stranded := find_stranded()):
        text = (
            f'ZeroMQ runs, but counts {state.workers} workers where there are {workers}: it has not noticed that one '
            f'died, and what that one had in hand stands still: {name_processes(stranded)}'
        )
        return Finding('broker', False, text, again, fixable=True)
    return Finding('broker', True, f'ZeroMQ runs, {workers} workers listen to it ({tasks})')


def _check_rabbitmq() -> Finding:
    broker = get_manager().get_broker()
    if broker is None:
        return Finding('broker', False, 'the profile has none', 'aiida-oodal setup profile')
    try:
        broker.get_communicator()
    except Exception as error:  # whatever the client library raises
        # With workers that wait for it, it would give tasks out twice.
        cure = 'verdi daemon stop; systemctl restart rabbitmq-server; aiida-oodal doctor --fix'
        return Finding('broker', False, f'{broker} does not answer: {error}', cure)
    return Finding('broker', True, str(broker))


def _check_processes(workers: int) -> Iterator[Finding]:
    """Count what runs, and name what was paused because it failed again and again."""
    count = count_active()
    slots = workers * get_config_option('daemon.worker_process_slots')
    if workers and count > _FULL * slots:
        text = f'{count} are active, {workers} workers take {slots} at a time: parents that wait may hold all of them'
        yield Finding('processes', False, text, f'verdi daemon incr {1 + count // max(slots // workers, 1)}')
    else:
        yield Finding('processes', True, f'{count} are active')
    for node in find_paused():
        since = f'{node.mtime.astimezone():%Y-%m-%d %H:%M}'
        text = f'{node.process_label}<{node.pk}> is paused since {since}: {node.process_status}: {_last_error(node)}'
        cure = f'verdi process report {node.pk}; then verdi process play {node.pk}, or verdi process kill {node.pk}'
        yield Finding('processes', False, text, cure)


def _check_orphans(again: str) -> Iterator[Finding]:
    """Name processes that no worker will run, and those that ended and were not sealed."""
    for nodes, text in (
        (
            find_orphans(),
            'have no task, so no worker goes on with them: the program that submitted or ran them was killed',
        ),
        (find_unclosed(), 'have ended and were not closed, `verdi archive create` would refuse them'),
    ):
        if nodes:
            yield Finding('processes', False, f'{len(nodes)} {text}: {name_processes(nodes)}', again)


def name_processes(nodes: list[Any]) -> str:
    """Return the names of processes, of the first few if there are many."""
    names = ', '.join(f'{node.process_label}<{node.pk}>' for node in nodes[:_NAMED])
    return f'{names} and {len(nodes) - _NAMED} more' if len(nodes) > _NAMED else names


def _last_error(node: Any) -> str:
    """Return the last line of the last error that was reported of a process."""
    errors = [log.message for log in Log.collection.get_logs_for(node) if log.levelname == 'ERROR']
    lines = errors[-1].strip().splitlines() if errors else []
    return lines[-1].strip() if lines else 'no error was reported'
