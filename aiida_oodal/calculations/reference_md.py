"""MD driven by the labeller itself: an independent set of labelled snapshots to test potentials on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser
from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.engine.files import LABELS_FILE, RESULTS_FILE, STRUCTURES_FILE
from aiida_oodal.engine.label.reference_md import validate_reference_md_settings

from .label import count_workers, validate_calculator


class ReferenceMdCalculation(EngineCalculation):
    """Sample labelled snapshots at several temperatures; meant for calculators that are cheap."""

    COMMAND = 'reference-md'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs."""
        super().define(spec)
        spec.input(
            'structure',
            valid_type=(StructureSetData, orm.StructureData),
            help='The structure that MD starts from; of a set, the first.',
        )
        spec.input(
            'calculator',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            validator=validate_calculator,
            help='The calculator that drives MD and labels: {"calculator": name of an ASE calculator, "parameters": '
            '{...}}.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            validator=_validate_settings,
            help='Arguments of `aiida_oodal.engine.label.reference_md.sample_md`: temperatures [K], steps, seed, ...',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.reference_md'
        spec.output('labels', valid_type=StructureSetData, help='Snapshots with REF_energy [eV] and REF_forces.')
        spec.output('results', valid_type=orm.Dict, help='How many snapshots, at which temperatures.')

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the structure and the settings."""
        calculator = self.inputs.calculator.get_dict()
        job = {
            'structure': STRUCTURES_FILE,
            'calculator': calculator,
            'settings': self.inputs.settings.get_dict(),
            'workers': count_workers(calculator, self.options),
        }
        return self.write_job(
            folder,
            job,
            structures={STRUCTURES_FILE: get_structures(self.inputs.structure)},
            retrieve=[RESULTS_FILE],
            retrieve_temporary=[LABELS_FILE],
        )


class ReferenceMdParser(EngineParser):
    """Read the labelled snapshots."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach them."""
        self.attach_results()
        self.attach_structures('labels', temporary / LABELS_FILE)
        return None


def _validate_settings(node: orm.Dict, _: Any) -> str | None:
    return validate_reference_md_settings(node.get_dict())
