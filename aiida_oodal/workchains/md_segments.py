"""MD with any pair style of LAMMPS, in segments that an ensemble of MACE models looks at."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.grade_segment import grade_segment
from aiida_oodal.calculations.join_md_runs import join_md_runs
from aiida_oodal.calculations.latents import LatentsCalculation
from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import MaceModelData, OodReferenceData, StructureSetData
from aiida_oodal.engine.md.outcome import Outcome
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.ood.calibration import check_level

from .md_base import MdBaseWorkChain
from .resuming import ResumingWorkChain

_LOST = MdBaseWorkChain.exit_codes.ERROR_TRAJECTORY_LOST.status


class MdSegmentsWorkChain(ResumingWorkChain):
    """Run MD whose pair style gives no gamma; the next segment starts only if the snapshots of the last were safe.

    The outputs are those of a watched run. A halt is a success here, too.
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
        spec.expose_inputs(LatentsCalculation, namespace='embed', exclude=('structures', 'models', 'start', 'stop'))
        spec.input_namespace(
            'models', valid_type=MaceModelData, dynamic=True, help='The ensemble that grades, by label: w1, w2, ...'
        )
        spec.input(
            'reference',
            valid_type=OodReferenceData,
            help='Fitted on latents of the same models; its edge is where gamma is 1.',
        )
        spec.input(
            'segment_steps',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            help='Steps of a segment, a multiple of sample_every: how far MD may go astray before anybody looks.',
        )
        spec.input(
            'level',
            valid_type=orm.Float,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Float(0.99),
            validator=lambda node, _: check_level(node.value),
            help='Share of the held-out atoms of the reference set whose gamma is below 1: 0.9, 0.95 or 0.99.',
        )
        spec.inputs.validator = validate_segments
        spec.outline(
            cls.setup,
            while_(cls.should_go_on)(
                cls.run_md, cls.inspect_md, while_(cls.is_embed_due)(cls.run_embed), cls.inspect_embed
            ),
            cls.finish,
        )
        spec.output('results', valid_type=orm.Dict, help='The verdict, as of `oodal.md`.')
        spec.output('series', valid_type=orm.ArrayData, help='Thermo columns against step, and `max_gamma`.')
        spec.output(
            'snapshots',
            valid_type=StructureSetData,
            required=False,
            help='Frames whose largest gamma passed gamma_select, the one to learn from last.',
        )
        spec.output('final', valid_type=StructureSetData, required=False, help='The last frame, with velocities.')
        spec.exit_code(
            400, 'ERROR_MD_FAILED', message='segment {segment} failed: {message} See `verdi process report {pk}`.'
        )
        spec.exit_code(
            401,
            'ERROR_GRADING_FAILED',
            message='segment {segment} could not be graded, so the next one was not started: {message}',
        )
        spec.exit_code(
            550,
            'ERROR_TRAJECTORY_LOST',
            message='{message} The frames before are in the outputs; those over gamma_select are candidates.',
        )

    def setup(self) -> None:
        """Begin at the structure."""
        self.ctx.steps = MdSettings.load(self.inputs.md.settings.get_dict()).steps
        self.ctx.segment = 0
        self.ctx.done = 0
        self.ctx.outcome = Outcome.COMPLETED.value
        self.ctx.graded = {}

    def should_go_on(self) -> bool:
        """Go on while the last segment was safe and steps are left."""
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
        """Go on with whatever has snapshots; what came before atoms were lost is graded, too."""
        md = self.ctx.md
        if (md.is_finished_ok or md.exit_status == _LOST) and 'snapshots' in md.outputs:
            return None
        return self.exit_codes.ERROR_MD_FAILED.format(
            segment=self.ctx.segment, message=md.exit_message or md.process_state.value, pk=md.pk
        )

    def is_embed_due(self) -> bool:
        """Tell whether the snapshots of this segment have to be sent, or sent again, to the ensemble."""
        return self.is_due(f'embed_{self.ctx.segment}')

    def run_embed(self) -> ToContext:
        """Submit the snapshots to the ensemble."""
        inputs = AttributeDict(self.exposed_inputs(LatentsCalculation, 'embed', agglomerate=False))
        inputs.models = self.inputs.models
        inputs.structures = self.ctx.md.outputs.snapshots
        call = f'embed_{self.ctx.segment}'
        return ToContext(**{call: self.submit_once(call, LatentsCalculation, inputs)})

    def inspect_embed(self) -> ExitCode | None:
        """Grade the snapshots."""
        embed, md = self.ctx[f'embed_{self.ctx.segment}'], self.ctx.md
        if not embed.is_finished_ok:
            return self.exit_codes.ERROR_GRADING_FAILED.format(
                segment=self.ctx.segment, message=embed.exit_message or embed.process_state.value
            )
        graded, node = self.run_once(
            f'grade_{self.ctx.segment}',
            grade_segment,
            results=md.outputs.results,
            series=md.outputs.series,
            snapshots=md.outputs.snapshots,
            settings=self.inputs.md.settings,
            reference=self.inputs.reference,
            level=self.inputs.level,
            **embed.outputs.latents,
        )
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_GRADING_FAILED.format(segment=self.ctx.segment, message=node.exit_message)
        # sorted by name, and there may be more than ten
        self.ctx.graded[f'run_{self.ctx.segment:04d}'] = dict(graded)
        self.ctx.outcome = graded['results']['outcome']
        self.report(f'segment {self.ctx.segment}: {graded["results"]["message"]}')
        return None

    def finish(self) -> ExitCode | None:
        """Attach the segments as one run."""
        graded = self.ctx.graded
        last: dict[str, Any] = next(reversed(graded.values()))
        outputs = last if len(graded) == 1 else dict(self.run_once('join_md_runs', join_md_runs, **graded)[0])
        for name in ('results', 'series', 'snapshots'):
            if name in outputs:
                self.out(name, outputs[name])
        if 'final' in self.ctx.md.outputs:
            self.out('final', self.ctx.md.outputs.final)
        if self.ctx.outcome in (Outcome.LOST_ATOMS.value, Outcome.EXPLODED.value):
            return self.exit_codes.ERROR_TRAJECTORY_LOST.format(message=last['results']['message'])
        return None


def validate_segments(inputs: Any, _: Any) -> str | None:
    """Refuse segments that cannot be looked at."""
    if 'md' not in inputs or 'settings' not in inputs['md']:
        return None
    if not inputs['md'].get('pair'):
        return 'md.pair is missing: potentials and ensembles are watched in the run itself, by `oodal.md.base`'
    settings = MdSettings.load(inputs['md']['settings'].get_dict())
    if 'segment_steps' in inputs:
        steps = inputs['segment_steps'].value
        if steps < 1 or steps % settings.sample_every:
            return f'segment_steps = {steps} must be a multiple of sample_every = {settings.sample_every}'
    if {'models', 'reference'} <= set(inputs):
        problem: str | None = inputs['reference'].check_models(inputs['models'])
        return problem
    return None
