"""Reference labels by an ASE calculator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode
from aiida.engine.processes.ports import PortNamespace

from aiida_oodal.data import ClusterData, StructureSetData, get_structures
from aiida_oodal.engine.structures import StructureSet

from .engine_job import RESULTS_FILE, EngineCalculation, EngineParser


class LabelCalculation(EngineCalculation):
    """Energy, forces and stress of clusters or of a structure set."""

    COMMAND = 'label'
    STRUCTURES_FILE = 'structures.npz'
    LABELS_FILE = 'labels.npz'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs, exit codes."""
        super().define(spec)
        spec.input_namespace(
            'clusters', valid_type=ClusterData, dynamic=True, required=False, help='Clusters to label, by any key.'
        )
        spec.input('structures', valid_type=StructureSetData, required=False, help='Structures to label.')
        spec.input(
            'reference',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            validator=validate_reference,
            help='What labels: {"calculator": name of an ASE calculator, "parameters": {...}}.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.label'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or _validate_source(inputs, context)

        spec.output(
            'labels',
            valid_type=StructureSetData,
            help='The structures with REF_energy [eV], REF_forces [eV/angstrom] and, for periodic ones, REF_stress '
            '[eV/angstrom^3]. Those made from clusters name their key in `cluster` and keep `force_mask`.',
        )
        spec.output('results', valid_type=orm.Dict, help='How many were labelled, and why the others were not.')
        spec.exit_code(
            410,
            'ERROR_SOME_NOT_LABELLED',
            message='{failed} of {total} structures could not be labelled; the first: {message} The labels of the '
            'others are in the output `labels`.',
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the structures and the choice of reference."""
        job = {'structures': self.STRUCTURES_FILE, 'reference': self.inputs.reference.get_dict()}
        return self.write_job(
            folder,
            job,
            structures={self.STRUCTURES_FILE: self._collect()},
            retrieve=[RESULTS_FILE],
            retrieve_temporary=[self.LABELS_FILE],
        )

    def _collect(self) -> StructureSet:
        if 'structures' in self.inputs:
            return get_structures(self.inputs.structures)
        frames = []
        for key, cluster in sorted(self.inputs.clusters.items()):
            atoms = cluster.get_atoms()
            atoms.info['cluster'] = key
            frames.append(atoms)
        return StructureSet.from_atoms(frames)


class LabelParser(EngineParser):
    """Read the labels."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the labels that were made; say which were not."""
        results = self.attach_results()
        if results['n_labelled']:
            self.attach_structures('labels', temporary / LabelCalculation.LABELS_FILE)
        failures = results['failures']
        if failures:
            return self.exit_codes.ERROR_SOME_NOT_LABELLED.format(
                failed=len(failures), total=results['n_structures'], message=failures[0]['message']
            )
        return None


def validate_reference(node: orm.Dict, _: Any) -> str | None:
    """Refuse a reference that is not well formed; whether its calculator is installed the compute node says."""
    spec = node.get_dict()
    if not isinstance(spec.get('calculator'), str) or not isinstance(spec.get('parameters', {}), dict):
        return f'reference must be {{"calculator": "name", "parameters": {{...}}}}, got {spec}'
    unknown = sorted(set(spec) - {'calculator', 'parameters'})
    return f'reference has unknown entries: {", ".join(unknown)}' if unknown else None


def _validate_source(inputs: Any, namespace: PortNamespace) -> str | None:
    if 'structures' not in namespace:
        return None  # exposed without them: the WorkChain gives them later
    if bool(inputs.get('clusters')) == ('structures' in inputs):
        return 'give either `clusters` or `structures` to label, not both and not none'
    return None
