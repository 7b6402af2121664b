"""Fit a linear ACE potential and its active set to labelled structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.engine.learn.ace_settings import AceFitSettings

from .engine_job import RESULTS_FILE, EngineCalculation, EngineParser


class TrainAceCalculation(EngineCalculation):
    """Labelled sets -> potential; every set is an input, so that the potential leads back to each label."""

    COMMAND = 'train-ace'
    VALIDATION_FILE = 'validation.npz'

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
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=_validate_settings,
            help='Fields of `aiida_oodal.engine.learn.ace_settings.AceFitSettings`.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.train_ace'
        spec.output('potential', valid_type=AcePotentialData, help='The potential with its active set.')
        spec.output(
            'results',
            valid_type=orm.Dict,
            help='Errors on training and validation sets: energy [meV/atom], force [meV/angstrom], largest gamma.',
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the labelled sets and the settings."""
        training = {f'training_{key}.npz': node.get_set() for key, node in sorted(self.inputs.training.items())}
        validation = {self.VALIDATION_FILE: self.inputs.validation.get_set()} if 'validation' in self.inputs else {}
        job = {
            'training': list(training),
            'validation': self.VALIDATION_FILE if validation else None,
            'settings': AceFitSettings.load(self.inputs.settings.get_dict()).model_dump(mode='json'),
            'workers': self.options.resources.get('num_cores_per_mpiproc', 1),
        }
        files = [AcePotentialData.BASIS, AcePotentialData.ACTIVE_SET, AcePotentialData.TABULATED]
        return self.write_job(
            folder,
            job,
            structures=training | validation,
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
