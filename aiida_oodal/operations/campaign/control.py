"""Campaigns as a whole: stop them, and let all their processes pause and go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aiida import orm
from aiida.engine.processes.control import ProcessTimeoutException, pause_processes, play_processes

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.launch import require_daemon
from aiida_oodal.operations.processes import find_active
from aiida_oodal.workchains.calls import STOP

#: Longest that workers may take to answer [s].
_ANSWER = 60.0
_PAUSED = 'paused by `aiida-oodal campaign pause`'


def ask_to_stop(campaign: orm.WorkChainNode, reason: str = '') -> None:
    """Ask a campaign to stop before its next round: what its present round learns is kept.

    :raises OodalError: if it has ended.
    """
    _require_running(campaign)
    campaign.base.extras.set(STOP, reason)


def pause_campaign(campaign: orm.WorkChainNode) -> list[Any]:
    """Pause the WorkChains of a campaign, so that nothing new begins, and return them.

    Jobs are not paused: in AiiDA 2.9 one that waits for its scheduler gets a request that was cancelled when it is
    played again, fails five times and is paused for good (``JobsList.request_job_info_update``).

    :raises OodalError: if it has ended, or nobody answers.
    """
    _require_running(campaign)
    processes = [node for node in _find_processes(campaign) if isinstance(node, orm.WorkChainNode) and not node.paused]
    _tell(pause_processes, campaign, processes, msg_text=_PAUSED)
    return processes


def resume_campaign(campaign: orm.WorkChainNode) -> tuple[list[Any], bool]:
    """Let a campaign and its paused processes go on, and forget that it was asked to stop.

    :return: what goes on, and whether it had been asked to stop.
    :raises OodalError: if it has ended, or nobody answers.
    """
    _require_running(campaign)
    was_stopping = campaign.base.extras.get(STOP, None) is not None
    if was_stopping:
        campaign.base.extras.delete(STOP)
    processes = [node for node in _find_processes(campaign) if node.paused]
    _tell(play_processes, campaign, processes)
    return processes, was_stopping


def _tell(control: Callable[..., None], campaign: orm.WorkChainNode, processes: list[Any], **options: Any) -> None:
    """Tell processes to pause or to go on.

    :raises OodalError: if no daemon runs, or its workers do not answer.
    """
    if not processes:
        return
    require_daemon(campaign)
    try:
        control(processes, timeout=_ANSWER, **options)
    except ProcessTimeoutException as error:
        raise OodalError(
            f'the workers did not answer within {_ANSWER:g} s: `aiida-oodal doctor` says whether they run, then repeat '
            'this'
        ) from error


def _find_processes(campaign: orm.WorkChainNode) -> list[Any]:
    """Return a campaign and the processes that belong to it and have not ended, callers first."""
    return [node for node in find_active() if any(caller.pk == campaign.pk for caller in _callers(node))]


def _callers(node: Any) -> Iterator[Any]:
    """Yield a process, its caller, the caller of that, ..."""
    while node is not None:
        yield node
        node = node.caller


def _require_running(campaign: orm.WorkChainNode) -> None:
    if campaign.is_terminated:
        raise OodalError(
            f'{campaign.process_label}<{campaign.pk}> has ended: `aiida-oodal campaign extend {campaign.pk}` goes on '
            'with what it learned'
        )
