"""One walker: MD, and where it halted the clusters that show why."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, WorkChain, if_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.engine.md.ensemble_settings import EnsembleSettings
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.ood.latents_settings import LatentsSettings

from .carve import CarveWorkChain, validate_carve
from .md_base import MdBaseWorkChain
from .md_segments import MdSegmentsWorkChain
from .resuming import ResumingWorkChain


class ExploreWorkChain(ResumingWorkChain):
    """Run one walker and cut the candidates out of the snapshots over the threshold.

    MD is graded by the ACE potential or by the ensemble that drives it, or, with pair lines, segment by segment by
    ``ensemble``. Whoever graded MD grades the clusters; beside an ACE potential ``ensemble`` is a second opinion.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.expose_inputs(MdBaseWorkChain)
        spec.expose_inputs(CarveWorkChain, include=('carve', 'ensemble', 'embed'))
        spec.input(
            'segment_steps',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            required=False,
            help='With `md.pair`: steps of a segment, after which the ensemble looks at the snapshots.',
        )
        spec.inputs.validator = validate_explore
        spec.outline(
            cls.run_md,
            cls.inspect_md,
            if_(cls.has_snapshots)(cls.run_carve, cls.inspect_carve),
        )
        spec.expose_outputs(MdBaseWorkChain)
        for name in ('remote_folder', 'retrieved'):  # segments have one each
            spec.outputs[name].required = False
        spec.expose_outputs(CarveWorkChain)
        spec.outputs['carving'].required = False
        spec.exit_code(
            400,
            'ERROR_MD_FAILED',
            message='the MD run of this walker failed: {message} See `verdi process report {pk}`.',
        )
        spec.exit_code(
            401,
            'ERROR_CARVING_FAILED',
            message='MD found something to learn, but no cluster came of it: {message} The snapshots are attached: '
            'carve them with `oodal.carve` when that is mended.',
        )

    def run_md(self) -> ToContext:
        """Submit MD."""
        inputs: dict[str, Any] = self.exposed_inputs(MdBaseWorkChain)
        process: type[WorkChain] = MdBaseWorkChain
        if self.inputs.md.get('pair'):
            process, ports = MdSegmentsWorkChain, MdSegmentsWorkChain.spec().inputs['md']
            inputs = {
                'md': {name: value for name, value in self.inputs.md.items() if name in ports},
                'embed': self.inputs.embed,
                'segment_steps': self.inputs.segment_steps,
                **self.inputs.ensemble,
            }
        return ToContext(md=self.submit_once('md', process, AttributeDict(inputs)))

    def inspect_md(self) -> ExitCode | None:
        """Attach what MD gave; without a trajectory there is nothing to carve."""
        md = self.ctx.md
        self.out_many(self.exposed_outputs(md, MdBaseWorkChain))
        if md.is_finished_ok or md.exit_status == MdBaseWorkChain.exit_codes.ERROR_TRAJECTORY_LOST.status:
            return None
        return self.exit_codes.ERROR_MD_FAILED.format(message=md.exit_message or md.process_state.value, pk=md.pk)

    def has_snapshots(self) -> bool:
        """Tell whether a frame passed gamma_break, or was lost after passing gamma_select."""
        return 'snapshots' in self.ctx.md.outputs and self.ctx.md.outputs.results['outcome'] != 'COMPLETED'

    def run_carve(self) -> ToContext:
        """Submit the snapshots to be carved."""
        inputs = AttributeDict(self.exposed_inputs(CarveWorkChain))
        inputs.snapshots = self.ctx.md.outputs.snapshots
        inputs.gamma_break = orm.Float(MdSettings.load(self.inputs.md.settings.get_dict()).gamma_break)
        if 'potential' in self.inputs.md:
            inputs.potential = self.inputs.md.potential
        inputs |= _driving_ensemble(self.inputs.md)
        return ToContext(carve=self.submit_once('carve', CarveWorkChain, inputs))

    def inspect_carve(self) -> ExitCode | None:
        """Attach the clusters."""
        carve = self.ctx.carve
        self.out_many(self.exposed_outputs(carve, CarveWorkChain))
        if carve.is_finished_ok:
            return None
        return self.exit_codes.ERROR_CARVING_FAILED.format(message=carve.exit_message or carve.process_state.value)


def _driving_ensemble(md: Any) -> dict[str, Any]:
    """Return the ensemble that drives MD as what grades cells, if one does."""
    ensemble = md.get('ensemble')
    if not ensemble:
        return {}
    settings = EnsembleSettings.load(ensemble['settings'].get_dict() if 'settings' in ensemble else {})
    own = {name: ensemble[name] for name in ('models', 'reference')}
    return {'ensemble': {**own, 'level': orm.Float(settings.level)}}


def describe_walker(explorer: orm.WorkChainNode) -> str:
    """Say in one line how a walker ended."""
    if 'results' not in explorer.outputs:
        return str(explorer.exit_message or explorer.process_state.value)
    results = explorer.outputs.results.get_dict()
    gamma = 'unknown' if results['max_gamma'] is None else f'{results["max_gamma"]:.2f}'
    return f'{results["outcome"]} at step {results["last_step"]}, largest gamma {gamma}'


def validate_explore(inputs: Any, _: Any) -> str | None:
    """Refuse a walker whose clusters nobody could grade, before MD runs."""
    md = inputs.get('md', {})
    given = inputs.get('ensemble')
    driving = md.get('ensemble')
    if driving and given:
        return '`ensemble` is a second opinion beside ACE; the ensemble that drives MD grades the clusters itself'
    if md.get('pair'):
        missing = [name for name in ('ensemble', 'segment_steps') if not inputs.get(name)]
        if missing:
            return f'{missing[0]} is missing: nothing else watches MD with pair lines'
    if driving:
        layers = EnsembleSettings.load(driving['settings'].get_dict() if 'settings' in driving else {}).layers
        embed = inputs.get('embed', {}).get('settings')
        own = LatentsSettings.load({} if embed is None else embed.get_dict()).layers
        if layers != own:
            return f"md.ensemble takes the latents of layers = '{layers}', embed of '{own}': they must be the same"
    return validate_carve({**inputs, 'ensemble': driving or given, 'potential': md.get('potential')}, None)
