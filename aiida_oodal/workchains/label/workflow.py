"""Labels by any AiiDA workflow, one process for each structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from aiida import orm
from aiida.common import InputValidationError
from aiida.engine import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.queue import LevelOfTheory
from aiida_oodal.workchains.protocols import load_protocol
from aiida_oodal.workchains.stages import check_inputs

from .adapter import Adapter, load_adapter, load_workflow
from .base import LabelJob, LabelWorkChain, explain_failure
from .ports import define_batch_size, validate_source
from .single import LabelSingleWorkChain, change, define_workflow

#: Ports that each label gets as they are.
_SHARED = ('workflow', 'settings', 'retries', 'max_force')


class WorkflowLabelWorkChain(LabelWorkChain):
    """Label by a workflow of another package, as its :class:`.Adapter` says; ``batch_size`` structures at once."""

    #: Entry point of the labeller.
    NAME: ClassVar[str] = 'oodal.label.workflow'
    #: Name of the adapter, where the labeller has only one.
    ADAPTER: ClassVar[str | None] = None

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs."""
        super().define(spec)
        define_workflow(spec)
        if cls.ADAPTER is not None:
            spec.inputs['adapter'].default = lambda: orm.Str(cls.ADAPTER)
        define_batch_size(
            spec, 20, 'How many structures are labelled at the same time: where one ended the next begins.'
        )
        spec.inputs.validator = cls._validate

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
        """Return a builder filled from the protocol of the adapter.

        :param code: the program that labels.
        :param computer: where it is.
        :param overrides: ``adapter`` (where the labeller has more than one), ``workflow``, ``settings``, ``retries``,
            ``batch_size``, ``max_force``, and what else the YAML of the adapter has.
        :param options: of every job; they win over those that the computer was set up with.
        :raises OodalError: if an override is not known, something is missing, or the code is for another program.
        """
        values = dict(overrides or {})
        name = cls.ADAPTER or values.pop('adapter', None)
        if name is None:
            raise OodalError("overrides: name the adapter, such as {'label': {'adapter': 'cp2k'}}")
        adapter = load_adapter(name)
        values = load_protocol(adapter.PROTOCOL, protocol, values, closed=True)
        if code.computer is not None and code.computer.uuid != computer.uuid:
            raise OodalError(
                f'code {code.full_label} is on {code.computer.label}, and jobs are to run on {computer.label}: in a '
                "campaign give stages={'label': {'code': ..., 'computer': ...}}"
            )
        job_options = get_job_options(computer, 'label', options)
        builder = cls.get_builder()
        builder.adapter = name
        builder.workflow, builder.settings = adapter.fill(code, values, job_options)
        for port in ('retries', 'batch_size', 'max_force'):
            builder[port] = values[port]
        return builder

    @classmethod
    def get_level(cls, inputs: Mapping[str, Any]) -> LevelOfTheory:
        """Return what the adapter says of its inputs."""
        name = cls._get_adapter_name(inputs)
        adapter = load_adapter(name)
        settings = adapter.get_level(inputs['workflow'], _get_settings(inputs))
        words = adapter.describe_level(inputs['workflow'])
        return LevelOfTheory(cls.NAME, settings if cls.ADAPTER else {'adapter': name, **settings}, words)

    @classmethod
    def check_symbols(cls, inputs: Mapping[str, Any], symbols: set[str]) -> str | None:
        """Ask the adapter whether it is prepared for all elements."""
        adapter = load_adapter(cls._get_adapter_name(inputs))
        return adapter.check(inputs['workflow'], _get_settings(inputs), symbols)

    def count_at_once(self) -> int:
        """Return the size of the batch."""
        return int(self.inputs.batch_size.value)

    def make_jobs(self, nodes: Mapping[str, orm.StructureData]) -> Iterable[LabelJob]:
        """Return a process for each structure."""
        shared = {name: self.inputs[name] for name in _SHARED}
        shared |= {'adapter': self.inputs.adapter, 'level': orm.Str(self.get_level(self.inputs).hash)}
        for key, node in nodes.items():
            yield LabelJob(LabelSingleWorkChain, {**shared, 'key': orm.Str(key), 'structure': node}, [key])

    @classmethod
    def fill_elements(cls, overrides: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
        """Name the elements, for which pseudopotentials are looked up."""
        return {'elements': list(symbols), **overrides}

    @classmethod
    def read_labels(
        cls, process: orm.ProcessNode, keys: Sequence[str]
    ) -> tuple[StructureSetData | None, dict[str, str]]:
        """Take the label, or the reason why there is none."""
        if process.is_finished_ok:
            return process.outputs.labels, {}
        return None, dict.fromkeys(keys, explain_failure(process))

    @classmethod
    def _get_adapter_name(cls, inputs: Mapping[str, Any]) -> str:
        return cls.ADAPTER or str(inputs['adapter'].value)

    @classmethod
    def _validate(cls, inputs: Any, ports: Any) -> str | None:
        """Refuse what the workflow would refuse, before anything is submitted."""
        try:
            return validate_source(inputs, ports) or cls._check_workflow(inputs)
        except (OodalError, InputValidationError) as error:  # some plugins raise where AiiDA wants a sentence
            return str(error)

    @classmethod
    def _check_workflow(cls, inputs: Any) -> str | None:
        name, settings = cls._get_adapter_name(inputs), _get_settings(inputs)
        if 'adapter' in inputs and inputs['adapter'].value != name:
            return f'adapter = {inputs["adapter"].value!r}: this labeller has {name!r} only; use oodal.label.workflow'
        adapter = load_adapter(name)
        if problem := check_inputs(load_workflow(adapter), inputs['workflow'], adapter.GIVEN):
            return f'workflow: {problem}'
        symbols = {kind.symbol for node in inputs.get('clusters', {}).values() for kind in node.kinds}
        if 'structures' in inputs:
            symbols |= set(inputs['structures'].symbols)
        return adapter.check(inputs['workflow'], settings, symbols or None) or _check_retries(
            adapter, inputs['workflow'], settings, inputs['retries'].get_list() if 'retries' in inputs else []
        )


def _get_settings(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the adapter's settings; a caller that has not been through the ports may have left them out."""
    return dict(inputs['settings'].get_dict()) if 'settings' in inputs else {}


def _check_retries(
    adapter: Adapter, workflow: Mapping[str, Any], settings: Mapping[str, Any], retries: Sequence[Mapping[str, Any]]
) -> str | None:
    """Refuse retries that change the level of theory: their labels would not be those that were asked for."""
    level = adapter.get_level(workflow, settings)
    for number, values in enumerate(retries):
        try:
            changed = adapter.get_level(change(workflow, values), settings)
        except OodalError as error:
            return f'retries[{number}]: {error}'
        if changed != level:
            return f'retries[{number}] = {values} changes the level of theory: its labels would be others'
    return None
