"""MD with any pair style of LAMMPS, in segments that a potential or an ensemble grades."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.grade_snapshots import GradeSnapshotsCalculation
from aiida_oodal.calculations.join_md_runs import join_md_runs
from aiida_oodal.calculations.learned import describe_learned
from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.verdict import Outcome

from .md_base import MdBaseWorkChain, with_frames
from .resuming import ResumingWorkChain

#: Ports of the grading job that say what is graded and by what; the others are in the namespace ``grade``.
SUBJECT = ('results', 'series', 'snapshots', 'thresholds', 'potential', 'ensemble')
_LOST = MdBaseWorkChain.exit_codes.ERROR_TRAJECTORY_LOST.status


class MdSegmentsWorkChain(ResumingWorkChain):
    """Run MD whose pair style gives no gamma; a segment starts only if gamma in the one before was small enough.

    The outputs are those of MD that computes gamma. A halt is a success here, too.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.expose_inputs(
            MdCalculation,
            namespace='md',
            exclude=('potential', 'ensemble', 'parent_folder', 'restart_file', 'run_to'),
        )
        spec.expose_inputs(GradeSnapshotsCalculation, namespace='grade', exclude=SUBJECT)
        spec.expose_inputs(GradeSnapshotsCalculation, include=('thresholds', 'potential', 'ensemble'))
        spec.input(
            'segment_steps',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            help='Steps of a segment, a multiple of sample_every. Gamma is checked after each segment only.',
        )
        spec.inputs.validator = validate_segments
        spec.outline(
            cls.setup,
            while_(cls.should_go_on)(
                cls.run_md, cls.inspect_md, while_(cls.is_grade_due)(cls.run_grade), cls.inspect_grade
            ),
            cls.finish,
        )
        spec.output(
            'results', valid_type=orm.Dict, help='The verdict, with the fields that `results` of `oodal.md` has.'
        )
        spec.output('series', valid_type=orm.ArrayData, help='Thermo columns against step, and `max_gamma`.')
        spec.output(
            'snapshots',
            valid_type=StructureSetData,
            required=False,
            help='Frames whose largest gamma passed gamma_select; the last one is the frame to cut clusters from.',
        )
        spec.output(
            'final',
            valid_type=StructureSetData,
            required=False,
            help='The last frame, with velocities, if gamma did not end the run before it.',
        )
        spec.exit_code(
            400, 'ERROR_MD_FAILED', message='segment {segment} failed: {message} See `verdi process report {pk}`.'
        )
        spec.exit_code(
            401,
            'ERROR_GRADING_FAILED',
            message='segment {segment} could not be graded, so the next one was not started: {message}',
        )
        spec.exit_code(550, 'ERROR_TRAJECTORY_LOST', message='{message}')

    def setup(self) -> None:
        """Fill the context."""
        self.ctx.steps = MdSettings.load(self.inputs.md.settings.get_dict()).steps
        self.ctx.segment = 0
        self.ctx.done = 0
        self.ctx.outcome = Outcome.COMPLETED.value
        self.ctx.graded = {}

    def should_go_on(self) -> bool:
        """Return whether the last segment did not halt and steps are left."""
        return bool(self.ctx.outcome == Outcome.COMPLETED.value and self.ctx.done < self.ctx.steps)

    def run_md(self) -> ToContext:
        """Submit the next segment."""
        md = AttributeDict(self.exposed_inputs(MdCalculation, 'md', agglomerate=False))
        self.ctx.done = min(self.ctx.done + self.inputs.segment_steps.value, self.ctx.steps)
        md.run_to = orm.Int(self.ctx.done)
        if 'md' in self.ctx:
            md.parent_folder = self.ctx.md.outputs.remote_folder
        self.ctx.segment += 1
        return ToContext(md=self.submit_once(f'md_{self.ctx.segment}', MdBaseWorkChain, AttributeDict({'md': md})))

    def inspect_md(self) -> ExitCode | None:
        """Go on if there are snapshots to grade, also those of a run that lost atoms later."""
        md = self.ctx.md
        if (md.is_finished_ok or md.exit_status == _LOST) and 'snapshots' in md.outputs:
            return None
        return self.exit_codes.ERROR_MD_FAILED.format(
            segment=self.ctx.segment, message=md.exit_message or md.process_state.value, pk=md.pk
        )

    def is_grade_due(self) -> bool:
        """Return whether the job that grades this segment has to be submitted, for the first time or again."""
        return self.is_due(f'grade_{self.ctx.segment}')

    def run_grade(self) -> ToContext:
        """Submit the job that grades the snapshots of this segment."""
        inputs = AttributeDict(self.exposed_inputs(GradeSnapshotsCalculation, 'grade'))
        for name in ('results', 'series', 'snapshots'):
            inputs[name] = self.ctx.md.outputs[name]
        call = f'grade_{self.ctx.segment}'
        return ToContext(**{call: self.submit_once(call, GradeSnapshotsCalculation, inputs)})

    def inspect_grade(self) -> ExitCode | None:
        """Keep the graded outputs and how the segment ended."""
        grade = self.ctx[f'grade_{self.ctx.segment}']
        if not grade.is_finished_ok:
            message = grade.exit_message or f'{grade.process_label}<{grade.pk}> is {grade.process_state.value}'
            return self.exit_codes.ERROR_GRADING_FAILED.format(segment=self.ctx.segment, message=message)
        outputs = grade.outputs
        graded = {name: outputs[name] for name in ('results', 'series', 'snapshots') if name in outputs}
        self.ctx.graded[f'run_{self.ctx.segment:04d}'] = graded
        self.ctx.outcome = graded['results']['outcome']
        self.report(f'segment {self.ctx.segment}: {graded["results"]["message"]}')
        return None

    def finish(self) -> ExitCode | None:
        """Attach the outputs of all segments, joined."""
        graded = self.ctx.graded
        last: dict[str, Any] = next(reversed(graded.values()))
        outputs = last if len(graded) == 1 else dict(self.result_of('join_md_runs', join_md_runs, **graded))
        for name in ('results', 'series', 'snapshots'):
            if name in outputs:
                self.out(name, outputs[name])
        final = self.ctx.md.outputs.final if 'final' in self.ctx.md.outputs else None
        valid = outputs['results']['last_valid_step']
        if final is not None and valid is not None and final.get_atoms(0).info['step'] <= valid:
            self.out('final', final)
        if self.ctx.outcome in (Outcome.LOST_ATOMS.value, Outcome.EXPLODED.value):
            message = with_frames(last['results']['message'], self.outputs)
            return self.exit_codes.ERROR_TRAJECTORY_LOST.format(message=message)
        return None


def validate_segments(inputs: Any, _: Any) -> str | None:
    """Refuse segments that cannot be graded."""
    if 'md' not in inputs or 'settings' not in inputs['md']:
        return None
    if not inputs['md'].get('pair'):
        return 'md.pair is missing: MD driven by a potential or an ensemble checks gamma itself: use `oodal.md.base`'
    settings = MdSettings.load(inputs['md']['settings'].get_dict())
    if 'segment_steps' in inputs:
        steps = inputs['segment_steps'].value
        if steps < 1 or steps % settings.sample_every:
            return f'segment_steps = {steps} must be a multiple of sample_every = {settings.sample_every}'
    try:
        describe_learned(inputs)
    except OodalError as error:
        return str(error)
    return None
