"""Find out how wrong a potential or an ensemble is on labelled structures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser
from aiida_oodal.calculations.learned import define_learned, describe_learned
from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import (
    ENDS_FILE,
    JUDGED_FILE,
    JUDGED_VALIDATION_FILE,
    RESULTS_FILE,
    STARTS_FILE,
    STRUCTURES_FILE,
    VALIDATION_FILE,
)
from aiida_oodal.engine.labels import FORCES
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.trust.audit import WALKER
from aiida_oodal.engine.trust.judge import read_validation


class JudgeCalculation(EngineCalculation):
    """Labelled structures and a potential or an ensemble -> its errors and gamma, atom by atom."""

    COMMAND = 'judge'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs."""
        super().define(spec)
        spec.input(
            'structures',
            valid_type=StructureSetData,
            help='Labelled structures; of clusters, which have `force_mask`, the core atoms count.',
        )
        spec.input(
            'validation',
            valid_type=StructureSetData,
            required=False,
            help='A further labelled set, of which only gamma and the errors are kept.',
        )
        spec.input_namespace(
            'starts',
            valid_type=(StructureSetData, orm.StructureData),
            dynamic=True,
            required=False,
            help='The structures that walkers began with, by the names of the walkers.',
        )
        spec.input_namespace(
            'ends',
            valid_type=StructureSetData,
            dynamic=True,
            required=False,
            help='Their last frames, by the same names: the numbers of neighbours in first and last are compared.',
        )
        define_learned(spec, text='The potential or ensemble that is judged.')
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.judge'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, ports: previous(inputs, ports) or _validate(inputs, ports)
        spec.output(
            'results',
            valid_type=orm.Dict,
            help='`structures` has for each structure its force errors [meV/angstrom] and its largest gamma; `walkers` '
            'has for each walker the atoms without neighbours, and the neighbours per atom relative to its start.',
        )
        spec.output(
            'judged',
            valid_type=StructureSetData,
            help='The structures with the arrays `gamma` and `force_error`, the length of the difference of predicted '
            'forces and labels [eV/angstrom]; each has the shape (n_atoms,).',
        )
        spec.output(
            'judged_validation',
            valid_type=orm.ArrayData,
            required=False,
            help='The arrays `gamma`, `force_error` and `structure`, the position of its structure in the set, of all '
            'atoms of the validation set; each has the shape (n_atoms,).',
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the structures, and the potential or ensemble that is judged."""
        inputs = self.inputs
        learned = describe_learned(inputs)
        structures = {STRUCTURES_FILE: inputs.structures.get_set()}
        if 'validation' in inputs:
            structures[VALIDATION_FILE] = inputs.validation.get_set()
        for port, file in (('starts', STARTS_FILE), ('ends', ENDS_FILE)):
            if inputs.get(port):
                structures[file] = _collect(inputs[port])
        job = {
            'structures': STRUCTURES_FILE,
            'validation': VALIDATION_FILE if 'validation' in inputs else None,
            'starts': STARTS_FILE if STARTS_FILE in structures else None,
            'ends': ENDS_FILE if ENDS_FILE in structures else None,
            'elements': learned.elements,
            'learned': learned.job,
        }
        calc_info = self.write_job(
            folder,
            job,
            structures=structures,
            copies=learned.copies,
            retrieve=[RESULTS_FILE],
            retrieve_temporary=[JUDGED_FILE, *([JUDGED_VALIDATION_FILE] if 'validation' in inputs else [])],
        )
        calc_info.provenance_exclude_list += learned.write_files(Path(folder.abspath))
        return calc_info


class JudgeParser(EngineParser):
    """Read the errors."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the errors and the structures."""
        self.out('results', orm.Dict(self.read_results()))
        self.attach_structures('judged', temporary / JUDGED_FILE)
        if 'validation' in self.node.inputs:
            self.out('judged_validation', orm.ArrayData(read_validation(temporary / JUDGED_VALIDATION_FILE)))
        return None


def _collect(nodes: Mapping[str, orm.Data]) -> StructureSet:
    """Return the first structure of every node; it has the name of its walker."""
    frames = []
    for name, node in sorted(nodes.items()):
        atoms = get_structures(node)[0]
        atoms.info = {WALKER: name}
        frames.append(atoms)
    return StructureSet.from_atoms(frames)


def _validate(inputs: Any, ports: Any) -> str | None:
    """Refuse what cannot be judged; ports that a caller excluded are filled in later."""
    if 'structures' not in ports or 'structures' not in inputs:
        return None
    return next(filter(None, (refuse_set(inputs, name) for name in ('structures', 'validation'))), None)


def refuse_set(inputs: Mapping[str, Any], name: str) -> str | None:
    """Return why a labelled set among the inputs cannot be judged, or None, also if it is not there.

    :param inputs: the set under its name, and the potential or ensemble, see :func:`.describe_learned`.
    """
    if name not in inputs:
        return None
    try:
        known = describe_learned(inputs).elements
    except OodalError as error:
        return str(error)
    properties = set(inputs[name].base.attributes.get('properties'))
    if FORCES not in properties:
        return f'{name}: the set has no labels ({FORCES}), only {", ".join(sorted(properties)) or "positions"}'
    if unknown := sorted(set(inputs[name].symbols) - set(known)):
        return f'{name}: the potential knows {", ".join(known)}, not {", ".join(unknown)}'
    return None
