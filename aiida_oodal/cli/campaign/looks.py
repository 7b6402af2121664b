"""Commands that show campaigns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aiida_oodal.cli.params import PROFILE, ProfileCommand, plain_errors
from aiida_oodal.cli.tables import format_age, wrap

if TYPE_CHECKING:
    from aiida_oodal.operations.campaign.status import CampaignStatus

#: Columns that the names of what `status` shows take.
_INDENT = 12
#: Of how many trainings the error is shown.
_TRAININGS = 8


@click.command('list', cls=ProfileCommand)
@click.option('-n', 'limit', type=click.IntRange(1), default=20, show_default=True, help='How many to print at most.')
@PROFILE
def list_(limit: int) -> None:
    """List campaigns, the last one first.

    \b
    Example: the last five
      aiida-oodal campaign list -n 5
    """  # noqa: D301  click looks for the character, not for its name
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from aiida_oodal.operations.campaign.listing import list_campaigns

    lines = list_campaigns(limit)
    if not lines:
        click.echo('There is no campaign in this profile: `aiida-oodal init` writes a script that begins one')
        return
    table = Table(box=None, pad_edge=False)
    for name in ('PK', 'label', 'state', 'rounds', 'force RMSE [meV/Å]', 'begun'):
        table.add_column(escape(name), overflow='fold')
    for line in lines:
        error = '–' if line.force_rmse is None else f'{line.force_rmse:.1f}'
        age = f'{format_age(line.begun)} ago'
        table.add_row(str(line.pk), escape(line.label), line.state, str(line.rounds), error, age)
    Console(highlight=False).print(table)


@click.command(cls=ProfileCommand)
@click.argument('campaign')
@PROFILE
def status(campaign: str) -> None:
    """Show where CAMPAIGN (its PK or UUID) stands: walkers, queue, labels, error, cost, and what to do if it waits.

    \b
    Example:
      aiida-oodal campaign status 1234
    """  # noqa: D301
    from aiida_oodal.operations.campaign.find import find_campaign
    from aiida_oodal.operations.campaign.status import read_status

    with plain_errors():
        found = read_status(find_campaign(campaign))
    for name, lines in _describe(found):
        for number, line in enumerate(lines):
            click.echo(wrap(line, indent=_INDENT, first='' if number else name))


@click.command(cls=ProfileCommand)
@click.argument('campaigns', nargs=-1, required=True, metavar='CAMPAIGN...')
@click.option('--all', 'everything', is_flag=True, help='All settings, with the defaults of what was not given.')
@PROFILE
def compare(campaigns: tuple[str, ...], everything: bool) -> None:
    """Show campaigns (PKs or UUIDs) side by side: what came out of each, and the settings that differ.

    Of a single one the settings that were given are shown. Defaults are those of the installed version.

    \b
    Example: did the larger basis need fewer rounds
      aiida-oodal campaign compare 1234 1300
    """  # noqa: D301
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from aiida_oodal.operations.campaign.compare import compare_campaigns
    from aiida_oodal.operations.campaign.find import find_campaign

    with plain_errors():
        found = compare_campaigns([find_campaign(campaign) for campaign in campaigns], everything=everything)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column('campaign', overflow='fold', ratio=2)
    for pk in found.pks:
        table.add_column(str(pk), overflow='fold', ratio=2)
    for name, values in found.results:
        table.add_row(escape(name), *map(escape, values))
    table.add_section()
    for name, values in found.settings:
        table.add_row(escape(name), *map(escape, values))
    Console(highlight=False).print(table)
    if len(found.pks) > 1:
        same = f'{found.n_equal} settings are the same in all'
        click.echo(same if found.settings else f'No setting differs; {same}')


def _describe(found: CampaignStatus) -> list[tuple[str, list[str]]]:
    """Return what is shown, by name; what there is nothing of is left out."""
    walkers = [
        f'{walker.name}: {walker.outcome}'
        + ('' if walker.last_step is None else f' at step {walker.last_step}')
        + ('' if walker.max_gamma is None else f', largest γ {walker.max_gamma:.2f}')
        for walker in found.walkers
    ]
    errors = ', '.join('–' if error is None else f'{error:.1f}' for error in found.force_rmse[-_TRAININGS:])
    more = '… ' if len(found.force_rmse) > _TRAININGS else ''
    queue = ', '.join(f'{count} {status}' for status, count in found.queue.items() if count)
    hours = (
        ''
        if found.label_core_hours is None
        else f'; what is labelled cost {found.label_core_hours:.3g} core hours, whoever asked first'
    )
    parts = [
        ('campaign', [f'{found.pk} {found.label}'.strip()]),
        ('state', [found.state]),
        ('begun', [f'{format_age(found.begun)} ago']),
        ('round', [f'{found.round} of at most {found.most_rounds}' + (f', {found.leg}' if found.leg else '')]),
        ('walkers', walkers),
        ('now', found.activity),
        ('queue', [f'{queue}{hours}'] if queue else []),
        ('labels', [f'{found.n_labels} structures with {found.n_atoms:,} atoms']),
        ('cost', [] if found.core_hours is None else [f'{found.core_hours:.3g} core hours of all its jobs that ended']),
        ('force RMSE', [f'{more}{errors} meV/Å on the validation set'] if any(found.force_rmse) else []),
        ('learned', [found.learned] if found.learned else []),
        ('guard', found.guard),
        ('audit', found.audit),
        ('calibration', found.calibration),
        ('failed', found.failed),
        ('last said', found.reports),
        ('to do', found.advice),
    ]
    return [(name, lines) for name, lines in parts if lines]
