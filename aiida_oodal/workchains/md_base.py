"""Run MD until it has a verdict, from restart files if the walltime or a node failure ended it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.join_md_runs import join_md_runs
from aiida_oodal.calculations.md import MdCalculation

from .resuming import ResumingRestartWorkChain

_CODES = MdCalculation.exit_codes
#: Outputs of runs that go on from one another, which :func:`join_md_runs` makes one of.
_JOINED = ('results', 'series', 'snapshots')


class MdBaseWorkChain(ResumingRestartWorkChain):
    """Run :class:`MdCalculation` until it has a verdict about the potential, again if the machine ended it.

    The outputs of runs that continue each other are joined: ``results``, ``series`` and ``snapshots`` have each step
    once.
    """

    _process_class = MdCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.expose_inputs(MdCalculation, namespace='md')
        # every run that ends at its walltime is an iteration; `go_on` gives up if runs make no progress
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
        spec.exit_code(550, 'ERROR_TRAJECTORY_LOST', message='{message}')

    def setup(self) -> None:
        """Take the inputs of the calculation into the context."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(MdCalculation, 'md'))

    def get_outputs(self, node: orm.CalcJobNode) -> dict[str, Any]:
        """Return the outputs of the last run, joined with those of the runs before it."""
        outputs = dict(super().get_outputs(node))
        runs = [
            run for run in self.ctx.children if 'series' in run.outputs and len(run.outputs.series.get_array('step'))
        ]
        if len(runs) > 1:
            # sorted by name, and there may be more than ten
            parts = {f'run_{number:04d}': _joined_outputs(run) for number, run in enumerate(runs)}
            outputs |= dict(self.result_of('join_md_runs', join_md_runs, **parts))
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
        """Go on from the restart file that the run left, or run it again if it left none."""
        results = calculation.outputs.results.get_dict() if 'results' in calculation.outputs else {}
        step = results.get('restart_step') or 0
        if not self.may_go_on('md', step):
            self._attach_outputs(calculation)
            return ProcessHandlerReport(
                True,
                self.exit_codes.ERROR_NO_PROGRESS.format(
                    times=self.count_fruitless('md'), step=self.how_far('md'), message=calculation.exit_message
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
        """Attach the frames before atoms were lost or the run exploded; running it again would end in the same way."""
        self._attach_outputs(calculation)
        return ProcessHandlerReport(
            True,
            self.exit_codes.ERROR_TRAJECTORY_LOST.format(message=with_frames(calculation.exit_message, self.outputs)),
        )

    @process_handler(priority=200)
    def give_up(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """End with the message of the run, which users see first in this process."""
        if calculation.is_finished_ok:
            return None
        return ProcessHandlerReport(
            True, self.exit_codes.ERROR_MD_UNUSABLE.format(message=calculation.exit_message, pk=calculation.pk)
        )


def with_frames(message: str, outputs: Mapping[str, Any]) -> str:
    """Return the message on a lost trajectory, with a sentence on the frames that are in the outputs."""
    if 'snapshots' in outputs:
        return f'{message} The frames before are in the outputs; those over gamma_select are candidates.'
    if 'results' in outputs and not outputs['results'].get_dict().get('has_frames', True):
        return message  # which says where they are
    return f'{message} The last valid frame is the output `final`.' if 'final' in outputs else message


def _joined_outputs(run: orm.CalcJobNode) -> dict[str, Any]:
    return {name: run.outputs[name] for name in _JOINED if name in run.outputs}
