"""One MD run with gamma watched, in real LAMMPS."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common import LinkType
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode
from ase import Atoms

from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.engine.__main__ import ERROR_FILE
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.dump import Frame, iterate_frames
from aiida_oodal.engine.md.log import read_log
from aiida_oodal.engine.md.script import FINAL_RESTART, lammps_rotation, render_input, turn_back, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.thermo import to_metal
from aiida_oodal.engine.md.verdict import Outcome, Verdict, judge

from .engine_job import EngineCalculation, EngineParser, require_file
from .md_forces import define_sources, get_source, validate_source


class MdCalculation(EngineCalculation):
    """LAMMPS MD that halts where the potential no longer knows what it does; a halt is a success.

    With the engine's code LAMMPS is a library and Python gives forces; with any other the code is LAMMPS itself.
    """

    COMMAND = 'md'
    OUTPUT_FILE = 'md.out'
    INPUT_FILE = 'md.in'
    STRUCTURE_FILE = 'structure.data'
    LOG_FILE = 'log.lammps'
    SNAPSHOTS_FILE = 'snapshots.dump'
    FINAL_FILE = 'final.dump'
    INITIAL_RESTART_FILE = 'initial.restart'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs, exit codes."""
        super().define(spec)
        define_sources(spec)
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
            help='Folder of an earlier run of the same settings; MD goes on from its `restart_file`.',
        )
        spec.input(
            'restart_file',
            valid_type=orm.Str,
            serializer=orm.to_aiida_type,
            required=False,
            help='Name of the restart file in `parent_folder`, as `restart_file` of the results of that run; if it is '
            f'not given, `{FINAL_RESTART}`, which a run leaves at its end.',
        )
        spec.input(
            'run_to',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            required=False,
            help='Step at which this run ends, before `steps` of the settings if it is a segment of a longer run.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.md'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, ports: (
            previous(inputs, ports)
            or _validate_restart_file(inputs)
            or _validate_run_to(inputs)
            or validate_source(inputs, ports)
        )

        spec.output('results', valid_type=orm.Dict, help='The verdict: outcome, last step, largest gamma, message.')
        spec.output(
            'series',
            valid_type=orm.ArrayData,
            help='Thermo columns against step, each shape (n_samples,), in ps, K, eV, bar and angstrom^3 whatever the '
            'units of the script; `max_gamma` is the '
            'largest extrapolation grade of all atoms, dimensionless.',
        )
        spec.output(
            'snapshots',
            valid_type=StructureSetData,
            required=False,
            help='Frames whose largest gamma passed gamma_select, the one to learn from last, with `gamma` of shape '
            '(n_atoms,); of pair lines, which have no gamma, all sampled frames.',
        )
        spec.output('final', valid_type=StructureSetData, required=False, help='The last frame, with velocities.')

        spec.exit_code(400, 'ERROR_WALLTIME', message='{message}', invalidates_cache=True)
        spec.exit_code(410, 'ERROR_LOST_ATOMS', message='{message}')
        spec.exit_code(420, 'ERROR_EXPLODED', message='{message}')
        spec.exit_code(430, 'ERROR_KILLED', message='{message}', invalidates_cache=True)
        spec.exit_code(440, 'ERROR_FAILED', message='{message}', invalidates_cache=True)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the LAMMPS input, the structure and the job file."""
        settings = self._settings()
        source = get_source(self.inputs)
        structure = get_structures(self.inputs.structure)[0]
        restart = self.inputs.get('parent_folder') is not None
        script = render_input(
            settings,
            forces=source.forces,
            elements=source.elements,
            cutoff=source.cutoff,
            restart=restart,
            has_velocities=structure.has('momenta'),
            pbc=structure.pbc,
            lines=source.lines,
            run_to=None if self.inputs.get('run_to') is None else self.inputs.run_to.value,
        )
        with folder.open(self.INPUT_FILE, 'w', encoding='utf-8') as handle:
            handle.write(script)
        with folder.open(self.STRUCTURE_FILE, 'w', encoding='utf-8') as handle:
            handle.write(write_structure(structure, source.elements, settings.units))
        calc_info = self.write_job(
            folder,
            {'input': self.INPUT_FILE, 'potential': source.job},
            copies=source.copies,
            retrieve=[self.LOG_FILE],
            retrieve_temporary=[self.LOG_FILE, self.SNAPSHOTS_FILE, self.FINAL_FILE, ERROR_FILE],
        )
        if source.forces != 'embedded':
            words = ['-in', self.INPUT_FILE, '-log', self.LOG_FILE, '-nocite', *source.arguments]
            calc_info.codes_info[0].cmdline_params = words
        calc_info.provenance_exclude_list += [self.STRUCTURE_FILE, *source.write_files(Path(folder.abspath))]
        if restart:
            parent = self.inputs.parent_folder
            name = FINAL_RESTART if self.inputs.get('restart_file') is None else self.inputs.restart_file.value
            file = f'{parent.get_remote_path()}/{name}'
            calc_info.remote_copy_list = [(parent.computer.uuid, file, self.INITIAL_RESTART_FILE)]
        return calc_info

    def _settings(self) -> MdSettings:
        """Return the settings; where the job has a limit of time, LAMMPS stops before it and writes what is needed."""
        settings = MdSettings.load(self.inputs.settings.get_dict())
        limit = self.options.get('max_wallclock_seconds')
        if settings.walltime_s is not None or limit is None:
            return settings
        return settings.model_copy(update={'walltime_s': max(limit - max(limit // 20, 60), limit // 2, 1)})


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
        inputs = self.node.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
        settings = MdSettings.load(inputs['settings'].get_dict())
        source = get_source(inputs)
        verdict = judge(
            temporary,
            target_step=inputs['run_to'].value if 'run_to' in inputs else settings.steps,
            gamma_select=settings.gamma_select,
            gamma_break=settings.gamma_break,
            gamma_ceiling=settings.gamma_ceiling,
            restart_every=settings.restart_every,
            watched=source.forces != 'lines',
        )
        self.out('results', orm.Dict(_plain(dataclasses.asdict(verdict))))
        self.attach_series(temporary / MdCalculation.LOG_FILE, settings.units)
        self.attach_frames(temporary, settings, source.elements, verdict)
        return self._exit_code(verdict)

    def attach_series(self, path: Path, units: str) -> None:
        """Attach the thermo columns, each step once."""
        series = to_metal(read_log(path).series(), units)
        names = {name: name.removeprefix('v_').lower() for name in series}
        self.out('series', orm.ArrayData({names[name]: np.asarray(values) for name, values in series.items()}))

    def attach_frames(self, temporary: Path, settings: MdSettings, elements: list[str], verdict: Verdict) -> None:
        """Attach the snapshots over the threshold (all of them without gamma), and the last frame.

        What came after the frame to learn from, or is not physical, is left out.
        """
        rotation = lammps_rotation(get_structures(self.node.inputs.structure)[0].cell.array)
        lost = verdict.outcome in (Outcome.LOST_ATOMS, Outcome.EXPLODED)
        end = verdict.last_valid_step if lost else verdict.last_step
        end = end if verdict.candidate_step is None else verdict.candidate_step
        snapshots: dict[int, Atoms] = {}
        final: Atoms | None = None
        for frame in _frames(temporary):
            atoms = turn_back(frame.to_atoms(elements, lammps_units=settings.units), rotation)
            over = frame.gamma is None or settings.gamma_select < frame.max_gamma <= settings.gamma_ceiling
            if end is not None and frame.step <= end and over:
                snapshots[frame.step] = atoms
            if final is None or frame.step >= final.info['step']:
                final = atoms
        if snapshots:
            self.out('snapshots', StructureSetData(snapshots[step] for step in sorted(snapshots)))
        if final is not None:
            self.out('final', StructureSetData([final]))

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


def _frames(folder: Path) -> Iterator[Frame]:
    """Yield the frames of a run, the last one last; it may have been a snapshot, too.

    Of a damaged dump those before the damage, of which the verdict tells.
    """
    for name in (MdCalculation.SNAPSHOTS_FILE, MdCalculation.FINAL_FILE):
        if (folder / name).is_file():
            with suppress(OodalError):
                yield from iterate_frames(folder / name)


def _plain(value: Any) -> Any:
    """Give a verdict as what a database stores."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _validate_settings(node: orm.Dict, _: Any) -> str | None:
    return MdSettings.check(node.get_dict())


def _validate_restart_file(inputs: Any) -> str | None:
    """Refuse the name of a file without the folder that it lies in.

    The name that every run leaves says nothing of its own: runs made when it was a default have it as an input, and can
    be made again.
    """
    name = inputs.get('restart_file')
    if name is None or name.value == FINAL_RESTART:
        return None
    if Path(name.value).name != name.value:
        return f'restart_file = {name.value!r} is not the name of a file in parent_folder'
    if inputs.get('parent_folder') is None:
        return f'restart_file = {name.value!r} needs parent_folder, the remote folder of the earlier run'
    return None


def _validate_run_to(inputs: Any) -> str | None:
    """Refuse a segment that ends beyond its run."""
    if inputs.get('run_to') is None or 'settings' not in inputs:
        return None
    run_to, steps = inputs['run_to'].value, MdSettings.load(inputs['settings'].get_dict()).steps
    return None if 0 < run_to <= steps else f'run_to = {run_to} must lie in 1 ... steps = {steps}'
