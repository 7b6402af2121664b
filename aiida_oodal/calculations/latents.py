"""Turn structures into latents under every model of an ensemble."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.calculations.codes.engine_code import read_job_format
from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser, require_file
from aiida_oodal.data import LatentsData, MaceModelData, StructureSetData, get_structures
from aiida_oodal.engine.files import FAILURES_FILE, RESULTS_FILE, STRUCTURES_FILE
from aiida_oodal.engine.mace.latents_files import finish_interrupted
from aiida_oodal.engine.mace.latents_settings import LatentsSettings
from aiida_oodal.engine.structures import StructureSet


class LatentsCalculation(EngineCalculation):
    """Structures x models -> latents; graphs are built once for all models."""

    COMMAND = 'latents'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs, exit codes."""
        super().define(spec)
        spec.input(
            'structures',
            valid_type=(StructureSetData, orm.StructureData, orm.SinglefileData),
            help='Structures to evaluate. A file (extxyz, also .gz, .bz2 or .xz) is read by the job, one structure '
            'after the other.',
        )
        spec.input_namespace(
            'models',
            valid_type=MaceModelData,
            dynamic=True,
            help='The models by label: w1, w2, ... Those of one ensemble share cutoff, elements and layout.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=_validate_settings,
            help='Fields of `aiida_oodal.engine.mace.latents_settings.LatentsSettings`.',
        )
        spec.input(
            'start',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            required=False,
            help='First structure to evaluate, from 0; default: the first.',
        )
        spec.input(
            'stop',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            required=False,
            help='Structure to stop before; default: all are evaluated.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.latents'
        spec.input(
            'monitors.progress',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({'entry_point': 'oodal.progress', 'minimum_poll_interval': 60}),
            help='Monitor that writes the progress of the job into `verdi process report` once a minute.',
        )
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or _validate(inputs)

        spec.output_namespace(
            'latents', valid_type=LatentsData, dynamic=True, help='By label of the model; shape (n_atoms, n_features).'
        )
        spec.output(
            'results',
            valid_type=orm.Dict,
            help='Models, settings used, `failures` (structure, line, message) and `next_structure`.',
        )
        spec.exit_code(
            400,
            'ERROR_INTERRUPTED',
            message='the job was ended at structure {structure}: {tail} What it had finished is attached; go on with '
            'start={structure}.',
            invalidates_cache=True,
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the structures of this job, the models and the job file."""
        inputs = self.inputs
        (start, stop), first = _range(inputs), 0
        models = {label: f'{label}.model' for label in sorted(inputs.models)}
        copies = [(inputs.models[label].uuid, MaceModelData.MODEL, name) for label, name in models.items()]
        structures: dict[str, StructureSet] = {}
        if isinstance(inputs.structures, orm.SinglefileData):
            # The suffixes say how it is compressed.
            name = f'structures{"".join(PurePath(inputs.structures.filename).suffixes[-2:])}'
            copies.append((inputs.structures.uuid, inputs.structures.filename, name))
        else:
            name = STRUCTURES_FILE
            structures[name] = get_structures(inputs.structures)
            # A code made of an older engine takes what it is given for the whole set.
            if read_job_format(inputs.code) >= 1:
                first, structures[name] = start, structures[name].part(start, stop)
        settings = LatentsSettings.load(inputs.settings.get_dict())
        job = {
            'structures': name,
            'models': models,
            'settings': settings.plain(),
            'first': first,
            'start': start,
            'stop': stop,
        }
        own = ['latents', 'energies'] + (['forces'] if settings.forces else [])
        shared = ['numbers', 'offsets', 'structure_index', 'fingerprints', 'isolated']
        arrays = [*shared, *(f'{name}_{label}' for label in models for name in own)]
        return self.write_job(
            folder,
            job,
            structures=structures,
            copies=copies,
            retrieve=[],
            retrieve_temporary=[*(f'{name}.npy' for name in arrays), RESULTS_FILE, FAILURES_FILE],
        )


class LatentsParser(EngineParser):
    """Attach the latents, also those that a job had finished before it was ended from outside."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach what there is."""
        require_file(temporary / RESULTS_FILE)
        results = finish_interrupted(temporary)
        self.out('results', orm.Dict(results))
        if results['n_structures']:
            layers = results['settings'].get('layers')
            for label, information in results['models'].items():
                node = LatentsData.from_folder(temporary, label, {'layers': layers, **information})
                self.out(f'latents.{label}', node)
        if results['next_structure'] is not None:
            return self.exit_codes.ERROR_INTERRUPTED.format(structure=results['next_structure'], tail=self.tail())
        return None


def _validate_settings(node: orm.Dict, _: Any) -> str | None:
    return LatentsSettings.check(node.get_dict())


def _validate(inputs: Any) -> str | None:
    """Refuse a job that has nothing to do; ports may be missing where this is exposed."""
    if 'models' in inputs and not inputs['models']:
        return 'give at least one model: models={"w1": MaceModelData, ...}'
    structures = inputs.get('structures')
    if isinstance(structures, (StructureSetData, orm.StructureData)):
        count = structures.n_structures if isinstance(structures, StructureSetData) else 1
        start, stop = _range(inputs)
        stop = count if stop is None else stop
        if not 0 <= start < min(stop, count):
            return f'structures {start} to {stop} (exclusive) of a set of {count}: this range is empty'
    return None


def _range(inputs: Any) -> tuple[int, int | None]:
    """Return the first structure of a job, and the one to stop before if that is given."""
    start, stop = inputs.get('start'), inputs.get('stop')
    return 0 if start is None else start.value, None if stop is None else stop.value
