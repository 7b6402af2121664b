"""MD that goes on after a walltime or a lost node."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, Process, ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.join_md_runs import join_md_runs
from aiida_oodal.calculations.md import MdCalculation

from .resuming import ResumingWorkChain

_CODES = MdCalculation.exit_codes
#: Outputs of runs that go on from one another, which :func:`join_md_runs` makes one of.
_JOINED = ('results', 'series', 'snapshots')
#: Runs in a row that may end without a new restart file before it is given up.
_MOST_STALLED = 5


class MdBaseWorkChain(ResumingWorkChain, BaseRestartWorkChain):
    """Run :class:`MdCalculation` to a verdict about the potential, whatever happens to the machine.

    Runs that went on from one another come out as one: ``results``, ``series`` and ``snapshots`` count every step once.
    """

    _process_class = MdCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.expose_inputs(MdCalculation, namespace='md')
        # every run that ends at its walltime is an iteration; what gets nowhere is given up by itself
        spec.inputs['max_iterations'].default = lambda: orm.Int(100)
        spec.outline(cls.setup, while_(cls.should_run_process)(cls.run_process, cls.inspect_process), cls.results)
        spec.expose_outputs(MdCalculation)
        spec.exit_code(
            450,
            'ERROR_MD_UNUSABLE',
            message='MD ended without a usable run: {message} What it left is attached to MdCalculation<{pk}>.',
        )
        spec.exit_code(
            451,
            'ERROR_NO_PROGRESS',
            message='MD was ended from outside {times} times in a row without a restart file beyond step {step}. '
            'The last time: {message} Give it more time (`max_wallclock_seconds`), or write restart files more often '
            '(`restart_every`). What it left is in the outputs.',
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
        self.ctx.reached = 0
        self.ctx.stalled = 0

    def submit(self, process: type[Process], inputs: dict[str, Any] | None = None, **kwargs: Any) -> orm.ProcessNode:
        """Submit a run, or return the one that this very iteration submitted before its worker was killed."""
        # A pause after the last iteration begins to count anew.
        noted = {child.pk for child in self.ctx.get('children', [])}
        submitted = [child for child in self.take_up(kwargs['metadata']['call_link_label']) if child.pk not in noted]
        return submitted[-1] if submitted else super().submit(process, inputs, **kwargs)

    def get_outputs(self, node: orm.CalcJobNode) -> dict[str, Any]:
        """Return the outputs of the last run, joined with those of the runs before it."""
        outputs = dict(super().get_outputs(node))
        runs = [
            run for run in self.ctx.children if 'series' in run.outputs and len(run.outputs.series.get_array('step'))
        ]
        if len(runs) > 1:
            # sorted by name, and there may be more than ten
            parts = {f'run_{number:04d}': _joined_outputs(run) for number, run in enumerate(runs)}
            outputs |= dict(self.run_once('join_md_runs', join_md_runs, **parts)[0])
        return outputs

    @process_handler(
        priority=500,
        exit_codes=[
            _CODES.ERROR_WALLTIME,
            _CODES.ERROR_KILLED,
            _CODES.ERROR_SCHEDULER_OUT_OF_WALLTIME,
            _CODES.ERROR_SCHEDULER_NODE_FAILURE,
            _CODES.ERROR_CANCELLED,
            _CODES.ERROR_LOST,
        ],
    )
    def go_on(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on from the restart file that the run left; without one begin again where it began."""
        results = calculation.outputs.results.get_dict() if 'results' in calculation.outputs else {}
        step = results.get('restart_step') or 0
        self.ctx.stalled = 0 if step > self.ctx.reached else self.ctx.stalled + 1
        self.ctx.reached = max(step, self.ctx.reached)
        if self.ctx.stalled >= _MOST_STALLED:
            self._attach_outputs(calculation)
            return ProcessHandlerReport(
                True,
                self.exit_codes.ERROR_NO_PROGRESS.format(
                    times=self.ctx.stalled, step=self.ctx.reached, message=calculation.exit_message
                ),
            )
        why = f'MdCalculation<{calculation.pk}> was ended from outside ({calculation.process_label} exit code '
        why += f'{calculation.exit_status})'
        if results.get('restart_file') is None:
            self.report(f'{why} and left no restart file: running it again')
            return ProcessHandlerReport(True)
        self.ctx.inputs.parent_folder = calculation.outputs.remote_folder
        self.ctx.inputs.restart_file = orm.Str(results['restart_file'])
        self.report(f'{why}: going on from {results["restart_file"]}, step {results["restart_step"]}')
        return ProcessHandlerReport(True)

    @process_handler(priority=300, exit_codes=[_CODES.ERROR_LOST_ATOMS, _CODES.ERROR_EXPLODED])
    def keep_lost_trajectory(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Hand on what was read before the atoms flew apart: repeating it would end the same way."""
        self._attach_outputs(calculation)
        return ProcessHandlerReport(
            True, self.exit_codes.ERROR_TRAJECTORY_LOST.format(message=calculation.exit_message)
        )

    @process_handler(priority=200)
    def give_up(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Say why in this process too: its exit message is what a user sees first."""
        if calculation.is_finished_ok:
            return None
        return ProcessHandlerReport(
            True, self.exit_codes.ERROR_MD_UNUSABLE.format(message=calculation.exit_message, pk=calculation.pk)
        )


def _joined_outputs(run: orm.CalcJobNode) -> dict[str, Any]:
    return {name: run.outputs[name] for name in _JOINED if name in run.outputs}
