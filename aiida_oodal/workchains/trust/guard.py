"""The training steps of a campaign, and the guard: whether the next round uses what was trained in this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.common.links import LinkType
from aiida.engine import ExitCode, ProcessSpec, ToContext

from aiida_oodal.calculations.labels import unpack
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.trust.guard import (
    ANCHOR,
    VALIDATION,
    GuardSettings,
    Worsening,
    factors_by_part,
    find_forbidden,
    find_worsened,
)
from aiida_oodal.workchains.calls import Call, Stage
from aiida_oodal.workchains.resuming import ResumingWorkChain
from aiida_oodal.workchains.stages import load_trainer
from aiida_oodal.workchains.train.base import get_learned

from .signs import GOT_WORSE, NOT_PROMOTED, explain_going_on, explain_refused, explain_rise


def define_guard(spec: ProcessSpec) -> None:
    """Define inputs, output and exit code of the guard."""
    spec.input(
        'guard',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Dict({}),
        validator=lambda node, _: GuardSettings.check(node.get_dict()),
        help='Fields of `aiida_oodal.engine.trust.guard.GuardSettings`: when a new potential or ensemble counts as '
        'worse than the one before, and what happens then.',
    )
    spec.input_namespace(
        'anchors',
        valid_type=StructureSetData,
        dynamic=True,
        required=False,
        help='Labelled sets by any key. They are never trained on: the guard compares the force errors on them before '
        'and after each training, as it does for the validation set and the training sets.',
    )
    spec.output(
        'guard',
        valid_type=orm.Dict,
        required=False,
        help='`rounds` has for each round: `promoted`, whether the next round used what was trained; `trained_again`; '
        'and `worse`, the labelled sets on which the force error (eV/angstrom) rose beyond the tolerance. `learned_in` '
        'is the round of the output `learned`, and `refused` lists the rounds after it.',
    )
    spec.exit_code(
        503,
        'ERROR_NOT_PROMOTED',
        message='every walker ran to its end in round {round}, but with the potential or ensemble of round {learned}: '
        'what was trained later is worse on {worse}. Both are kept, and all labels are attached. Let the trainer make '
        'a larger potential (see its settings) or raise `tolerance` in `guard`. {go_on}',
    )


class GuardedTraining(ResumingWorkChain):
    """Train, compare with what was learned before, train once more with other weights, and promote or refuse.

    Mixed into :class:`.CampaignWorkChain`, which has ``inputs``, ``ctx.labels``, ``ctx.training``, ``ctx.round`` and
    ``_fail``. What is
    promoted is in ``ctx.learned``, and the walkers of the next round use it. The results of the promoted training are
    in ``ctx.results``.
    """

    def setup_guard(self) -> None:
        """Fill the context; the errors of the initial potential are known if it was trained in this database."""
        sets = dict(self.ctx.labels) | self._anchors()
        if 'validation' in self.inputs:
            sets[VALIDATION] = self.inputs.validation
        #: Round of the last promotion.
        self.ctx.learned_in = 0
        #: Errors that the next training is compared with: those of the promoted one, for each labelled set.
        #: Plain values.
        self.ctx.standard = find_standard(self.inputs.initial.get('potential'), sets)
        #: Inputs of the trainer that differ from those of the user since a training was worse than the one before,
        #: and those for the second training of this round.
        self.ctx.changed, self.ctx.again = {}, None
        #: By round, what the guard found.
        self.ctx.verdicts = {}
        #: Force errors on the validation set of everything that was promoted, in its order.
        self.ctx.errors = []

    @property
    def refused(self) -> list[int]:
        """The rounds since the last promotion whose training was refused."""
        return [number for number in sorted(map(int, self.ctx.verdicts)) if number > self.ctx.learned_in]

    def run_train(self) -> ToContext:
        """Submit the trainer with all labels so far."""
        return ToContext(train=self._submit_training(Stage.TRAIN, self.ctx.changed))

    def inspect_train(self) -> ExitCode | None:
        """Promote the training if it is not worse than the one before, else prepare another with other weights."""
        train = self.ctx.train
        self.ctx.again = None
        if not train.is_finished_ok:
            code: ExitCode = self._fail('ERROR_TRAINING_FAILED', train)
            return code
        worse = self._compare(train)
        if not find_forbidden(worse, self._guard):
            self._promote(train, worse)
            return None
        trainer = load_trainer(self.inputs.train.workflow.value)
        changes = trainer.stricter(self._training_inputs(self.ctx.changed), factors_by_part(worse))
        if changes is None:
            self._refuse(worse, again=False)
            return None
        self.ctx.again = {name: node if node.is_stored else node.store() for name, node in changes.items()}
        self.report(f'round {self.ctx.round}: training once more with other {", ".join(sorted(changes))}')
        return None

    def should_train_again(self) -> bool:
        """Return whether another training with other weights was prepared."""
        return self.ctx.again is not None

    def run_train_again(self) -> ToContext:
        """Submit the trainer with the same labels and other weights."""
        return ToContext(retrain=self._submit_training(Stage.RETRAIN, {**self.ctx.changed, **self.ctx.again}))

    def inspect_train_again(self) -> None:
        """Promote this training or keep the one before it; later trainings use its weights if it succeeded."""
        train = self.ctx.retrain
        if not train.is_finished_ok:
            self.report(f'round {self.ctx.round}: {train.exit_message or train.process_state.value}')
            train = self.ctx.train
        else:
            self.ctx.changed = {**self.ctx.changed, **self.ctx.again}
        worse = self._compare(train)
        if find_forbidden(worse, self._guard):
            self._refuse(worse, again=True)
        else:
            self._promote(train, worse, again=True)

    def explain_refusals(self) -> str:
        """Return sentences about the trainings that were not promoted, empty if there are none."""
        if not self.refused:
            return ''
        last = self.ctx.verdicts[str(self.refused[-1])]['sentences']
        return (
            f'What was learned in round {", ".join(map(str, self.refused))} was not promoted, because it is worse than '
            f'that of round {self.ctx.learned_in} ({"; ".join(last)}): let the trainer make a larger potential (see '
            'its settings), or raise `tolerance` in `guard`, or let walkers use it (`action: tell`).'
        )

    def refuse_convergence(self) -> ExitCode:
        """Return the exit code: all walkers completed, but the last trainings were not promoted."""
        worse = '; '.join(self.ctx.verdicts[str(self.refused[-1])]['sentences'])
        code: ExitCode = self.exit_codes.ERROR_NOT_PROMOTED.format(
            round=self.ctx.round,
            learned=self.ctx.learned_in,
            worse=worse,
            go_on=explain_going_on(self.ctx.learned, self.node.pk),
        )
        return code

    def attach_guard(self) -> None:
        """Attach the output `guard`."""
        rounds = {number: dict(verdict) for number, verdict in self.ctx.verdicts.items()}
        found = {'rounds': rounds, 'learned_in': self.ctx.learned_in, 'refused': self.refused}
        self.out('guard', orm.Dict(found).store())

    @property
    def _guard(self) -> GuardSettings:
        return GuardSettings.load(self.inputs.guard.get_dict())

    def _anchors(self) -> dict[str, StructureSetData]:
        return {f'{ANCHOR}{key}': node for key, node in self.inputs.get('anchors', {}).items()}

    def _training_inputs(self, changes: Mapping[str, Any]) -> AttributeDict:
        inputs = AttributeDict({**self.inputs.train.inputs, **changes, 'labels': dict(self.ctx.training)})
        if self.ctx.learned:
            inputs.learned = self.ctx.learned
        if anchors := self._anchors():
            inputs.anchors = anchors
        if 'validation' in self.inputs:
            inputs.validation = self.inputs.validation
        return inputs

    def _submit_training(self, stage: Stage, changes: Mapping[str, Any]) -> orm.ProcessNode:
        trainer = load_trainer(self.inputs.train.workflow.value)
        return self.submit_once(str(Call(stage, self.ctx.round)), trainer, self._training_inputs(changes))

    def _compare(self, train: orm.ProcessNode) -> list[Worsening]:
        worse = find_worsened(self.ctx.standard, train.outputs.results.get_dict(), self._guard)
        if worse:
            self.report(
                f'round {self.ctx.round}: {train.process_label}<{train.pk}> {GOT_WORSE} in round '
                f'{self.ctx.learned_in}: {"; ".join(map(str, worse))}'
            )
        return worse

    def _promote(self, train: orm.ProcessNode, worse: list[Worsening], again: bool = False) -> None:
        self.ctx.learned = get_learned(train.outputs.learned)
        self.ctx.results, self.ctx.learned_in = train.outputs.results, self.ctx.round
        results = train.outputs.results.get_dict()
        self.ctx.standard = {key: results[key] for key in ('parts', 'validation') if key in results}
        self.ctx.errors.append((results.get('validation') or {}).get('force_rmse'))
        self._note(True, worse, again)
        for sentence in explain_rise([error for error in self.ctx.errors if error is not None]):
            self.report(f'round {self.ctx.round}: {sentence}')

    def _refuse(self, worse: list[Worsening], *, again: bool) -> None:
        self._note(False, worse, again)
        self.report(
            f'round {self.ctx.round}: {NOT_PROMOTED} with what was learned in round '
            f'{self.ctx.learned_in}, and with other velocities'
        )
        for sentence in explain_refused(self.refused, self.node.pk):
            self.report(f'round {self.ctx.round}: {sentence}')

    def _note(self, promoted: bool, worse: list[Worsening], again: bool) -> None:
        self.ctx.verdicts[str(self.ctx.round)] = {
            'promoted': promoted,
            'trained_again': again,
            'worse': [each.plain() for each in worse],
            'sentences': [str(each) for each in worse],
        }


def find_standard(potential: orm.Data | None, sets: Mapping[str, StructureSetData]) -> dict[str, Any]:
    """Return the errors of a potential on labelled sets, from the results of the calculation that trained it.

    :param potential: the one that the campaign begins with; None if there is none.
    :param sets: labelled sets of the campaign, by their labels in it.
    :return: ``parts`` with an entry for each set that was an input of that calculation; empty if the calculation is
        not in the database.
    """
    creator = None if potential is None else potential.creator
    if creator is None or 'results' not in creator.outputs:
        return {}
    inputs = creator.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
    training = inputs.get('training', {})
    judged = {name: part for key, node in training.items() for name, part in unpack(key, node).items()}
    judged |= inputs.get('anchors', {})
    if 'validation' in inputs:
        judged[VALIDATION] = inputs['validation']
    names = {node.uuid: name for name, node in sets.items()}
    parts = creator.outputs.results.get_dict().get('parts') or {}
    known = {key: part for key, part in parts.items() if key in judged and judged[key].uuid in names}
    return {'parts': {names[judged[key].uuid]: part for key, part in known.items()}}
