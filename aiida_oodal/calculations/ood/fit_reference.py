"""Fit the reference of an ensemble: everything that scores need to know of its training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser
from aiida_oodal.data import LatentsData, OodReferenceData, StructureSetData
from aiida_oodal.data.latents import copy_shards, group_shards
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import LABEL_FORCES_FILE, MASK_FILE, OFFSETS_FILE, REFERENCE_FOLDER, RESULTS_FILE
from aiida_oodal.engine.ood.fitting import FitOptions

#: Array of reference forces in a set of structures.
_FORCES = 'atoms__REF_forces.npy'
#: That of masks.
_MASK = 'atoms__force_mask.npy'


class FitReferenceCalculation(EngineCalculation):
    """Latents of the training set and of the held-out set -> the reference of an ensemble, or of one model."""

    COMMAND = 'fit-reference'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs."""
        super().define(spec)
        spec.input_namespace(
            'reference',
            valid_type=LatentsData,
            dynamic=True,
            help='Latents of the structures that the models were trained on: one node for each model and shard, by any '
            'key.',
        )
        spec.input_namespace(
            'heldout',
            valid_type=LatentsData,
            dynamic=True,
            required=False,
            help='Latents of similar structures that the models were not trained on; they set the thresholds. Without '
            'them a part of the reference set is held out.',
        )
        spec.input(
            'labelled',
            valid_type=StructureSetData,
            required=False,
            help='The structures of `heldout`, or of `reference` if there is no `heldout`. Their REF_forces turn the '
            'scores into eV/angstrom, if the latents were computed with forces.',
        )
        spec.input_namespace(
            'structures',
            valid_type=StructureSetData,
            dynamic=True,
            required=False,
            help='Under the keys `reference` and `heldout` the structures of these latents. If they have a force_mask, '
            'atoms with 0 were not trained on and are left out.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=validate_fit_settings,
            help='Fields of `aiida_oodal.engine.ood.fitting.FitOptions`.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.fit_reference'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or _validate(inputs, context)
        spec.output(
            'reference', valid_type=OodReferenceData, help='Alignment, densities and thresholds for these models.'
        )
        spec.output(
            'results', valid_type=orm.Dict, help='`notes` that a user should read, numbers of structures, metrics.'
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the job file; latents and labels are copied from node to job as they are."""
        inputs = self.inputs
        job: dict[str, Any] = {
            'settings': FitOptions.load(inputs.settings.get_dict()).plain(),
            'models': {
                label: vars(node.identity) for label, node in group_shards(inputs.reference.values())[0].items()
            },
        }
        copies = []
        for name in ('reference', 'heldout'):
            files, job[name] = copy_shards(inputs.get(name, {}).values(), name)
            copies += files
        if 'labelled' in inputs and 'REF_forces' in inputs.labelled.base.attributes.get('properties'):
            job['labels'] = 'labels'
            copies += [
                (inputs.labelled.uuid, OFFSETS_FILE, f'labels/{OFFSETS_FILE}'),
                (inputs.labelled.uuid, _FORCES, f'labels/{LABEL_FORCES_FILE}'),
            ]
        for name, node in inputs.get('structures', {}).items():
            if 'force_mask' in node.base.attributes.get('properties'):
                job.setdefault('masks', {})[name] = f'mask_{name}'
                copies += [
                    (node.uuid, OFFSETS_FILE, f'mask_{name}/{OFFSETS_FILE}'),
                    (node.uuid, _MASK, f'mask_{name}/{MASK_FILE}'),
                ]
        return self.write_job(
            folder, job, copies=copies, retrieve=[RESULTS_FILE], retrieve_temporary=[REFERENCE_FOLDER]
        )


class FitReferenceParser(EngineParser):
    """Take the reference as it is."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the reference and the notes about it."""
        self.attach_results()
        self.out('reference', OodReferenceData.from_folder(temporary / REFERENCE_FOLDER))
        return None


def validate_fit_settings(node: orm.Dict, _: Any) -> str | None:
    """Refuse wrong settings at submission."""
    return FitOptions.check(node.get_dict())


def _validate(inputs: Any, ports: Any) -> str | None:
    """Refuse latents that do not belong together; ports may be missing where this is exposed."""
    if not inputs.get('reference'):
        return (
            ('reference is missing: give the latents of the structures that the models were trained on')
            if 'reference' in ports
            else None
        )
    try:
        groups = [group_shards(inputs[name].values()) for name in ('reference', 'heldout') if inputs.get(name)]
        options = FitOptions.load(inputs['settings'].get_dict() if 'settings' in inputs else {})
        options.for_models(len(groups[0][0]))
    except OodalError as error:
        return str(error)
    if unknown := sorted(set(inputs.get('structures', {})) - {'reference', 'heldout'}):
        return f'structures.{unknown[0]} is none of reference, heldout'
    labels = [list(shards[0]) for shards in groups]
    if labels[0] != labels[-1]:
        return f'reference has latents of {", ".join(labels[0])}, heldout of {", ".join(labels[-1])}'
    known = {label: node.identity for label, node in groups[0][0].items()}
    for shard in (shard for shards in groups for shard in shards):
        for label, node in shard.items():
            if difference := known[label].differs_from(node.identity):
                return f'latents of {label} are of different models: {difference}'
    return None
