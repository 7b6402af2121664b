"""One structure labelled by somebody's own program."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida_shell import ShellJob
from aiida_shell.parsers.shell import ShellParser

from aiida_oodal.calculations.job.scheduler_verdict import find_scheduler_verdict
from aiida_oodal.calculations.job.submit_script import EPILOGUE, prologue
from aiida_oodal.calculations.labels import read_label_file, write_input
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.label.executable import STDOUT, ExecutableOptions
from aiida_oodal.workchains.resuming import ResumingWorkChain

#: Ports that all structures of a labeller share.
SHARED_PORTS = ('job', 'settings', 'files')
#: The program ended well: with status 0, whatever it wrote to stderr.
_DONE = (0, 410)
#: The script wrote no status: it was ended from outside.
_LOST = (300, 302)


class ShellSingleWorkChain(ResumingWorkChain):
    """Write the input, run the program, read the label."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.input('structure', valid_type=orm.StructureData, help='What to label.')
        spec.input('key', valid_type=orm.Str, help='Key of its entry in the queue.')
        spec.input('level', valid_type=orm.Str, help='Hash of the level of theory.')
        spec.expose_inputs(ShellJob, namespace='job', include=('code', 'metadata'))
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            validator=lambda node, _: ExecutableOptions.check(node.get_dict()),
            help='Fields of `aiida_oodal.engine.label.executable.ExecutableOptions`: template, arguments, ...',
        )
        spec.input_namespace(
            'files',
            valid_type=orm.SinglefileData,
            dynamic=True,
            required=False,
            help='Files that the program needs, by the name that `arguments` has in braces; all are put into the job.',
        )
        spec.outline(cls.write_input, while_(cls.should_run)(cls.run_program, cls.inspect_program), cls.read_label)
        spec.output('labels', valid_type=StructureSetData, help='The structure with its label.')
        spec.exit_code(410, 'ERROR_PROGRAM_FAILED', message='the program failed: {message}')
        spec.exit_code(411, 'ERROR_NO_LABEL', message='{message}')

    def write_input(self) -> ExitCode | None:
        """Make the input."""
        self.ctx.is_done = False
        given = {name: self.inputs[name] for name in ('structure', 'settings', 'key')}
        self.ctx.input, node = self.run_once('write_input', write_input, **given)
        return None if node.is_finished_ok else self.exit_codes.ERROR_INPUT.format(message=node.exit_message)

    def should_run(self) -> bool:
        """Tell whether the program has not come to its end."""
        return not self.ctx.is_done

    def run_program(self) -> ToContext:
        """Submit the job."""
        options = ExecutableOptions.load(self.inputs.settings.get_dict())
        inputs = AttributeDict(self.exposed_inputs(ShellJob, 'job', agglomerate=False))
        inputs.arguments = orm.List(shlex.split(options.arguments))
        inputs.nodes = {'input': self.ctx.input, **self.inputs.get('files', {})}
        inputs.filenames = orm.Dict({'input': options.input_file})
        inputs.metadata.options = AttributeDict(_guard(inputs.metadata.options, inputs.code.computer.scheduler_type))
        if options.output_file != STDOUT:
            # A pattern may find nothing: aiida-shell would name a missing file before how the program ended.
            inputs.outputs = orm.List([f'{options.output_file}*'])
        return ToContext(job=self.submit_once(f'run_{self.count_fruitless("run") + 1}', ShellJob, inputs))

    def inspect_program(self) -> ExitCode | None:
        """Go on if the program came to its end; send the job again if the machine ended it."""
        job = self.ctx.job
        self.ctx.is_done = job.exit_status in _DONE
        if self.ctx.is_done:
            return None
        verdict = _find_verdict(job)
        if job.exit_status in _LOST and verdict is None and self.may_go_on('run'):
            self.report(f'{job.process_label}<{job.pk}> was ended from outside; it is sent again')
            return None
        message = ' '.join((job.exit_message or job.process_state.value).split())
        if verdict is not None:
            message = f'Slurm ended it ({verdict}); see the options max_memory_kb and max_wallclock_seconds'
        return self.exit_codes.ERROR_PROGRAM_FAILED.format(message=f'{job.process_label}<{job.pk}>: {message}')

    def read_label(self) -> ExitCode | None:
        """Make a label of what the program wrote."""
        options = ExecutableOptions.load(self.inputs.settings.get_dict())
        name = ShellParser.format_link_label(options.output_file)
        if name not in self.ctx.job.outputs:
            return self.exit_codes.ERROR_NO_LABEL.format(
                message=f'the program ended well and did not write {options.output_file}'
            )
        output = self.ctx.job.outputs[name]
        given = {port: self.inputs[port] for port in ('structure', 'settings', 'key', 'level')}
        labels, node = self.run_once('read_label', read_label_file, output=output, **given)
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_NO_LABEL.format(message=node.exit_message)
        self.out('labels', labels)
        return None


def _guard(options: Mapping[str, Any], scheduler: str) -> dict[str, Any]:
    """Return options of a job that AiiDA may submit twice and that runs once, and that says how long it ran.

    aiida-shell writes the status of the last command before its own lines: it must be the program's.
    """
    before = [prologue(scheduler), options.get('prepend_text', '')]
    after = ['oodal_status=$?', options.get('append_text', ''), EPILOGUE, '(exit $oodal_status)']
    texts = {'prepend_text': before, 'append_text': after}
    defaults = {
        'resources': {'num_machines': 1, 'num_mpiprocs_per_machine': 1},
        'environment_variables': {'OMP_NUM_THREADS': '1'},
    }
    return {**defaults, **options, **{name: '\n'.join(filter(None, lines)) for name, lines in texts.items()}}


def _find_verdict(job: orm.CalcJobNode) -> str | None:
    """Return how Slurm ended a job, None if it did not."""
    accounting = (job.get_detailed_job_info() or {}).get('stdout', '')
    name = job.get_option('scheduler_stderr')
    has_stderr = 'retrieved' in job.outputs and name in job.outputs.retrieved.base.repository.list_object_names()
    stderr = job.outputs.retrieved.base.repository.get_object_content(name) if has_stderr else ''
    return find_scheduler_verdict(accounting, str(stderr))
