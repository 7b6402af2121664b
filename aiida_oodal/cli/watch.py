"""Follow a campaign in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from aiida import orm
from aiida.common.datastructures import CalcJobState
from aiida.common.links import LinkType
from rich.console import Console
from rich.table import Table

from aiida_oodal.report.history import CampaignHistory, read_history

_POLL_SECONDS = 1.0
#: How often the activity is looked up and shown: on a terminal in one line that changes, else in a new line.
_ACTIVITY_SECONDS = {True: 3.0, False: 15.0}


def watch_campaign(campaign: orm.WorkChainNode, keep_alive: Callable[[], None] | None = None) -> None:
    """Print what the campaign reports, and what its jobs are doing, until it ends.

    :param campaign: the process node.
    :param keep_alive: called every few seconds while the campaign runs, to mend what it runs on.
    """
    console = Console(highlight=False)
    begin = time.monotonic()
    seen = 0
    next_look = begin
    with console.status('starting') as status:
        while True:
            terminated = campaign.is_terminated
            seen = _print_reports(console, campaign, seen)
            if terminated:
                break
            now = time.monotonic()
            if now >= next_look:
                activity = f'{now - begin:5.0f} s  {describe_activity(campaign)}'
                if console.is_terminal:
                    status.update(activity)
                else:
                    console.print(activity, markup=False, soft_wrap=True)
                if keep_alive is not None:
                    keep_alive()
                next_look = now + _ACTIVITY_SECONDS[console.is_terminal]
            time.sleep(_POLL_SECONDS)


def _print_reports(console: Console, campaign: orm.WorkChainNode, seen: int) -> int:
    """Print the campaign's own reports that have not been printed, and return the last one's id."""
    query = orm.QueryBuilder().append(
        orm.Log, filters={'dbnode_id': campaign.pk, 'id': {'>': seen}}, project=['id', 'message'], tag='log'
    )
    for identifier, message in query.order_by({'log': {'id': 'asc'}}).iterall():
        # A report reads "[pk|class|step]: text"; the text is what a user wants.
        console.print(message.split(']: ', 1)[-1], markup=False, soft_wrap=True)
        seen = identifier
    return seen


def describe_activity(campaign: orm.WorkChainNode) -> str:
    """Say in one line what the running jobs of a campaign are doing."""
    active = {'attributes.process_state': {'in': ['created', 'waiting', 'running']}}
    jobs = orm.QueryBuilder().append(orm.CalcJobNode, filters=active, tag='job').order_by({'job': {'id': 'asc'}})
    calls = ((_call_of(campaign, job), job) for job in jobs.all(flat=True))
    texts = [f'{call}: {_describe_job(job)}' for call, job in calls if call is not None]
    return ';  '.join(texts) or 'the daemon is taking the next step'


def _describe_job(job: orm.CalcJobNode) -> str:
    """Return the last line of a job's output where that is on this machine, else its state.

    Of a job that the scheduler has it is the scheduler's word; a paused one waits for somebody, whatever its state.
    """
    if job.paused:
        return 'paused, `aiida-oodal doctor` says why'
    path = Path(job.get_remote_workdir() or '') / (job.get_option('output_filename') or '')
    if job.computer.transport_type == 'core.local' and path.is_file():
        lines = path.read_text(encoding='utf-8', errors='replace').strip().splitlines()
        if lines:
            return lines[-1]
    state = job.get_state()
    if state is None:
        return 'waits for a worker'
    scheduler = job.get_scheduler_state() if state is CalcJobState.WITHSCHEDULER else state
    return 'submitted' if scheduler is None else str(scheduler.value)


def _call_of(campaign: orm.WorkChainNode, job: orm.CalcJobNode) -> str | None:
    """Return the name of the campaign's call that a job belongs to, as ``explore 2 hot``; None for other jobs."""
    node = job
    while (caller := node.caller) is not None:
        if caller.pk == campaign.pk:
            links = node.base.links.get_incoming(link_type=(LinkType.CALL_CALC, LinkType.CALL_WORK))
            return str(links.first().link_label).replace('_', ' ')
        node = caller
    return None


def show_rounds(campaign: orm.WorkChainNode) -> None:
    """Print the table of a campaign: what every walker of every round met, and what was learned from it."""
    console = Console(highlight=False)
    console.print(rounds_table(read_history(campaign)))


def rounds_table(history: CampaignHistory) -> Table:
    """Return the table, one row a walker."""
    table = Table(title=f'Campaign {history.pk}: {history.state}')
    for column, justify in (
        ('round', 'right'),
        ('force RMSE [meV/Å]', 'right'),
        ('walker', 'left'),
        ('outcome', 'left'),
        ('at step', 'right'),
        ('largest γ', 'right'),
        ('clusters labelled', 'right'),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for entry in history.rounds:
        for index, walker in enumerate(entry.walkers):
            first = index == 0
            table.add_row(
                str(entry.number) if first else '',
                _number(entry.force_rmse, '.1f') if first else '',
                walker.name,
                walker.outcome,
                _number(walker.last_step, 'd'),
                _number(walker.max_gamma, '.2f'),
                str(entry.n_labelled) if first else '',
            )
        table.add_section()
    return table


def _number(value: float | int | None, form: str) -> str:
    return '–' if value is None else format(value, form)
