"""MD that goes on after a walltime or a lost node."""

from __future__ import annotations

from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import CalcJobNode

from aiida_oodal.calculations.md import MdCalculation


class MdBaseWorkChain(BaseRestartWorkChain):
    """Run :class:`MdCalculation` to a verdict about the potential, whatever happens to the machine."""

    _process_class = MdCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.expose_inputs(MdCalculation, namespace='md')
        spec.outline(cls.setup, while_(cls.should_run_process)(cls.run_process, cls.inspect_process), cls.results)
        spec.expose_outputs(MdCalculation)
        spec.exit_code(
            450,
            'ERROR_MD_UNUSABLE',
            message='MD ended without a usable run: {message} What it left is attached to MdCalculation<{pk}>.',
        )
        spec.exit_code(
            550,
            'ERROR_TRAJECTORY_LOST',
            message='{message} The frames before are in the outputs; those over gamma_select are candidates.',
        )

    def setup(self) -> None:
        """Take the inputs of the calculation into the context."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(MdCalculation, 'md'))

    @process_handler(priority=500, exit_codes=[MdCalculation.exit_codes.ERROR_WALLTIME])
    def continue_after_walltime(self, calculation: CalcJobNode) -> ProcessHandlerReport:
        """Go on from the restart file that the run left when its time was over."""
        self.ctx.inputs.parent_folder = calculation.outputs.remote_folder
        self.report(f'MdCalculation<{calculation.pk}> ran out of walltime: going on from its restart file')
        return ProcessHandlerReport(True)

    @process_handler(priority=400, exit_codes=[MdCalculation.exit_codes.ERROR_KILLED])
    def repeat_after_kill(self, calculation: CalcJobNode) -> ProcessHandlerReport:
        """Run again what something outside (a lost node, a signal) cut short."""
        self.report(f'MdCalculation<{calculation.pk}> was killed from outside: running it again')
        return ProcessHandlerReport(True)

    @process_handler(
        priority=300,
        exit_codes=[MdCalculation.exit_codes.ERROR_LOST_ATOMS, MdCalculation.exit_codes.ERROR_EXPLODED],
    )
    def keep_lost_trajectory(self, calculation: CalcJobNode) -> ProcessHandlerReport:
        """Hand on what was read before the atoms flew apart: repeating it would end the same way."""
        self.out_many(self.exposed_outputs(calculation, MdCalculation))
        return ProcessHandlerReport(
            True, self.exit_codes.ERROR_TRAJECTORY_LOST.format(message=calculation.exit_message)
        )

    @process_handler(priority=200)
    def give_up(self, calculation: CalcJobNode) -> ProcessHandlerReport | None:
        """Say why in this process too: its exit message is what a user sees first."""
        if calculation.is_finished_ok:
            return None
        return ProcessHandlerReport(
            True, self.exit_codes.ERROR_MD_UNUSABLE.format(message=calculation.exit_message, pk=calculation.pk)
        )
