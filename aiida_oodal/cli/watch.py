"""``aiida-oodal watch``: follow a campaign in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from .params import PROFILE, ProfileCommand, plain_errors

if TYPE_CHECKING:
    from aiida import orm
    from rich.table import Table

    from aiida_oodal.report.campaign.history import CampaignHistory

_POLL_SECONDS = 1.0
#: How often the activity is looked up and shown: on a terminal in one line that changes, else in a new line.
_ACTIVITY_SECONDS = {True: 3.0, False: 15.0}


@click.command(cls=ProfileCommand)
@click.argument('campaign')
@PROFILE
def watch(campaign: str) -> None:
    """Follow CAMPAIGN (its PK or UUID) until it ends, and show what it learned."""
    from aiida_oodal.operations.campaign.find import find_campaign
    from aiida_oodal.report.campaign.history import read_history

    with plain_errors():
        node = find_campaign(campaign)
        watch_campaign(node)
        show_rounds(read_history(node))


def watch_campaign(campaign: orm.WorkChainNode, keep_alive: Callable[[], None] | None = None) -> None:
    """Print what the campaign reports, and what its jobs are doing, until it ends.

    :param campaign: the process node.
    :param keep_alive: called every few seconds while the campaign runs, to restart the daemon if needed.
    """
    from rich.console import Console

    from aiida_oodal.operations.follow import describe_activity, follow

    console = Console(highlight=False)
    begin = time.monotonic()
    next_look = begin
    with console.status('starting') as status:
        for reports in follow(campaign, _POLL_SECONDS):
            for report in reports:
                console.print(report, markup=False, soft_wrap=True)
            now = time.monotonic()
            if campaign.is_terminated or now < next_look:
                continue
            activity = f'{now - begin:5.0f} s  {describe_activity(campaign)}'
            if console.is_terminal:
                status.update(activity)
            else:
                console.print(activity, markup=False, soft_wrap=True)
            if keep_alive is not None:
                keep_alive()
            next_look = now + _ACTIVITY_SECONDS[console.is_terminal]


def show_rounds(history: CampaignHistory) -> None:
    """Print the table of a campaign: how every walker of every round ended, and the labels and errors of the round."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(rounds_table(history))
    if history.left:
        console.print(history.left, markup=False, soft_wrap=True)


def rounds_table(history: CampaignHistory) -> Table:
    """Return the table, one row a walker."""
    from rich.markup import escape
    from rich.table import Table

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
        table.add_column(escape(column), justify=justify)  # type: ignore[arg-type]
    for entry in history.rounds:
        for index, walker in enumerate(entry.walkers):
            first = index == 0
            table.add_row(
                entry.name if first else '',
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
