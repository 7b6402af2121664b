"""Whether a round passes, whether the walks get harder then, and whether the campaign has converged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessSpec

from aiida_oodal.engine.trust.convergence import ConvergenceSettings
from aiida_oodal.workchains.calls import Leg
from aiida_oodal.workchains.explore import has_completed

from .budget import BudgetedRounds
from .schedule import count_legs, reseed, settings_of_leg
from .signs import explain_going_on

#: What ended a campaign, in its output `convergence`, by exit code; one that has converged was ended by its walkers.
_ENDED_BY = {
    'ERROR_BUDGET_SPENT': 'budget',
    'ERROR_STOPPED': 'stop',
    'ERROR_VALIDATION_FLAT': 'validation',
    'ERROR_NOT_PROMOTED': 'guard',
}


def define_convergence(spec: ProcessSpec) -> None:
    """Define inputs, output and exit code."""
    spec.input(
        'convergence',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Dict({}),
        validator=lambda node, _: ConvergenceSettings.check(node.get_dict()),
        help='Fields of `aiida_oodal.engine.trust.convergence.ConvergenceSettings`: how many rounds in a row have to '
        'pass, how small gamma is then, and when the error on the validation set counts as flat.',
    )
    spec.input(
        'initial.progress',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        required=False,
        validator=_validate_progress,
        help='Where the campaign stood that this one goes on with: {"leg": 2, "reseeded": 3}, the leg of the schedule '
        'to begin with, and how often the velocities of the walkers were changed.',
    )
    spec.output(
        'convergence',
        valid_type=orm.Dict,
        required=False,
        help='`converged`; `ended_by`: walkers, validation, budget, stop, guard, audit or error; the `reason` in '
        'words; `leg` of `legs`, where the campaign stood; `passed`, the rounds that passed, with their `leg`; '
        '`in_a_row`, how many of these are the last ones of that leg; `reseeded`, how often the velocities of the '
        'walkers were changed.',
    )
    spec.exit_code(
        505,
        'ERROR_VALIDATION_FLAT',
        message='the force error on the validation set stopped falling ({errors} meV/angstrom in the last trainings), '
        'and {open}: more labels of this kind do not help. The last potential and all labels are attached. {go_on}',
    )


def _validate_progress(node: orm.Dict | None, _: Any) -> str | None:
    values = {} if node is None else node.get_dict()
    known = {'leg': 1, 'reseeded': 0}
    for name, value in values.items():
        if name not in known or isinstance(value, bool) or not isinstance(value, int) or value < known[name]:
            return f'initial.progress: {name} = {value!r}: give whole numbers, `leg` from 1 and `reseeded` from 0'
    return None


class ConvergingRounds(BudgetedRounds):
    """Decide after each round whether it passed, which leg the next one belongs to, and whether the campaign ends.

    Mixed into :class:`.CampaignWorkChain`. In ``ctx``, ``passed`` is whether the present round passed, ``converged``
    whether the campaign has.
    """

    def setup_convergence(self) -> None:
        """Fill the context."""
        progress = self.inputs.initial.progress.get_dict() if 'progress' in self.inputs.initial else {}
        self.ctx.passed = self.ctx.halted = self.ctx.converged = False
        self.ctx.leg, self.ctx.reseeded = progress.get('leg', 1), progress.get('reseeded', 0)
        #: How many rounds in a row have passed in this leg; all that passed; where the errors of this leg begin.
        self.ctx.in_a_row, self.ctx.passes, self.ctx.first_error = 0, [], 0
        #: Of the walkers of this round that ran to their end, by name, gamma that is too large for it to pass.
        self.ctx.doubtful = {}
        #: Exit code and reason of the end.
        self.ctx.ended_by, self.ctx.reason = 'error', 'the exit message says why'

    def prepare_walker(self, walker: Mapping[str, Any], shift: int) -> dict[str, Any]:
        """Return the inputs of MD of a walker in this leg.

        :param shift: how often its velocities are changed, beside once for each round that passed.
        """
        own = walker['settings']
        settings = reseed(settings_of_leg(walker, self.ctx.leg), self.ctx.reseeded + shift)
        return {
            'structure': walker['structure'],
            'settings': own if settings == own.get_dict() else orm.Dict(settings),
        }

    def describe_leg(self) -> dict[str, Any]:
        """Return the inputs of explorations that depend on the schedule and on what is asked of gamma."""
        inputs: dict[str, Any] = {}
        if self._legs > 1:
            inputs['metadata'] = AttributeDict({'description': str(self.leg)})
        if self.convergence.gamma is not None:
            inputs['convergence'] = self.inputs.convergence
        return inputs

    def judge_walks(self, explorers: Mapping[str, orm.WorkChainNode]) -> None:
        """Note whether all walkers ran to their end, and whose gamma was too large on its way."""
        completed = {name: node for name, node in explorers.items() if has_completed(node)}
        found = {
            name: self.convergence.find_doubtful(node.outputs.series.get_array('max_gamma'))
            for name, node in completed.items()
        }
        self.ctx.doubtful = {name: gamma for name, gamma in found.items() if gamma is not None}
        for name, gamma in self.ctx.doubtful.items():
            self.report(f'round {self.ctx.round}, walker {name}: {self._describe_gamma(gamma)}')
        self.ctx.halted = len(completed) < len(explorers)
        self.ctx.passed = not self.ctx.halted and not self.ctx.doubtful

    def is_last_pass(self) -> bool:
        """Return whether the campaign has converged if this round passes."""
        return bool(self.ctx.leg >= self._legs and self.ctx.in_a_row + 1 >= self.convergence.rounds)

    def conclude_round(self) -> None:
        """If the round passed, go on with the next leg, or with other velocities; the campaign may have converged."""
        if not self.ctx.passed:
            self.ctx.in_a_row = 0
            return
        self.ctx.converged = self.is_last_pass()
        self.ctx.in_a_row += 1
        self.ctx.passes.append({'leg': self.ctx.leg, 'round': self.ctx.round})
        self.ctx.reseeded += 1
        if self.ctx.converged:
            return
        if self.ctx.in_a_row < self.convergence.rounds:
            self.report(f'round {self.ctx.round}: {self._describe_row()}')
            return
        self.ctx.leg, self.ctx.in_a_row = self.ctx.leg + 1, 0
        self.ctx.first_error = max(len(self.known_errors) - 1, 0)
        self.report(f'round {self.ctx.round}: every walker ran to its end; going on with {self.leg}')

    def find_end(self) -> tuple[str, dict[str, Any]] | None:
        """Return why no further round begins: what there is of :class:`.BudgetedRounds`, or no progress."""
        found = super().find_end()
        errors = self.known_errors[self.ctx.first_error :]
        if found is not None or self.ctx.passed or not self.convergence.is_flat(errors):
            return found
        last = errors[-self.convergence.flat_rounds - 1 :]
        return 'ERROR_VALIDATION_FLAT', {'errors': ', '.join(f'{error:.1f}' for error in last)}

    def explain_open(self) -> str:
        """Say what is missing to convergence, for the exit message of a campaign that ended without it."""
        where = f' in {self.leg}' if self._legs > 1 else ''
        if not self.ctx.round:
            return 'no walker was sent out'
        if self.ctx.passed:
            return self._describe_row() if self.ctx.in_a_row else f'{self.leg} was not begun'
        if self.ctx.halted:
            return f'walkers still halt{where}'
        if self.ctx.doubtful:
            name, gamma = next(iter(self.ctx.doubtful.items()))
            return f'of walker {name!r}{where}, which ran to its end, {self._describe_gamma(gamma)}'
        return f'walkers{where} ran to their end and failed the audit'

    def note_end(self, code: ExitCode | None) -> None:
        """Note what ends the campaign.

        :param code: its exit code; None if it has converged.
        """
        if code is None:
            last = f' of {self.leg}' if self._legs > 1 else ''
            row = f', {self.ctx.in_a_row} times in a row' if self.ctx.in_a_row > 1 else ''
            self.ctx.ended_by = 'walkers'
            self.ctx.reason = f'every walker ran to its end in round {self.ctx.round}{last}{row}'
            return
        labels = {known.status: label for label, known in self.exit_codes.items()}
        self.ctx.ended_by = _ENDED_BY[labels[code.status]]
        self.ctx.reason = code.message.removesuffix(explain_going_on(self.ctx.learned, self.node.pk)).strip()

    def attach_convergence(self) -> None:
        """Attach the output `convergence`."""
        found = {
            'converged': self.ctx.ended_by == 'walkers',
            'ended_by': self.ctx.ended_by,
            'reason': self.ctx.reason,
            'leg': self.ctx.leg,
            'legs': self._legs,
            'passed': list(self.ctx.passes),
            'in_a_row': self.ctx.in_a_row,
            'reseeded': self.ctx.reseeded,
        }
        self.out('convergence', orm.Dict(found).store())

    @property
    def convergence(self) -> ConvergenceSettings:
        """When the campaign has converged."""
        return ConvergenceSettings.load(self.inputs.convergence.get_dict())

    @property
    def leg(self) -> Leg:
        """The leg of the schedule in which the campaign is."""
        return Leg(self.ctx.leg, self._legs)

    @property
    def known_errors(self) -> list[float]:
        """Force errors on the validation set of what was promoted, in its order, meV/angstrom."""
        return [error for error in self.ctx.errors if error is not None]

    @property
    def _legs(self) -> int:
        return count_legs(self.inputs.walkers)

    def _describe_row(self) -> str:
        where = f' in {self.leg}' if self._legs > 1 else ''
        return f'{self.ctx.in_a_row} of {self.convergence.rounds} rounds in a row passed{where}'

    def _describe_gamma(self, gamma: float) -> str:
        settings = self.convergence
        return f'gamma is {gamma:.3g} at its quantile {settings.gamma_quantile:g} (limit {settings.gamma:g})'
