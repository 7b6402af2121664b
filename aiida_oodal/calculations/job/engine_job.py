"""What every CalcJob that runs the engine has in common: the job file, the options, the errors."""

from __future__ import annotations

import errno
import json
from abc import abstractmethod
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

from aiida import orm
from aiida.common.datastructures import CalcInfo, CalcJobState, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec, ExitCode
from aiida.engine.processes.process import ProcessState
from aiida.parsers import Parser
from plumpy.process_states import State

from aiida_oodal.calculations.codes.lammps_code import is_engine
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import ERROR_FILE, JOB_FILE, RESULTS_FILE
from aiida_oodal.engine.structures import StructureSet

from .options import check_job_options
from .scheduler_verdict import find_scheduler_verdict
from .submission import WaitingForScheduler
from .submit_script import END_FILE, EPILOGUE, prologue
from .thrift import ThriftyProcess

#: Exit codes of jobs that can be submitted again unchanged: node failure, cancelled, ended for an unknown reason.
_LOST = (140, 145, 146)


class EngineCalculation(ThriftyProcess, CalcJob):
    """One engine command on a compute node; the code is the ``PortableCode`` made of ``aiida_oodal/engine``."""

    COMMAND: ClassVar[str]
    OUTPUT_FILE: ClassVar[str] = 'engine.out'
    CACHE_VERSION = 1

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Require the engine's code, give options their defaults, and name the errors all commands share."""
        super().define(spec)
        spec.inputs['code'].required = True
        options = spec.inputs['metadata']['options']
        options['resources'].default = lambda: {'num_machines': 1, 'num_mpiprocs_per_machine': 1}
        options['withmpi'].default = False
        options['output_filename'].default = cls.OUTPUT_FILE
        # Several jobs share a node: without a limit each would start a thread per core.
        options['environment_variables'].default = lambda: {'OMP_NUM_THREADS': '1'}
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or cls._check_options(inputs)

        for status, label, message in (
            (
                110,
                'ERROR_SCHEDULER_OUT_OF_MEMORY',
                'The job needed more memory than it had asked for ({memory}). Ask for more with the option '
                '`max_memory_kb`, or give it less to do at once.',
            ),
            (
                120,
                'ERROR_SCHEDULER_OUT_OF_WALLTIME',
                'Slurm ended the job at its limit of {walltime}. Ask for more with the option `max_wallclock_seconds`, '
                'or give it less to do.',
            ),
            (
                132,
                'ERROR_SUBMISSION_REFUSED',
                'Slurm does not take the job: {reason}. Change the options of the job (queue_name, account, qos, '
                'custom_scheduler_commands, ...) and submit it again.',
            ),
            (
                140,
                'ERROR_SCHEDULER_NODE_FAILURE',
                'The compute node failed. Submit the job again; the job itself is not the cause.',
            ),
            (
                145,
                'ERROR_CANCELLED',
                'The job was cancelled from outside (`scancel`, or an administrator). Submit it again if that was not '
                'meant.',
            ),
            (
                146,
                'ERROR_LOST',
                'The job was ended from outside {when}, and the reason is not known: its node failed, it was cancelled '
                'before it began, or its disk is full. The end of its output: {tail} Submit it again; if it is lost '
                'again, ask the administrator of the computer what became of job {job}.',
            ),
        ):
            spec.exit_code(status, label, message=message, invalidates_cache=True)
        spec.exit_code(210, 'ERROR_INPUT', message='{message}')
        spec.exit_code(
            302,
            'ERROR_OUTPUT_MISSING',
            message='The job left no `{filename}`. The end of its output: {tail} See `verdi calcjob outputcat {pk}`.',
        )
        spec.exit_code(310, 'ERROR_OUTPUT_INVALID', message='{message}')

    @classmethod
    def get_state_classes(cls) -> dict[Hashable, type[State]]:
        """Use a state that ends with an exit code when the scheduler refuses the job."""
        return {**super().get_state_classes(), ProcessState.WAITING: WaitingForScheduler}

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        """Take the process up in another worker, with the folder that the job was uploaded to.

        AiiDA 2.9 writes down that a job is uploaded before it stores its `remote_folder`: if the worker is killed in
        between, the upload is not repeated, and the output is never made.
        """
        super().load_instance_state(saved_state, load_context)
        path, state = self.node.get_remote_workdir(), self.node.get_state()
        if path and state not in (None, CalcJobState.UPLOADING) and 'remote_folder' not in self.outputs:
            self.out('remote_folder', orm.RemoteData(computer=self.node.computer, remote_path=path))

    def on_playing(self) -> None:
        """Go on after a pause, and note it: AiiDA 2.9 notes the pause only, to which another worker would return."""
        super().on_playing()
        self._save_checkpoint()

    @classmethod
    def _check_options(cls, inputs: Any) -> str | None:
        """Refuse options that the computer is known not to have, before anything is submitted."""
        metadata = inputs.get('metadata', {})
        computer = metadata.get('computer') or getattr(inputs.get('code'), 'computer', None)
        if computer is None:
            return None
        process, options = cls.COMMAND.replace('-', '_'), metadata.get('options', {})
        code, resources = inputs.get('code'), options.get('resources', {})
        per_machine = resources.get('num_mpiprocs_per_machine', 1)
        count = resources.get('tot_num_mpiprocs') or resources.get('num_machines', 1) * per_machine
        if code is not None and is_engine(code) and options.get('withmpi') and count > 1:
            return (
                f'withmpi = True with {count} MPI processes: the engine runs as one process; ask for its cores with '
                'num_cores_per_mpiproc'
            )
        return check_job_options(computer, process, options)

    def write_job(
        self,
        folder: Folder,
        job: dict[str, Any],
        *,
        structures: dict[str, StructureSet] | None = None,
        copies: list[tuple[str, str, str]] | None = None,
        retrieve: list[str],
        retrieve_temporary: list[str] | None = None,
    ) -> CalcInfo:
        """Write the job file and its structures, and say what to run and to bring back.

        :param structures: file name -> structures; left out of the node's repository, as the inputs hold them already.
        :param copies: ``(node uuid, name in the node, name in the job)``.
        """
        for name, structure_set in (structures or {}).items():
            structure_set.save(folder.get_abs_path(name))
        with folder.open(JOB_FILE, 'w', encoding='utf-8') as handle:
            json.dump(job, handle, indent=2, sort_keys=True)

        code_info = CodeInfo()
        code_info.code_uuid = self.inputs.code.uuid
        code_info.cmdline_params = [self.COMMAND, JOB_FILE]
        code_info.stdout_name = self.options.output_filename

        calc_info = CalcInfo()
        calc_info.codes_info = [code_info]
        calc_info.local_copy_list = copies or []
        calc_info.provenance_exclude_list = list(structures or {})
        calc_info.retrieve_list = [self.options.output_filename, ERROR_FILE, *retrieve]
        calc_info.retrieve_temporary_list = [END_FILE, *(retrieve_temporary or [])]
        calc_info.prepend_text, calc_info.append_text = prologue(self.node.computer.scheduler_type), EPILOGUE
        return calc_info


class EngineParser(Parser):
    """Read what an engine command left behind; subclasses implement :meth:`parse_outputs`."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Report the command's own error if there is one, else read its outputs."""
        names = self.retrieved.base.repository.list_object_names()
        if ERROR_FILE in names:
            message = json.loads(self.retrieved.base.repository.get_object_content(ERROR_FILE))['message']
            return self.exit_codes.ERROR_INPUT.format(message=message)
        return self.parse_or_explain(Path(kwargs.get('retrieved_temporary_folder', '.')))

    def parse_or_explain(self, temporary: Path) -> ExitCode | None:
        """Read the outputs; what is missing or unreadable becomes an exit code that says so.

        A job whose outputs are complete is a success even if Slurm ended it at the very end. If outputs are missing,
        the reason that Slurm gives is reported in place of the missing file, so that the user knows whether time or
        memory has to be raised.
        """
        code = self._explain(temporary)
        if code is None:
            return ExitCode(0)
        accounting = (self.node.get_detailed_job_info() or {}).get('stdout', '')
        verdict = find_scheduler_verdict(accounting, self._read(self.node.get_option('scheduler_stderr')))
        unread = code.status in (
            self.exit_codes.ERROR_OUTPUT_MISSING.status,
            self.exit_codes.ERROR_OUTPUT_INVALID.status,
        )
        if unread and verdict is None and self._was_lost(temporary):
            return self.exit_codes.ERROR_LOST.format(when=self._when(), tail=self.tail(), job=self.node.get_job_id())
        if verdict is None or not (
            unread or verdict in ('ERROR_SCHEDULER_OUT_OF_MEMORY', 'ERROR_SCHEDULER_OUT_OF_WALLTIME')
        ):
            return code
        memory_kb, seconds = (self.node.get_option(name) for name in ('max_memory_kb', 'max_wallclock_seconds'))
        return self.exit_codes[verdict].format(
            memory=f'{memory_kb // 1024} MB' if memory_kb else "the partition's default",
            walltime=f'{seconds} s' if seconds else "the partition's default",
        )

    def _was_lost(self, temporary: Path) -> bool:
        """Return whether something from outside ended the script before its end.

        A script that stops by itself before its program, for example because a module is missing, has written to
        stderr.
        """
        if (temporary / END_FILE).exists():
            return False
        return self._left(self.node.get_option('output_filename')) or not self._read(
            self.node.get_option('scheduler_stderr')
        )

    def _when(self) -> str:
        """Say how far the script came: Slurm creates its output file, and the script creates the one of its program."""
        if not self._left(self.node.get_option('scheduler_stdout')):
            return 'before its script began'
        return (
            'while its program ran'
            if self._left(self.node.get_option('output_filename'))
            else 'before its program began'
        )

    def _explain(self, temporary: Path) -> ExitCode | None:
        try:
            return self.parse_outputs(temporary)
        except FileNotFoundError as error:
            return self.exit_codes.ERROR_OUTPUT_MISSING.format(
                filename=Path(str(error.filename or error)).name, tail=self.tail(), pk=self.node.pk
            )
        except (OodalError, json.JSONDecodeError) as error:
            return self.exit_codes.ERROR_OUTPUT_INVALID.format(message=str(error))

    @abstractmethod
    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the outputs.

        :param temporary: folder with the files of ``retrieve_temporary_list``.
        :raises FileNotFoundError: if a file is missing.
        :raises OodalError: if a file cannot be read.
        """

    def read_results(self) -> dict[str, Any]:
        """Return the command's own report."""
        if RESULTS_FILE not in self.retrieved.base.repository.list_object_names():
            raise FileNotFoundError(errno.ENOENT, 'the job did not leave it', RESULTS_FILE)
        with self.retrieved.base.repository.open(RESULTS_FILE, 'r') as handle:
            results: dict[str, Any] = json.load(handle)
        return results

    def attach_structures(self, label: str, path: Path) -> StructureSetData:
        """Attach the structures of an ``.npz`` as output ``label``."""
        require_file(path)
        node = StructureSetData(StructureSet.load(path))
        self.out(label, node)
        return node

    def attach_results(self) -> dict[str, Any]:
        """Attach the command's own report as output ``results`` and return it."""
        results = self.read_results()
        self.out('results', orm.Dict(results))
        return results

    def tail(self, lines: int = 3) -> str:
        """Return the last lines that the job printed, on stderr if there are any."""
        for name in (self.node.get_option('scheduler_stderr'), self.node.get_option('output_filename')):
            text = self._read(name).strip()
            if text:
                return ' | '.join(text.splitlines()[-lines:])
        return '(it printed nothing)'

    def _left(self, name: str) -> bool:
        """Tell whether a file was retrieved."""
        return name in self.retrieved.base.repository.list_object_names()

    def _read(self, name: str) -> str:
        """Return the text of a retrieved file, empty if it was not retrieved."""
        return str(self.retrieved.base.repository.get_object_content(name)) if self._left(name) else ''


def was_lost(job: orm.CalcJobNode) -> bool:
    """Return whether the machine ended a job, so that it can be submitted again unchanged."""
    return job.exit_status in _LOST


def require_file(path: Path) -> None:
    """Refuse to go on without a file that the job should have left.

    :raises FileNotFoundError: with the path.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, 'the job did not leave it', str(path))
