"""The calibration steps of a campaign: what gamma means in eV/angstrom, and where walkers halt because of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ProcessSpec, ToContext

from aiida_oodal.calculations.trust.calibrate import calibrate_error, set_gamma_break
from aiida_oodal.calculations.trust.judge import JudgeCalculation, refuse_set
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.trust.calibration import CalibrationSettings, explain_break
from aiida_oodal.workchains.calls import Call, Stage
from aiida_oodal.workchains.train.base import as_md_inputs

from .guard import GuardedTraining
from .packing import PacksSets


def define_calibration(spec: ProcessSpec) -> None:
    """Define inputs and output of the calibration."""
    spec.input_namespace(
        'initial.judged',
        valid_type=StructureSetData,
        dynamic=True,
        required=False,
        help='By any key, labels with gamma and errors of what drove the walkers, such as an earlier campaign has.',
    )
    spec.input(
        'initial.calibration',
        valid_type=orm.Dict,
        required=False,
        help='The last calibration of an earlier campaign, which stands for that of the round before the first.',
    )
    spec.input(
        'calibration',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Dict({}),
        validator=lambda node, _: CalibrationSettings.check(node.get_dict()),
        help='Fields of `aiida_oodal.engine.trust.calibration.CalibrationSettings`: which coverage is promised, and '
        'the force error [eV/angstrom] above which MD halts, if it is to halt by that.',
    )
    spec.output(
        'calibration',
        valid_type=orm.Dict,
        required=False,
        help='The last calibration: `bound`, the force error [eV/angstrom] that `promised`, a share of the atoms, stay '
        'below at each gamma; and `observed`, the share of the labels of the last round that were below the bound '
        'before.',
    )


def check_calibration(inputs: Mapping[str, Any]) -> None:
    """Refuse a halt by the force error where no job compares forces with labels.

    :raises OodalError: if there is none.
    """
    settings = CalibrationSettings.load(inputs['calibration'].get_dict() if 'calibration' in inputs else {})
    if settings.halt_error is not None and not inputs.get('audit', {}).get('judge'):
        raise OodalError(
            f'calibration: halt_error = {settings.halt_error:g} needs the job that compares forces with labels: give '
            '`audit.judge`, as `get_builder_from_protocol` does'
        )


class CalibratedTraining(GuardedTraining, PacksSets):
    """While a potential is trained, judge what drove the walkers by the labels of the round, and calibrate gamma.

    Mixed into :class:`.CampaignWorkChain`, which has ``inputs``, and in ``ctx`` its ``round``, its ``labels``, what it
    has ``learned`` and, where there was one, its ``audit``. In ``ctx``, ``calibration`` is the last one that was made.
    """

    def setup_calibration(self) -> None:
        """Fill the context."""
        initial = self.inputs.initial
        self.ctx.thresholds, self.ctx.calibration = self.inputs.thresholds, initial.get('calibration')
        #: By round, its labels with gamma and errors of what drove the walkers in it; those of earlier rounds packed.
        self.ctx.judged = {f'initial_{name}': node for name, node in initial.get('judged', {}).items()}
        if self.ctx.calibration is not None:
            self._place_break()

    def run_train(self) -> ToContext:
        """Submit the trainer, and the job that judges what drove the walkers by the labels of this round."""
        calls = super().run_train()
        if self.ctx.round and self.inputs.get('audit', {}).get('judge'):
            #: What drove the walkers; the training may be promoted before the machine has judged this.
            self.ctx.driving = self.ctx.learned
            calls |= self.run_judge()
        return calls

    def is_judge_due(self) -> bool:
        """Return whether the machine ended the judging of this round, so that it has to be submitted again."""
        call = self._judge_call
        return call in self.ctx and self.is_due(call)

    def run_judge(self) -> ToContext:
        """Submit the judging of the labels of this round, if there are any, and of the validation set."""
        sets = {
            'structures': self.ctx.labels.get(f'round_{self.ctx.round}'),
            'validation': self.inputs.get('validation'),
        }
        learned = as_md_inputs(self.ctx.driving, self.inputs.get('ensemble', {}).get('settings'))
        given = {
            name: node
            for name, node in sets.items()
            if node is not None and not refuse_set({name: node, **learned}, name)
        }
        if 'structures' not in given:
            return ToContext()
        inputs = self.exposed_inputs(JudgeCalculation, 'audit.judge', agglomerate=False)
        job = self.submit_once(self._judge_call, JudgeCalculation, AttributeDict({**inputs, **learned, **given}))
        return ToContext(**{self._judge_call: job})

    def calibrate(self) -> None:
        """Fit what gamma means to what was judged in this round, and let walkers halt by it if that is asked for."""
        judged = self._find_judged()
        if judged is None:
            return
        inputs = {'settings': self.inputs.calibration, 'labels': judged['judged'], **self.ctx.judged}
        if 'judged_validation' in judged:
            inputs['validation'] = judged['judged_validation']
        if self.ctx.calibration is not None:
            inputs['before'] = self.ctx.calibration
        self.ctx.calibration = self.result_of(str(Call(Stage.CALIBRATE, self.ctx.round)), calibrate_error, **inputs)
        self.ctx.judged = self.pack_sets('judged', {**self.ctx.judged, f'round_{self.ctx.round}': judged['judged']})
        for sentence in self.ctx.calibration['sentences']:
            self.report(f'round {self.ctx.round}: {sentence}')
        if not self.ctx.converged:
            self._place_break()

    def _place_break(self) -> None:
        """Place gamma_break by the calibration, if that is asked for."""
        halt_error = CalibrationSettings.load(self.inputs.calibration.get_dict()).halt_error
        if halt_error is None or self.ctx.calibration['bound'] is None:
            return
        self.ctx.thresholds = self.result_of(
            f'thresholds_{self.ctx.round}',
            set_gamma_break,
            thresholds=self.inputs.thresholds,
            settings=self.inputs.calibration,
            calibration=self.ctx.calibration,
        )
        self.report(explain_break(self.ctx.thresholds['gamma_break'], halt_error))

    def attach_calibration(self) -> None:
        """Attach the last calibration, if there is one."""
        if self.ctx.calibration is not None:
            self.out('calibration', self.ctx.calibration)

    @property
    def _judge_call(self) -> str:
        return str(Call(Stage.JUDGE, self.ctx.round))

    def _find_judged(self) -> Mapping[str, Any] | None:
        """Return the outputs of what judged the labels of this round: its audit, or the job beside training."""
        if f'audit_{self.ctx.round}' in self.ctx.labels:
            outputs: Mapping[str, Any] = self.ctx.audit.outputs
            return outputs
        job = self.ctx.get(self._judge_call)
        if job is None or job.is_finished_ok:
            return None if job is None else job.outputs
        self.report(f'round {self.ctx.round}: no calibration: {job.exit_message or job.process_state.value}')
        return None
