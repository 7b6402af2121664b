"""One MD run with gamma watched, in real LAMMPS."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.data import AcePotentialData, StructureSetData, get_structures
from aiida_oodal.engine.__main__ import ERROR_FILE
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.dump import Frame, iterate_frames
from aiida_oodal.engine.md.log import read_log
from aiida_oodal.engine.md.script import lammps_rotation, render_input, turn_back, write_structure
from aiida_oodal.engine.md.settings import MdSettings, check_structure
from aiida_oodal.engine.md.verdict import Outcome, Verdict, judge

from .engine_job import EngineCalculation, EngineParser, require_file


class MdCalculation(EngineCalculation):
    """LAMMPS MD that halts where the potential no longer knows what it does; a halt is a success."""

    COMMAND = 'md'
    INPUT_FILE = 'md.in'
    STRUCTURE_FILE = 'structure.data'
    LOG_FILE = 'log.lammps'
    SNAPSHOTS_FILE = 'snapshots.dump'
    FINAL_FILE = 'final.dump'
    RESTART_FILE = 'final.restart'
    INITIAL_RESTART_FILE = 'initial.restart'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs, exit codes."""
        super().define(spec)
        spec.input('potential', valid_type=AcePotentialData, help='The potential that drives MD and grades itself.')
        spec.input(
            'structure',
            valid_type=(StructureSetData, orm.StructureData),
            help='Where MD starts from; of a set, the first structure. Its velocities are used if it has any.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            validator=_validate_settings,
            help='Fields of `aiida_oodal.engine.md.settings.MdSettings`: ensemble, temperature [K], steps, ...',
        )
        spec.input(
            'parent_folder',
            valid_type=orm.RemoteData,
            required=False,
            help='Folder of an earlier run of the same settings; MD goes on from its `final.restart`.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.md'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or _validate_structure(inputs)

        spec.output('results', valid_type=orm.Dict, help='The verdict: outcome, last step, largest gamma, message.')
        spec.output(
            'series',
            valid_type=orm.ArrayData,
            help='Thermo columns against step, each shape (n_samples,), LAMMPS metal units; `max_gamma` is the '
            'largest extrapolation grade of all atoms, dimensionless.',
        )
        spec.output(
            'snapshots',
            valid_type=StructureSetData,
            required=False,
            help='Frames whose largest gamma passed gamma_select, the one to learn from last; `gamma` shape (n_atoms,).',
        )
        spec.output('final', valid_type=StructureSetData, required=False, help='The last frame, with velocities.')

        spec.exit_code(400, 'ERROR_WALLTIME', message='{message}', invalidates_cache=True)
        spec.exit_code(410, 'ERROR_LOST_ATOMS', message='{message}')
        spec.exit_code(420, 'ERROR_EXPLODED', message='{message}')
        spec.exit_code(430, 'ERROR_KILLED', message='{message}', invalidates_cache=True)
        spec.exit_code(440, 'ERROR_FAILED', message='{message}', invalidates_cache=True)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the LAMMPS input, the structure and the job file."""
        settings = MdSettings.load(self.inputs.settings.get_dict())
        potential = self.inputs.potential
        structure = get_structures(self.inputs.structure)[0]
        restart = 'parent_folder' in self.inputs
        script = render_input(
            settings,
            forces='embedded',
            elements=potential.elements,
            cutoff=potential.cutoff,
            restart=restart,
            has_velocities=structure.has('momenta'),
            pbc=structure.pbc,
        )
        with folder.open(self.INPUT_FILE, 'w', encoding='utf-8') as handle:
            handle.write(script)
        with folder.open(self.STRUCTURE_FILE, 'w', encoding='utf-8') as handle:
            handle.write(write_structure(structure, potential.elements))
        job = {
            'input': self.INPUT_FILE,
            'potential': {
                'kind': 'ace',
                'yaml': AcePotentialData.BASIS,
                'active_set': AcePotentialData.ACTIVE_SET,
                'elements': potential.elements,
            },
        }
        calc_info = self.write_job(
            folder,
            job,
            copies=[(potential.uuid, name, name) for name in (AcePotentialData.BASIS, AcePotentialData.ACTIVE_SET)],
            retrieve=[self.LOG_FILE],
            retrieve_temporary=[self.LOG_FILE, self.SNAPSHOTS_FILE, self.FINAL_FILE, ERROR_FILE],
        )
        calc_info.provenance_exclude_list.append(self.STRUCTURE_FILE)
        if restart:
            parent = self.inputs.parent_folder
            source = f'{parent.get_remote_path()}/{self.RESTART_FILE}'
            calc_info.remote_copy_list = [(parent.computer.uuid, source, self.INITIAL_RESTART_FILE)]
        return calc_info


class MdParser(EngineParser):
    """Give the verdict on a run from what it left on disk; exit code 0 of LAMMPS proves nothing."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Judge whenever there is a log: an error that LAMMPS met in mid-run is a verdict, not bad input."""
        temporary = Path(kwargs.get('retrieved_temporary_folder', '.'))
        if not (temporary / MdCalculation.LOG_FILE).is_file():
            return super().parse(**kwargs)
        return self.parse_or_explain(temporary)

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach verdict, series and frames."""
        require_file(temporary / MdCalculation.LOG_FILE)
        settings = MdSettings.load(self.node.inputs.settings.get_dict())
        verdict = judge(
            temporary,
            target_step=settings.steps,
            gamma_select=settings.gamma_select,
            gamma_break=settings.gamma_break,
            gamma_ceiling=settings.gamma_ceiling,
        )
        self.out('results', orm.Dict(_plain(dataclasses.asdict(verdict))))
        self.attach_series(temporary / MdCalculation.LOG_FILE)
        self.attach_frames(temporary, settings.gamma_select, verdict)
        return self._exit_code(verdict)

    def attach_series(self, path: Path) -> None:
        """Attach the thermo columns, each step once."""
        series = read_log(path).series()
        names = {name: name.removeprefix('v_').lower() for name in series}
        self.out('series', orm.ArrayData({names[name]: np.asarray(values) for name, values in series.items()}))

    def attach_frames(self, temporary: Path, gamma_select: float, verdict: Verdict) -> None:
        """Attach the snapshots over the threshold, up to the one to learn from, and the last frame."""
        frames: dict[int, Frame] = {}
        for name in (MdCalculation.SNAPSHOTS_FILE, MdCalculation.FINAL_FILE):
            if (temporary / name).is_file():
                frames.update({frame.step: frame for frame in iterate_frames(temporary / name)})
        rotation = lammps_rotation(get_structures(self.node.inputs.structure)[0].cell.array)
        elements = self.node.inputs.potential.elements
        atoms = [turn_back(frames[step].to_atoms(elements), rotation) for step in sorted(frames)]
        end = atoms[-1].info['step'] if verdict.candidate_step is None and atoms else verdict.candidate_step
        snapshots = [
            frame for frame in atoms if frame.arrays['gamma'].max() > gamma_select and frame.info['step'] <= end
        ]
        if snapshots:
            self.out('snapshots', StructureSetData(snapshots))
        if atoms:
            self.out('final', StructureSetData(atoms[-1:]))

    def _exit_code(self, verdict: Verdict) -> ExitCode | None:
        codes = {
            Outcome.WALLTIME: self.exit_codes.ERROR_WALLTIME,
            Outcome.LOST_ATOMS: self.exit_codes.ERROR_LOST_ATOMS,
            Outcome.EXPLODED: self.exit_codes.ERROR_EXPLODED,
            Outcome.KILLED: self.exit_codes.ERROR_KILLED,
            Outcome.FAILED: self.exit_codes.ERROR_FAILED,
        }
        code = codes.get(verdict.outcome)
        return None if code is None else code.format(message=verdict.message)


def _plain(value: Any) -> Any:
    """Give a verdict as what a database stores."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _validate_settings(node: orm.Dict, _: Any) -> str | None:
    return MdSettings.check(node.get_dict())


def _validate_structure(inputs: Any) -> str | None:
    """Refuse what the potential cannot run, at submission."""
    if not {'structure', 'settings', 'potential'} <= set(inputs):
        return None
    potential = inputs['potential']
    try:
        check_structure(
            MdSettings.load(inputs['settings'].get_dict()),
            get_structures(inputs['structure'])[0],
            potential.elements,
            potential.cutoff,
            forces='embedded',
        )
    except OodalError as error:
        return str(error)
    return None
