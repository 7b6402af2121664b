"""Labels by an ASE calculator."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.common.hashing import chunked_file_hash
from aiida.engine import CalcJobProcessSpec, ExitCode
from aiida.engine.processes.ports import PortNamespace
from ase import Atoms
from ase.calculators.names import names as ase_names

from aiida_oodal.calculations.job.cost import count_cores
from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser
from aiida_oodal.data import ClusterData, StructureSetData, get_structures
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import LABELS_FILE, RESULTS_FILE, STRUCTURES_FILE
from aiida_oodal.engine.label.calculators import find_class, read_specification
from aiida_oodal.engine.label.level import LevelOfTheory
from aiida_oodal.engine.label.parameters import find_placeholders, find_unknown, insert_files
from aiida_oodal.engine.labels import LEVEL, QUEUE_KEY
from aiida_oodal.engine.structures import StructureSet


class LabelCalculation(EngineCalculation):
    """Energy, forces and stress of clusters or of a structure set."""

    COMMAND = 'label'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs, exit codes."""
        super().define(spec)
        spec.input_namespace(
            'clusters',
            valid_type=(ClusterData, orm.StructureData),
            dynamic=True,
            required=False,
            help='Structures to label, by the key of their queue entry.',
        )
        spec.input('structures', valid_type=StructureSetData, required=False, help='Structures to label.')
        spec.input(
            'calculator',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            validator=validate_calculator,
            help='The calculator that labels: {"calculator": name of an ASE calculator, "parameters": {...}}.',
        )
        spec.input_namespace(
            'files',
            valid_type=orm.SinglefileData,
            dynamic=True,
            required=False,
            help='Files that the calculator needs, such as a model, by name: where a parameter says "{name}", the '
            'calculator gets the path of the file.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.label'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or _validate_source(inputs, context)

        spec.output(
            'labels',
            valid_type=StructureSetData,
            help='The structures with REF_energy [eV], REF_forces [eV/angstrom] and, for periodic ones, REF_stress '
            '[eV/angstrom^3]. Those made from `clusters` name their key in `queue_key` and keep `force_mask`.',
        )
        spec.output('results', valid_type=orm.Dict, help='How many were labelled, and why the others were not.')
        spec.exit_code(
            400,
            'ERROR_INTERRUPTED',
            message='the job was ended after {done} of {total} structures: {tail} The labels that it had are in the '
            'output `labels`; the others have to be sent again.',
            invalidates_cache=True,
        )
        spec.exit_code(
            410,
            'ERROR_SOME_NOT_LABELLED',
            message='{failed} of {total} structures could not be labelled; the first: {message} The labels of the '
            'others are in the output `labels`.',
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the structures and the choice of calculator."""
        nodes = self.inputs.get('files', {})
        files = {name: f'{name}_{node.filename}' for name, node in nodes.items()}
        calculator = self.inputs.calculator.get_dict()
        job = {
            'structures': STRUCTURES_FILE,
            'calculator': calculator,
            'files': files,
            'cores': count_cores(self.options.resources),
            'workers': count_workers(calculator, self.options),
        }
        return self.write_job(
            folder,
            job,
            structures={STRUCTURES_FILE: self._collect()},
            copies=[(node.uuid, node.filename, files[name]) for name, node in nodes.items()],
            retrieve=[RESULTS_FILE],
            retrieve_temporary=[LABELS_FILE],
        )

    def _collect(self) -> StructureSet:
        level = get_ase_level(self.inputs.calculator.get_dict(), self.inputs.get('files', {})).hash
        frames: list[Atoms] = []
        if 'structures' in self.inputs:
            frames = list(get_structures(self.inputs.structures))
        for key, node in sorted(self.inputs.get('clusters', {}).items()):
            (atoms,) = get_structures(node)
            atoms.info[QUEUE_KEY] = key
            frames.append(atoms)
        for atoms in frames:
            atoms.info[LEVEL] = level
        return StructureSet.from_atoms(frames)


class LabelParser(EngineParser):
    """Read the labels."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the labels that were made; say which were not."""
        results = self.attach_results()
        if results['n_labelled']:
            self.attach_structures('labels', temporary / LABELS_FILE)
        failures = results['failures']
        if not results['complete']:
            done, total = results['n_labelled'] + len(failures), results['n_structures']
            return self.exit_codes.ERROR_INTERRUPTED.format(done=done, total=total, tail=self.tail())
        if failures:
            return self.exit_codes.ERROR_SOME_NOT_LABELLED.format(
                failed=len(failures), total=results['n_structures'], message=failures[0]['message']
            )
        return None


def get_ase_level(
    calculator: Mapping[str, Any], files: Mapping[str, orm.SinglefileData] | None = None
) -> LevelOfTheory:
    """Return the level of theory of an ASE calculator.

    :param calculator: ``{'calculator': name, 'parameters': {...}}``.
    :param files: that it needs, by name; their content counts.
    """
    name, parameters = calculator['calculator'], calculator.get('parameters', {})
    settings: dict[str, Any] = {'calculator': name, 'parameters': parameters}
    if files:
        settings['files'] = {key: hash_file(node) for key, node in sorted(files.items())}
    words = ' '.join([name.rpartition(':')[2], *(f'{key}={value}' for key, value in sorted(parameters.items()))])
    return LevelOfTheory('oodal.label.ase', settings, words)


def hash_file(node: orm.SinglefileData) -> str:
    """Return the SHA-256 of the content of a file."""
    # hashlib.file_digest refuses the stream of a file that `verdi storage maintain` has packed
    with node.open(mode='rb') as handle:
        digest: str = chunked_file_hash(handle, hashlib.sha256)
    return digest


def validate_calculator(node: orm.Dict, _: Any) -> str | None:
    """Refuse a calculator that is not well formed or unknown to ASE, and parameters that a calculator of ASE ignores.

    Whether a calculator of another package, or the program it needs, is installed is only known on the compute node.
    """
    try:
        name, parameters = read_specification(node.get_dict())
        if ':' in name:
            return None
        try:
            factory = find_class(name)
        except OodalError as error:
            # A package that is missing here may be there; a name that ASE does not have is nowhere.
            return None if name in ase_names else str(error)
    except OodalError as error:
        return str(error)
    problem = find_unknown(factory, parameters)
    return None if problem is None else f'calculator {name!r}: {problem}'


def check_files(calculator: orm.Dict, files: Mapping[str, Any]) -> str | None:
    """Say that a file is not used, or that one is missing; None if they are those that the parameters name."""
    named = find_placeholders(calculator.get_dict().get('parameters', {}))
    if unused := sorted(set(files) - named):
        return f'files: {unused[0]!r} is not used: write "{{{unused[0]}}}" where a parameter is to be its path'
    try:
        insert_files(calculator.get_dict().get('parameters', {}), dict.fromkeys(files, Path()))
    except OodalError as error:
        return str(error)
    return None


def _validate_source(inputs: Any, namespace: PortNamespace) -> str | None:
    if 'calculator' in inputs and (problem := check_files(inputs['calculator'], inputs.get('files', {}))):
        return problem
    if 'structures' not in namespace:
        return None  # exposed without them: the WorkChain gives them later
    if bool(inputs.get('clusters')) == ('structures' in inputs):
        return 'give either `clusters` or `structures` to label, and not both'
    return None


def count_workers(calculator: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """Return how many structures a job labels at a time: what its cores allow, one on a GPU.

    :param calculator: as the input of this name.
    :param options: of the job.
    """
    if str(calculator.get('parameters', {}).get('device', 'cpu')) != 'cpu':
        return 1
    threads = options.get('environment_variables', {}).get('OMP_NUM_THREADS', 1)
    return max(1, count_cores(options['resources']) // max(1, int(threads)))
