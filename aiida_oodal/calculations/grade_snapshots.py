"""Grade the snapshots of MD that computed no gamma."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.files import GRADED_FILE, RESULTS_FILE, STRUCTURES_FILE
from aiida_oodal.engine.thresholds import Thresholds

from .job.engine_job import EngineCalculation, EngineParser
from .learned import define_learned, describe_learned
from .thresholds import define_thresholds


class GradeSnapshotsCalculation(EngineCalculation):
    """Snapshots of MD without gamma -> their gamma, and the outputs that MD with gamma has."""

    COMMAND = 'grade'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs."""
        super().define(spec)
        spec.input('results', valid_type=orm.Dict, help='The output `results` of the MD run.')
        spec.input('series', valid_type=orm.ArrayData, help='The output `series` of the MD run.')
        spec.input(
            'snapshots',
            valid_type=StructureSetData,
            help='The output `snapshots` of the MD run: frames in the order of MD, with `step`.',
        )
        define_thresholds(spec)
        define_learned(spec, text='The potential or ensemble that grades the frames.')
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.grade_snapshots'
        spec.output(
            'results', valid_type=orm.Dict, help='The verdict, with the fields that `results` of `oodal.md` has.'
        )
        spec.output(
            'series', valid_type=orm.ArrayData, help='Thermo columns, and `max_gamma`, which is NaN between snapshots.'
        )
        spec.output(
            'snapshots',
            valid_type=StructureSetData,
            required=False,
            help='Frames whose largest gamma passed gamma_select; the last one is the frame to cut clusters from.',
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the frames, the verdict, and the potential or ensemble that grades."""
        inputs = self.inputs
        learned = describe_learned(inputs)
        job = {
            'snapshots': STRUCTURES_FILE,
            'verdict': inputs.results.get_dict(),
            'thresholds': Thresholds.load(inputs.thresholds.get_dict()).plain(),
            'learned': learned.job,
        }
        calc_info = self.write_job(
            folder,
            job,
            structures={STRUCTURES_FILE: inputs.snapshots.get_set()},
            copies=learned.copies,
            retrieve=[RESULTS_FILE],
            retrieve_temporary=[GRADED_FILE],
        )
        calc_info.provenance_exclude_list += learned.write_files(Path(folder.abspath))
        return calc_info


class GradeSnapshotsParser(EngineParser):
    """Read verdict and frames."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach verdict, series and frames under the names that `oodal.md` uses."""
        results = self.read_results()
        self.out('results', orm.Dict(results['verdict']))
        columns = dict(self.node.inputs.series.arrays)
        of_step = {int(step): gamma for step, gamma in results['max_gamma'].items()}
        columns['max_gamma'] = np.array([of_step.get(int(step), np.nan) for step in columns['step']])
        self.out('series', orm.ArrayData(columns))
        if (temporary / GRADED_FILE).is_file():
            self.attach_structures('snapshots', temporary / GRADED_FILE)
        return None
