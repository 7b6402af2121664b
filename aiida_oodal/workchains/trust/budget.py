"""When a campaign ends although walkers still halt: its budget is spent, or somebody asked it to stop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, ProcessSpec

from aiida_oodal.calculations.job.cost import count_core_hours
from aiida_oodal.engine.trust.budget import Budget
from aiida_oodal.queue import QueueStatus, find_entries
from aiida_oodal.workchains.calls import STOP
from aiida_oodal.workchains.campaign_inputs import own_parts
from aiida_oodal.workchains.resuming import ResumingWorkChain

from .signs import explain_going_on


def define_budget(spec: ProcessSpec) -> None:
    """Define inputs and exit codes."""
    spec.input(
        'max_rounds',
        valid_type=orm.Int,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Int(10),
        validator=lambda node, _: None if node.value > 0 else f'max_rounds must be at least 1, got {node.value}',
        help='The budget: the largest number of rounds.',
    )
    spec.input(
        'budget',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        required=False,
        validator=lambda node, _: None if node is None else Budget.check(node.get_dict()),
        help='Fields of `aiida_oodal.engine.trust.budget.Budget`: labels, labelled_atoms, core_hours, hours, failures. '
        'When one of them is spent, no further round begins.',
    )
    spec.exit_code(
        501,
        'ERROR_BUDGET_SPENT',
        message='the budget is spent ({spent}) and {open}: the last potential and all labels are attached. {go_on}',
    )
    spec.exit_code(
        504,
        'ERROR_STOPPED',
        message='stopped after round {round}, because somebody asked for it{reason}: the last potential and all labels '
        'are attached. {go_on}',
    )


class BudgetedRounds(ResumingWorkChain):
    """Count what was spent, and say when no further round may begin.

    Mixed into :class:`.CampaignWorkChain`, which has ``inputs`` and ``explain_open``, and in ``ctx`` what it has
    ``learned``, its ``round``, its ``labels``, and whether it has ``converged``.
    """

    def should_explore(self) -> bool:
        """Return whether the campaign has not converged, the budget is not spent, and nobody said stop."""
        self.ctx.end = None if self.ctx.converged else self.find_end()
        return not self.ctx.converged and self.ctx.end is None

    def explain_end(self) -> ExitCode:
        """Return the exit code of a campaign that ended before it converged."""
        label, values = self.ctx.end
        go_on = explain_going_on(self.ctx.learned, self.node.pk)
        code: ExitCode = self.exit_codes[label].format(**values, open=self.explain_open(), go_on=go_on)
        return code

    def find_end(self) -> tuple[str, dict[str, Any]] | None:
        """Return why no further round begins, as an exit code and the values of its message; None if one does."""
        reason = self.node.base.extras.get(STOP, None)
        if reason is not None:
            return 'ERROR_STOPPED', {'round': self.ctx.round, 'reason': f' ({reason})' if reason else ''}
        most = self.inputs.max_rounds.value
        rounds = [f'{self.ctx.round} of {most} rounds'] if self.ctx.round >= most else []
        budget = Budget.load(self.inputs.budget.get_dict() if 'budget' in self.inputs else {})
        spent = rounds + budget.find_spent(self._count_spent(budget.limits()))
        return ('ERROR_BUDGET_SPENT', {'spent': ', '.join(spent)}) if spent else None

    def _count_spent(self, wanted: set[str]) -> dict[str, float]:
        """Return what this campaign has spent so far, of what is asked for and known."""
        own = own_parts(self.ctx.labels).values()
        counts: dict[str, Callable[[], float | None]] = {
            'labels': lambda: sum(node.n_structures for node in own),
            'labelled_atoms': lambda: sum(node.n_atoms for node in own),
            'core_hours': lambda: count_core_hours(self.node),
            'hours': lambda: (datetime.now(UTC) - self.node.ctime).total_seconds() / 3600.0,
            'failures': lambda: len(find_entries(QueueStatus.FAILED, campaign=self.node.uuid)),
        }
        spent = {name: counts[name]() for name in wanted}
        return {name: value for name, value in spent.items() if value is not None}
