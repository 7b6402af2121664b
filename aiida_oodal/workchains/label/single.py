"""One structure, labelled by a workflow of another package: tried again with other settings if it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, Process, ToContext, calcfunction, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.explained import explained
from aiida_oodal.data import StructureSetData, get_structures, is_cut
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import LEVEL, QUEUE_KEY
from aiida_oodal.workchains.protocols import merge
from aiida_oodal.workchains.resuming import ResumingWorkChain

from .adapter import load_adapter, load_workflow
from .values import label_atoms


class LabelSingleWorkChain(ResumingWorkChain):
    """Run the workflow of an adapter on one structure until it succeeds, and make a label of what it found."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.input('structure', valid_type=orm.StructureData, help='What to label.')
        spec.input('key', valid_type=orm.Str, help='Key of its entry in the queue.')
        spec.input('level', valid_type=orm.Str, help='Hash of the level of theory.')
        define_workflow(spec)
        spec.outline(cls.setup, while_(cls.should_run)(cls.run_workflow, cls.inspect_workflow), cls.read_label)
        spec.output('labels', valid_type=StructureSetData, help='The structure with its label.')
        spec.exit_code(
            410,
            'ERROR_WORKFLOW_FAILED',
            message='{times} of {times} tries failed, the last: {message} `verdi process report {pk}` shows them all.',
        )
        spec.exit_code(411, 'ERROR_REFUSED', message='{message}')

    def setup(self) -> ExitCode | None:
        """Name the kinds after their elements."""
        structure = self.inputs.structure
        self.ctx.structure = structure
        self.ctx.tries = 0
        self.ctx.is_done = False
        if any(kind.is_alloy or kind.has_vacancies for kind in structure.kinds):
            return self.exit_codes.ERROR_INPUT.format(
                message=f'the sites of StructureData<{structure.pk}> are partly occupied or mixed: label structures '
                'with one element on each site'
            )
        if any(kind.name != kind.symbol for kind in structure.kinds):
            self.ctx.structure = self.result_of('drop_kinds', drop_kinds, structure=structure)
        return None

    def should_run(self) -> bool:
        """Tell whether the workflow has not succeeded."""
        return not self.ctx.is_done

    def run_workflow(self) -> ToContext | ExitCode:
        """Submit the workflow, from the second time on with other settings."""
        adapter = load_adapter(self.inputs.adapter.value)
        inputs = dict(self.inputs.workflow)
        if self.ctx.tries:
            inputs = change(inputs, self.inputs.retries[self.ctx.tries - 1])
        settings, structure = self.inputs.settings.get_dict(), self.ctx.structure
        if problem := adapter.check(inputs, settings, {kind.symbol for kind in structure.kinds}):
            return self.exit_codes.ERROR_INPUT.format(message=problem)
        is_cluster = is_cut(self.inputs.structure)
        try:
            made = adapter.make_inputs(inputs, settings, structure, is_cluster=is_cluster)
        except OodalError as error:
            return self.exit_codes.ERROR_INPUT.format(message=str(error))
        self.ctx.tries += 1
        child = self.submit_once(f'try_{self.ctx.tries}', load_workflow(adapter), AttributeDict(made))
        return ToContext(workflow=child)

    def inspect_workflow(self) -> ExitCode | None:
        """Go on if it succeeded; if it did not, try the next settings."""
        child = self.ctx.workflow
        self.ctx.is_done = child.is_finished_ok or _gave_all(self.inputs.adapter.value, child)
        if self.ctx.is_done:
            return None
        message = explain_deepest(child)
        self.report(f'try {self.ctx.tries} failed: {message}')
        if self.ctx.tries > len(self.inputs.retries) or child.is_killed:
            return self.exit_codes.ERROR_WORKFLOW_FAILED.format(times=self.ctx.tries, message=message, pk=self.node.pk)
        return None

    def read_label(self) -> ExitCode | None:
        """Make a label of what the workflow found."""
        adapter, child = load_adapter(self.inputs.adapter.value), self.ctx.workflow
        missing = [name for name in adapter.OUTPUTS if name not in child.outputs]
        if missing:
            return self.exit_codes.ERROR_REFUSED.format(
                message=f'{child.process_label}<{child.pk}> succeeded without the output {missing[0]!r}'
            )
        request = orm.Dict({name: self.inputs[name].value for name in ('key', 'level', 'adapter', 'max_force')})
        outputs = {name: child.outputs[name] for name in adapter.OUTPUTS}
        labels, node = self.run_once('read_label', read_label, cell=self.inputs.structure, request=request, **outputs)
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_REFUSED.format(message=node.exit_message)
        self.out('labels', labels)
        return None


def _gave_all(adapter: str, child: orm.ProcessNode) -> bool:
    """Tell whether a workflow that misses a required output has all that make a label.

    Of a job whose worker was killed right after the upload AiiDA 2.9 never stores the output `remote_folder`.
    """
    missing = Process.exit_codes.ERROR_MISSING_OUTPUT.status
    return child.exit_status == missing and all(name in child.outputs for name in load_adapter(adapter).OUTPUTS)


def define_workflow(spec: WorkChainSpec) -> None:
    """Define what is common to the labels of one labeller."""
    spec.input(
        'adapter',
        valid_type=orm.Str,
        serializer=orm.to_aiida_type,
        help='Which workflow labels and how: an entry point of the group `aiida_oodal.adapters`, such as cp2k, or '
        '`package.module:Class`.',
    )
    spec.input_namespace(
        'workflow', dynamic=True, help='Inputs of the workflow, without those that depend on the structure.'
    )
    spec.input(
        'settings',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Dict({}),
        help='Settings of the adapter, beside the inputs of the workflow.',
    )
    spec.input(
        'retries',
        valid_type=orm.List,
        serializer=orm.to_aiida_type,
        default=lambda: orm.List([]),
        help='What is changed in `workflow` when it failed once, twice, ...: nested values that win over those of its '
        'Dict nodes, such as {"pw": {"parameters": {"ELECTRONS": {"mixing_beta": 0.2}}}}. They must leave the level of '
        'theory as it is.',
    )
    spec.input(
        'max_force',
        valid_type=orm.Float,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Float(100.0),
        help='Largest force, eV/angstrom: a label with a longer one is refused.',
    )


@calcfunction
@explained
def read_label(cell: orm.StructureData, request: orm.Dict, **outputs: Any) -> StructureSetData:
    """Return a set of one structure with the label that a workflow found.

    :param cell: the structure.
    :param request: ``key`` of the entry in the queue, ``level`` (hash of the level of theory), ``adapter`` that reads
        the outputs, ``max_force`` (eV/angstrom, see :func:`.label_atoms`).
    :param outputs: of the workflow, by their labels.
    """
    (atoms,) = get_structures(cell)
    values = load_adapter(request['adapter']).read(outputs)
    labelled = label_atoms(atoms, values, max_force=request['max_force'])
    labelled.info |= {QUEUE_KEY: request['key'], LEVEL: request['level']}
    return StructureSetData([labelled])


@calcfunction
def drop_kinds(structure: orm.StructureData) -> orm.StructureData:
    """Return the structure with one kind for each element, named after it: tags do not change the label."""
    atoms = structure.get_ase()
    atoms.set_tags(0)
    return orm.StructureData(ase=atoms)


def change(inputs: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs of a workflow with other values in their Dict nodes.

    :param values: nested; namespaces first, then the content of the Dict.
    :raises OodalError: if a value would change an input that is no Dict and no namespace.
    """
    changed = dict(inputs)
    for name, value in values.items():
        before = changed.get(name)
        if isinstance(before, orm.Dict):
            changed[name] = orm.Dict(merge(before.get_dict(), value))
        elif isinstance(before, Mapping) and isinstance(value, Mapping):
            changed[name] = change(before, value)
        else:
            raise OodalError(f'{name!r} is no Dict among the inputs {", ".join(sorted(inputs))}: it cannot be changed')
    return changed


def explain_deepest(process: orm.ProcessNode) -> str:
    """Return how a process failed, with the message of the child that caused it, down to the job."""
    sentences: list[str] = []
    node: orm.ProcessNode | None = process
    while node is not None:
        message = node.exit_message or node.process_state.value
        sentences.append(f'{node.process_label}<{node.pk}>: {message}')
        failed = [child for child in node.called if not child.is_finished_ok] if hasattr(node, 'called') else []
        node = max(failed, key=lambda child: child.pk) if failed else None
    return ' '.join(sentences if len(sentences) < 3 else [sentences[0], sentences[-1]])
