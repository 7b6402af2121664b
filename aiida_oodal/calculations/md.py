"""One MD run in LAMMPS that halts when gamma is too large."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common import LinkType
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode
from ase import Atoms

from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser, require_file
from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import (
    ERROR_FILE,
    FINAL_FILE,
    FINAL_RESTART_FILE,
    INITIAL_RESTART_FILE,
    INPUT_FILE,
    LOG_FILE,
    SNAPSHOTS_FILE,
    STRUCTURE_FILE,
)
from aiida_oodal.engine.md.pair_lines import extend_lines
from aiida_oodal.engine.md.run import read_run
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.start.box import LammpsBox
from aiida_oodal.engine.md.start.held import held_atoms
from aiida_oodal.engine.md.start.home import FramesHome
from aiida_oodal.engine.md.start.types import assign_types
from aiida_oodal.engine.md.thermo import to_metal
from aiida_oodal.engine.md.verdict import Outcome, Verdict
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.templates import get_template

from .md_forces import define_sources, get_source, validate_source

#: Frames of larger structures stay where MD ran, unless they are asked for.
MOST_ATOMS_RETRIEVED = 50_000


class MdCalculation(EngineCalculation):
    """LAMMPS MD that halts when the potential extrapolates too far; a halt is a success.

    If `code` is the engine, LAMMPS runs as a library and Python computes the forces; else `code` is LAMMPS itself.
    """

    COMMAND = 'md'
    OUTPUT_FILE = 'md.out'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs, exit codes."""
        super().define(spec)
        define_sources(spec)
        spec.input(
            'structure',
            valid_type=(StructureSetData, orm.StructureData),
            help='Where MD starts from; of a set, the first structure. Its velocities are used if it has any, its '
            'masses are kept, and atoms that it holds fixed (ASE constraint FixAtoms) stay where they are.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            validator=_validate_settings,
            help='Fields of `aiida_oodal.engine.md.settings.MdSettings`: ensemble, temperature [K], steps, ...',
        )
        spec.input(
            'thresholds',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            required=False,
            validator=lambda node, _: None if node is None else Thresholds.check(node.get_dict()),
            help='Fields of `aiida_oodal.engine.thresholds.Thresholds`; they win over those of the settings.',
        )
        spec.input(
            'parent_folder',
            valid_type=orm.RemoteData,
            required=False,
            help='Remote folder of an earlier run with the same settings; this run goes on from its `restart_file`.',
        )
        spec.input(
            'restart_file',
            valid_type=orm.Str,
            serializer=orm.to_aiida_type,
            required=False,
            help='Name of the restart file in `parent_folder`, such as `restart_file` in the results of that run. '
            f'Default: `{FINAL_RESTART_FILE}`, which every run writes at its end.',
        )
        spec.input(
            'run_to',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            required=False,
            help='Step at which this run ends, at most `steps` of the settings; default: `steps`. Segments of a longer '
            'run need it.',
        )
        spec.input(
            'retrieve_snapshots',
            valid_type=orm.Bool,
            serializer=orm.to_aiida_type,
            required=False,
            help='Whether the frames are retrieved and become outputs. If not, they stay in the remote folder, where '
            f'the carving job reads them. Default: they are retrieved up to {MOST_ATOMS_RETRIEVED:,} atoms.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.md'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, ports: (
            previous(inputs, ports)
            or _validate_restart_file(inputs)
            or _validate_run_to(inputs)
            or validate_source(inputs, ports)
            or _validate_retrieve_snapshots(inputs)
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
            help='Frames whose largest gamma passed gamma_select; the last one is the frame to cut clusters from. They '
            'have `gamma` of shape (n_atoms,). With pair lines, which give no gamma: all sampled frames.',
        )
        spec.output(
            'final',
            valid_type=StructureSetData,
            required=False,
            help='The last frame that is physical, with velocities.',
        )

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
        types = assign_types(structure, source.elements)
        restart = self.inputs.get('parent_folder') is not None
        script = render_input(
            get_template('lammps/md.in.j2'),
            settings,
            forces=source.forces,
            elements=types.elements,
            cutoff=source.cutoff,
            restart=restart,
            has_velocities=structure.has('momenta'),
            pbc=structure.pbc,
            lines=extend_lines(source.lines, source.elements, types.elements),
            run_to=None if self.inputs.get('run_to') is None else self.inputs.run_to.value,
            held=held_atoms(structure),
            masses=types.masses if types.own_masses else (),
        )
        with folder.open(INPUT_FILE, 'w', encoding='utf-8') as handle:
            handle.write(script)
        box = LammpsBox(structure.cell.array, structure.pbc)
        path = folder.get_abs_path(STRUCTURE_FILE)
        write_structure(path, box.equivalent(structure), source.elements, settings.units)
        frames = [SNAPSHOTS_FILE, FINAL_FILE] if brings_frames(self.inputs) else []
        calc_info = self.write_job(
            folder,
            {'input': INPUT_FILE, 'potential': source.job_for(types.elements)},
            copies=source.copies,
            retrieve=[LOG_FILE],
            retrieve_temporary=[LOG_FILE, ERROR_FILE, *frames],
        )
        if source.forces != 'embedded':
            words = ['-in', INPUT_FILE, '-log', LOG_FILE, '-nocite', *source.arguments]
            calc_info.codes_info[0].cmdline_params = words
        calc_info.provenance_exclude_list += [STRUCTURE_FILE, *source.write_files(Path(folder.abspath))]
        if restart:
            parent = self.inputs.parent_folder
            name = FINAL_RESTART_FILE if self.inputs.get('restart_file') is None else self.inputs.restart_file.value
            file = f'{parent.get_remote_path()}/{name}'
            calc_info.remote_copy_list = [(parent.computer.uuid, file, INITIAL_RESTART_FILE)]
        return calc_info

    def _settings(self) -> MdSettings:
        """Return the settings. If the job has a time limit, LAMMPS gets a shorter one to write its last files."""
        settings = read_settings(self.inputs)
        limit = self.options.get('max_wallclock_seconds')
        if settings.walltime_s is not None or limit is None:
            return settings
        return settings.model_copy(update={'walltime_s': max(limit - max(limit // 20, 60), limit // 2, 1)})


class MdParser(EngineParser):
    """Judge a run by the files that it left; exit code 0 of LAMMPS proves nothing."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Judge the run if there is a log: an error in the middle of a run is an outcome, not bad input."""
        temporary = Path(kwargs.get('retrieved_temporary_folder', '.'))
        if not (temporary / LOG_FILE).is_file():
            return super().parse(**kwargs)
        return self.parse_or_explain(temporary)

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach verdict, series and frames."""
        require_file(temporary / LOG_FILE)
        inputs = self.node.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
        settings = read_settings(inputs)
        source = get_source(inputs)
        run = read_run(
            temporary,
            target_step=inputs['run_to'].value if 'run_to' in inputs else settings.steps,
            thresholds=settings.thresholds,
            restart_every=settings.restart_every,
            watched=source.forces != 'lines',
            has_frames=brings_frames(inputs),
        )
        self.out('results', orm.Dict(_plain(dataclasses.asdict(run.verdict))))
        series = to_metal(run.series, settings.units)
        names = {name: name.removeprefix('v_').lower() for name in series}
        self.out('series', orm.ArrayData({names[name]: np.asarray(values) for name, values in series.items()}))
        if run.verdict.has_frames:
            home = FramesHome(get_structures(inputs['structure'])[0], source.elements, settings.units)
            if run.snapshots:
                self.out('snapshots', StructureSetData(home.bring(frame) for frame in run.snapshots))
            if run.final is not None:
                self.out('final', StructureSetData([home.bring(run.final)]))
        return self._exit_code(run.verdict)

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


def read_settings(inputs: Mapping[str, Any]) -> MdSettings:
    """Return the settings of a run, with the thresholds of the port `thresholds` if they were given."""
    thresholds = inputs.get('thresholds')
    return MdSettings.load({**inputs['settings'].get_dict(), **({} if thresholds is None else thresholds.get_dict())})


def brings_frames(inputs: Mapping[str, Any]) -> bool:
    """Tell whether the frames of a run are retrieved, or stay in its remote folder."""
    if inputs.get('retrieve_snapshots') is not None:
        return bool(inputs['retrieve_snapshots'].value)
    few = len(get_structures(inputs['structure'])[0]) <= MOST_ATOMS_RETRIEVED
    return few or get_source(inputs).forces == 'lines'  # which the frames are sent out again to be graded


def describe_run(folder: orm.RemoteData) -> tuple[dict[str, Any], Atoms]:
    """Return what a job needs to read the files of a run where they are, and the structure that the run began with.

    :param folder: remote folder of the run; the inputs of the run are those of its creator.
    :raises OodalError: if no run of `oodal.md` that was watched made the folder.
    """
    creator = folder.creator
    if creator is None or creator.process_class is not MdCalculation:
        raise OodalError(f'RemoteData<{folder.pk}> is not the folder of a run of `oodal.md`')
    inputs = creator.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
    settings, source = read_settings(inputs), get_source(inputs)
    if source.forces == 'lines':
        raise OodalError(f'MD<{creator.pk}> was driven by pair lines: its frames have no gamma')
    return {
        'elements': list(source.elements),
        'units': settings.units,
        'target_step': inputs['run_to'].value if 'run_to' in inputs else settings.steps,
        'restart_every': settings.restart_every,
    }, get_structures(inputs['structure'])[0]


def _plain(value: Any) -> Any:
    """Return a value of a verdict as plain Python, which a database stores."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _validate_settings(node: orm.Dict, _: Any) -> str | None:
    return MdSettings.check(node.get_dict())


def _validate_restart_file(inputs: Any) -> str | None:
    """Refuse the name of a file without the folder that it lies in.

    The name of the final restart file is accepted without a folder, because older runs have it as an input by default.
    """
    name = inputs.get('restart_file')
    if name is None or name.value == FINAL_RESTART_FILE:
        return None
    if Path(name.value).name != name.value:
        return f'restart_file = {name.value!r} is not the name of a file in parent_folder'
    if inputs.get('parent_folder') is None:
        return f'restart_file = {name.value!r} needs parent_folder, the remote folder of the earlier run'
    return None


def _validate_retrieve_snapshots(inputs: Any) -> str | None:
    """Refuse to leave the frames of pair lines in the remote folder: they have to be graded."""
    wanted = inputs.get('retrieve_snapshots')
    if wanted is None or wanted.value or not inputs.get('pair'):
        return None
    return (
        'retrieve_snapshots = False cannot be used with pair lines: their frames have no gamma and are retrieved to '
        'be graded'
    )


def _validate_run_to(inputs: Any) -> str | None:
    """Refuse a segment that ends beyond its run."""
    if inputs.get('run_to') is None or 'settings' not in inputs:
        return None
    run_to, steps = inputs['run_to'].value, MdSettings.load(inputs['settings'].get_dict()).steps
    return None if 0 < run_to <= steps else f'run_to = {run_to} must lie in 1 ... steps = {steps}'
