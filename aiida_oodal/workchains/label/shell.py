"""Labels by somebody's own program, through aiida-shell: one process for each structure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.codes.lammps_code import is_engine
from aiida_oodal.calculations.job.options import check_job_options, get_job_options
from aiida_oodal.calculations.label import hash_file
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.executable import ExecutableOptions
from aiida_oodal.queue import LevelOfTheory
from aiida_oodal.workchains.protocols import load_protocol

from .base import LabelJob, LabelWorkChain, explain_failure
from .ports import define_batch_size
from .shell_single import SHARED_PORTS, ShellSingleWorkChain

try:
    from aiida_shell.launch import prepare_code
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: pip install 'aiida-oodal[shell]' brings aiida-shell", name=error.name
    ) from error


class ShellLabelWorkChain(LabelWorkChain):
    """Run a program on each structure: its input from a template, its label from its output."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs."""
        super().define(spec)
        shared = spec.inputs.validator  # exposing inputs would replace it
        spec.expose_inputs(ShellSingleWorkChain, include=SHARED_PORTS)
        define_batch_size(spec, 10, 'How many structures are in hand at once; the next begins when one has ended.')
        spec.inputs.validator = lambda inputs, ports: shared(inputs, ports) or _check_inputs(inputs)

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode,
        computer: orm.Computer,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder filled from ``protocols/label_shell.yaml``.

        :param code: the program; not needed if ``overrides`` has ``command``.
        :param computer: where it runs.
        :param overrides: ``command``: name or path of an executable on the computer; ``settings``: fields of
            :class:`aiida_oodal.engine.label.executable.ExecutableOptions`; ``files``: nodes by name; ``batch_size``;
            ``max_attempts``; ``max_failures``.
        :param options: of the jobs.
        :raises OodalError: if there is no command, or the computer does not have it.
        """
        overrides = dict(overrides or {})
        files = overrides.pop('files', {})
        values = load_protocol('label_shell', protocol, overrides, closed=True)
        builder = cls.get_builder()
        builder.job.code = _find_code(values['command'], code, computer)
        builder.job.metadata.options.update(get_job_options(computer, 'label', options))
        builder.settings = orm.Dict(values['settings'])
        builder.files = dict(files)
        for name in ('batch_size', 'max_attempts', 'max_failures'):
            if values[name] is not None:
                builder[name] = orm.Int(values[name])
        return builder

    @classmethod
    def get_level(cls, inputs: Mapping[str, Any]) -> LevelOfTheory:
        """Return the level that the user gave in words, else program, input and how the output is read."""
        options = ExecutableOptions.load(inputs['settings'].get_dict())
        if options.level:
            return LevelOfTheory('oodal.label.shell', {'level': options.level}, options.level)
        program = str(inputs['job']['code'].get_executable())
        settings = {name: value for name, value in options.plain().items() if name != 'level'}
        files = inputs['files'] if 'files' in inputs else {}  # noqa: SIM401  # inputs of a stored node have no `get`
        hashes = {name: hash_file(node) for name, node in sorted(dict(files).items())}
        return LevelOfTheory(
            'oodal.label.shell', {'program': program, 'files': hashes, **settings}, f'program {program}'
        )

    def count_at_once(self) -> int | None:
        """Return the size of the batch."""
        return int(self.inputs.batch_size.value)

    def make_jobs(self, nodes: Mapping[str, orm.StructureData]) -> Iterable[LabelJob]:
        """Make a process for each structure."""
        level = orm.Str(self.get_level(self.inputs).hash)
        for key, node in nodes.items():
            inputs = AttributeDict(self.exposed_inputs(ShellSingleWorkChain, agglomerate=False))
            inputs |= {'structure': node, 'key': orm.Str(key), 'level': level}
            yield LabelJob(ShellSingleWorkChain, inputs, [key])

    @classmethod
    def read_labels(
        cls, process: orm.ProcessNode, keys: Sequence[str]
    ) -> tuple[StructureSetData | None, dict[str, str]]:
        """Take the label of a process, or the reason why it made none."""
        if 'labels' in process.outputs:
            return process.outputs.labels, {}
        return None, dict.fromkeys(keys, explain_failure(process))


def _find_code(command: str | None, code: orm.AbstractCode, computer: orm.Computer) -> orm.AbstractCode:
    """Return the code of a command on a computer, or the one that is given."""
    if command is None:
        if is_engine(code):
            raise OodalError(
                "overrides: give `command`, the program that labels, such as '/opt/bin/mycode'; or a code of its own: "
                "stages={'label': {'code': ...}}"
            )
        return code
    try:
        found: orm.AbstractCode = prepare_code(command, computer)
    except ValueError as error:
        raise OodalError(f'computer {computer.label!r} has no command {command!r}: {error}') from error
    return found


def _check_inputs(inputs: Any) -> str | None:
    """Refuse arguments that name a file that is not there, and options that the computer does not have."""
    if 'settings' not in inputs or 'code' not in inputs.get('job', {}):
        return None
    try:
        words = shlex.split(ExecutableOptions.load(inputs['settings'].get_dict()).arguments)
    except (OodalError, ValueError) as error:
        return f'settings: {error}'
    files = inputs.get('files', {})
    if 'input' in files:
        return "files: 'input' is what the input of the structure is called; choose another name"
    for word in words:
        name = word.partition('{')[2].partition('}')[0]
        if name and name not in {'input', *files}:
            return f'arguments: {word!r} names no file; there are {", ".join(sorted({"input", *files}))}'
    computer = inputs['job']['code'].computer
    if computer is None:
        return f'code {inputs["job"]["code"].label!r} is on no computer: give a program that is installed on one'
    return check_job_options(computer, 'label', inputs['job'].get('metadata', {}).get('options', {}))
