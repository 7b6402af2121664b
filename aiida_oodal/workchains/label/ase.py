"""Labels by any ASE calculator, many structures in one job and several jobs at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.job.cost import count_core_hours
from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.calculations.label import LabelCalculation, check_files, get_ase_level
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.label.calculators import find_elements
from aiida_oodal.engine.labels import QUEUE_KEY
from aiida_oodal.queue import LevelOfTheory
from aiida_oodal.workchains.protocols import load_protocol

from .base import LabelJob, LabelWorkChain, explain_failure
from .ports import define_batch_size

#: Ports that say what labels.
_CALCULATOR = ('calculator', 'files')


class AseLabelWorkChain(LabelWorkChain):
    """Label by an ASE calculator. A job labels structures of similar size, as many at a time as it has cores.

    If a structure fails, the others of the job are labelled all the same. Labels do not depend on how structures are
    divided among jobs, nor on the number of cores.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs."""
        super().define(spec)
        shared = spec.inputs.validator  # exposing inputs would replace it
        spec.expose_inputs(LabelCalculation, namespace='job', exclude=('clusters', 'structures', *_CALCULATOR))
        spec.expose_inputs(LabelCalculation, include=_CALCULATOR)
        define_batch_size(spec, 500, 'How many structures go into one job at most; the jobs are submitted together.')
        spec.inputs.validator = lambda inputs, ports: shared(inputs, ports) or _check_calculator(inputs)

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
        """Return a builder filled from ``protocols/label_ase.yaml``.

        :param code: the engine's code, see :func:`aiida_oodal.calculations.codes.get_engine_code`.
        :param computer: where the job runs.
        :param overrides: ``calculator``: ``{'calculator': name, 'parameters': {...}}``; ``files``: by name a node that
            the parameters name in braces; ``batch_size``; ``max_attempts``; ``max_failures``.
        :param options: of the job; they win over those that the computer was set up with.
        """
        overrides = dict(overrides or {})
        files = overrides.pop('files', {})
        values = load_protocol('label_ase', protocol, overrides, closed=True)
        builder = cls.get_builder()
        builder.job.code = code
        builder.job.metadata.computer = computer
        builder.job.metadata.options.update(get_job_options(computer, 'label', options))
        builder.calculator = orm.Dict(values['calculator'])
        builder.files = dict(files)
        for name in ('batch_size', 'max_attempts', 'max_failures'):
            if values[name] is not None:
                builder[name] = orm.Int(values[name])
        return builder

    @classmethod
    def get_level(cls, inputs: Mapping[str, Any]) -> LevelOfTheory:
        """Return the calculator, its parameters and the content of its files."""
        files = inputs['files'] if 'files' in inputs else {}  # noqa: SIM401  # inputs of a stored node have no `get`
        return get_ase_level(inputs['calculator'].get_dict(), files)

    @classmethod
    def check_symbols(cls, inputs: Mapping[str, Any], symbols: set[str]) -> str | None:
        """Refuse elements that the calculator has no parameters for, where it says which it has."""
        name = inputs['calculator']['calculator']
        known = find_elements(name)
        unknown = sorted(symbols - set(known or symbols))
        if not unknown:
            return None
        return (
            f'calculator {name!r} does not know {", ".join(unknown)}, only {", ".join(sorted(known or ()))}: choose '
            'one that knows all elements of the campaign'
        )

    def make_jobs(self, nodes: Mapping[str, orm.StructureData]) -> Iterable[LabelJob]:
        """Put structures into jobs, those of a size together."""
        by_size = sorted(nodes, key=lambda key: (len(nodes[key].base.attributes.get('sites')), key))
        size = self.inputs.batch_size.value
        for start in range(0, len(by_size), size):
            keys = by_size[start : start + size]
            inputs = AttributeDict(self.exposed_inputs(LabelCalculation, 'job', agglomerate=False))
            inputs |= {name: self.inputs[name] for name in _CALCULATOR if name in self.inputs}
            inputs.clusters = {key: nodes[key] for key in keys}
            yield LabelJob(LabelCalculation, inputs, keys)

    @classmethod
    def read_labels(
        cls, process: orm.ProcessNode, keys: Sequence[str]
    ) -> tuple[StructureSetData | None, dict[str, str]]:
        """Take what the job labelled; its own words say why it did not label the others."""
        results = process.outputs.results.get_dict() if 'results' in process.outputs else None
        labels = process.outputs.labels if 'labels' in process.outputs else None
        if results is None:
            return labels, dict.fromkeys(keys, explain_failure(process)) if labels is None else {}
        return labels, {failure[QUEUE_KEY]: failure['message'] for failure in results['failures']}

    @classmethod
    def read_costs(cls, process: orm.ProcessNode, keys: Sequence[str]) -> dict[str, float]:
        """Share what the job cost among the structures by the time that each took."""
        hours = count_core_hours(process)
        seconds = process.outputs.results.get('seconds', {}) if 'results' in process.outputs else {}
        total = sum(seconds.values())
        if hours is None or total <= 0:
            return super().read_costs(process, keys)
        return {key: hours * seconds[key] / total for key in keys if key in seconds}


def _check_calculator(inputs: Any) -> str | None:
    """Refuse files that the calculator does not name, and names without a file."""
    return check_files(inputs['calculator'], inputs.get('files', {})) if 'calculator' in inputs else None
