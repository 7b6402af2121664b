"""Fit a linear ACE potential and its active set to labelled structures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.engine.ace.check import check_training
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.ace.train import read_learned
from aiida_oodal.engine.errors import suggest
from aiida_oodal.engine.files import LEARNED_FILE, RESULTS_FILE, VALIDATION_FILE
from aiida_oodal.engine.labels import AWAITED, LABELLED_SET


class TrainAceCalculation(EngineCalculation):
    """Labelled sets -> potential; every set is an input, so that the potential leads back to each label."""

    COMMAND = 'train-ace'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs."""
        super().define(spec)
        spec.input_namespace(
            'training',
            valid_type=StructureSetData,
            dynamic=True,
            help='Labelled sets with REF_energy [eV], REF_forces [eV/angstrom] and, for clusters, force_mask.',
        )
        spec.input(
            'validation',
            valid_type=StructureSetData,
            required=False,
            help='Labelled set that is not trained on: the errors on it are reported.',
        )
        spec.input_namespace(
            'anchors',
            valid_type=StructureSetData,
            dynamic=True,
            required=False,
            help='Further labelled sets that are not trained on, each under a key that no other set has: the errors on '
            'each are reported.',
        )
        spec.input(
            'learned',
            valid_type=AcePotentialData,
            required=False,
            help='The potential of the round before. The new one has at least as many functions and as long a cutoff, '
            'and takes over the energies of free atoms that neither the data nor the settings give.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=_validate_settings,
            help='Fields of `aiida_oodal.engine.ace.settings.AceFitSettings`.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.train_ace'
        spec.output('potential', valid_type=AcePotentialData, help='The potential with its active set.')
        spec.output(
            'results',
            valid_type=orm.Dict,
            help='Errors: energy [meV/atom], force [meV/angstrom], stress [GPa], largest gamma; `parts` has them for '
            'every labelled set by its label, `by_element` for every element; `size` says why the potential is as '
            'large as it is, `versions` which package fitted it.',
        )
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or check_training_nodes(inputs)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the labelled sets and the settings."""
        inputs = self.inputs
        training = {label: f'training_{label}.npz' for label in sorted(inputs.training)}
        anchors = {label: f'anchor_{label}.npz' for label in sorted(inputs.get('anchors', {}))}
        structures = {name: inputs.training[label].get_set() for label, name in training.items()}
        structures |= {name: inputs.anchors[label].get_set() for label, name in anchors.items()}
        if 'validation' in inputs:
            structures[VALIDATION_FILE] = inputs.validation.get_set()
        job = {
            'training': training,
            'anchors': anchors,
            'validation': VALIDATION_FILE if 'validation' in inputs else None,
            'learned': LEARNED_FILE if 'learned' in inputs else None,
            'settings': AceFitSettings.load(inputs.settings.get_dict()).plain(),
            'workers': self.options.resources.get('num_cores_per_mpiproc', 1),
        }
        files = [AcePotentialData.BASIS, AcePotentialData.ACTIVE_SET, AcePotentialData.TABULATED]
        return self.write_job(
            folder,
            job,
            structures=structures,
            copies=[(inputs.learned.uuid, AcePotentialData.BASIS, LEARNED_FILE)] if 'learned' in inputs else [],
            retrieve=[RESULTS_FILE],
            retrieve_temporary=files,
        )


class TrainAceParser(EngineParser):
    """Read the potential."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the potential and the errors it makes."""
        self.attach_results()
        files = [
            temporary / name
            for name in (AcePotentialData.BASIS, AcePotentialData.ACTIVE_SET, AcePotentialData.TABULATED)
        ]
        self.out('potential', AcePotentialData(*files))
        return None


def _validate_settings(node: orm.Dict, _: Any) -> str | None:
    return AceFitSettings.check(node.get_dict())


def check_training_nodes(inputs: Mapping[str, Any]) -> str | None:
    """Return why a training cannot succeed, or None; ports that are missing are not checked.

    :param inputs: those of :class:`TrainAceCalculation`, and ``awaited``, a set that will be labelled and trained on,
        too, as the part :data:`.AWAITED`.
    """
    settings, learned = inputs.get('settings'), inputs.get('learned')
    values = {} if settings is None else settings.get_dict()
    if not inputs.get('training') and inputs.get('awaited') is None:
        return None
    if problem := AceFitSettings.check(values):
        return problem
    training = {name: node.get_set() for name, node in inputs.get('training', {}).items()}
    trained = [part for name, structures in training.items() for part in structures.split(LABELLED_SET, name)]
    parts = [*trained, *([AWAITED] if inputs.get('awaited') is not None else [])]
    for part in values.get('part_weights', {}):
        if part not in parts:
            return f'part_weights: {part!r} is no training set; {suggest(part, parts)}'
    names = [*trained, *(inputs.get('anchors') or {}), 'validation']
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return f'{", ".join(twice)}: each training set and anchor needs a label of its own'
    sets = {name: inputs[name].get_set() for name in ('validation', 'awaited') if inputs.get(name) is not None}
    return check_training(
        training,
        AceFitSettings.load(values),
        anchors={label: node.get_set() for label, node in (inputs.get('anchors') or {}).items()},
        learned=None if learned is None else read_learned(learned.base.repository.get_object_content(learned.BASIS)),
        **sets,
    )
