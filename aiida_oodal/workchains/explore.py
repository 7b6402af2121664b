"""One walker: MD, and where it halted the clusters that show why."""

from __future__ import annotations

from aiida import orm
from aiida.engine import ExitCode, ToContext, WorkChain, if_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.extract_clusters import extract_clusters, validate_carve_settings
from aiida_oodal.data import ClusterData

from .md_base import MdBaseWorkChain


class ExploreWorkChain(WorkChain):
    """Run one walker and cut the candidates out of the snapshots over the threshold."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        # Carving computes gamma again in the cell, by the ACE potential that ran MD.
        spec.expose_inputs(MdBaseWorkChain, exclude=('md.ensemble', 'md.pair'))
        spec.inputs['md']['potential'].required = True
        spec.input(
            'carve',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=validate_carve_settings,
            help='Fields of `aiida_oodal.engine.carve.settings.CarveSettings`: radius, buffer [angstrom], shape, ...',
        )
        spec.outline(cls.run_md, cls.inspect_md, if_(cls.has_snapshots)(cls.carve_clusters), cls.finish)
        spec.expose_outputs(MdBaseWorkChain)
        spec.output_namespace(
            'clusters', valid_type=ClusterData, dynamic=True, required=False, help='Candidates for the DFT queue.'
        )
        spec.output(
            'carving', valid_type=orm.Dict, required=False, help='Every centre that was considered, and its fate.'
        )
        spec.exit_code(
            400,
            'ERROR_MD_FAILED',
            message='the MD run of this walker failed: {message} See `verdi process report {pk}`.',
        )

    def run_md(self) -> ToContext:
        """Submit MD."""
        inputs = self.exposed_inputs(MdBaseWorkChain)
        inputs.metadata = {'call_link_label': 'md'}
        return ToContext(md=self.submit(MdBaseWorkChain, **inputs))

    def inspect_md(self) -> ExitCode | None:
        """Attach what MD gave; without a trajectory there is nothing to carve."""
        md = self.ctx.md
        self.out_many(self.exposed_outputs(md, MdBaseWorkChain))
        trajectory_lost = MdBaseWorkChain.exit_codes.ERROR_TRAJECTORY_LOST.status
        if md.is_finished_ok or md.exit_status == trajectory_lost:
            return None
        return self.exit_codes.ERROR_MD_FAILED.format(message=md.exit_message or md.process_state.value, pk=md.pk)

    def has_snapshots(self) -> bool:
        """Tell whether a frame passed gamma_break, or was lost after passing gamma_select."""
        return 'snapshots' in self.ctx.md.outputs and self.ctx.md.outputs.results['outcome'] != 'COMPLETED'

    def carve_clusters(self) -> None:
        """Cut clusters around the worst atoms."""
        results = extract_clusters(
            snapshots=self.ctx.md.outputs.snapshots,
            potential=self.inputs.md.potential,
            settings=self.inputs.carve,
            metadata={'call_link_label': 'extract_clusters'},
        )
        self.ctx.carved = dict(results)

    def finish(self) -> None:
        """Attach the clusters."""
        for label, node in self.ctx.get('carved', {}).items():
            self.out(label, node)
