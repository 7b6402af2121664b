"""Cut clusters out of the snapshots of one walker, and grade them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.data import ClusterData, StructureSetData
from aiida_oodal.engine.carve.candidates import check_graded
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import (
    CLUSTERS_FILE,
    FINAL_FILE,
    LOG_FILE,
    RESULTS_FILE,
    SNAPSHOTS_FILE,
    STRUCTURES_FILE,
)
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.thresholds import Thresholds

from .job.engine_job import EngineCalculation, EngineParser
from .learned import check_ensemble, define_ensemble, define_learned, describe_ensemble, describe_learned
from .md import describe_run
from .thresholds import define_thresholds


class CarveClustersCalculation(EngineCalculation):
    """Snapshots -> clusters around the worst atoms, with the centres graded again in their cells."""

    COMMAND = 'carve'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs."""
        super().define(spec)
        spec.input(
            'snapshots',
            valid_type=StructureSetData,
            required=False,
            help='Frames in the order of MD, with `gamma` of shape (n_atoms,) and `step`.',
        )
        spec.input(
            'parent_folder',
            valid_type=orm.RemoteData,
            required=False,
            help='Remote folder of an `oodal.md` run, in place of `snapshots`: the job reads the frames there. The '
            'folder must be on the computer where this job runs.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=lambda node, _: CarveSettings.check(node.get_dict()),
            help='Fields of `aiida_oodal.engine.carve.settings.CarveSettings`: radius, buffer [angstrom], shape, ...',
        )
        define_thresholds(spec)
        define_learned(spec, text='The potential or ensemble that graded the snapshots.')
        define_ensemble(spec, 'second_opinion', text='An ensemble that gives a second opinion beside a potential.')
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.carve_clusters'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, ports: previous(inputs, ports) or validate_carve(inputs, ports)
        spec.output_namespace(
            'clusters', valid_type=ClusterData, dynamic=True, required=False, help='Candidates for the DFT queue.'
        )
        spec.output(
            'carving',
            valid_type=orm.Dict,
            help='For every centre atom that was considered: its grades, and whether it became a cluster and why.',
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the snapshots, the settings, and the potential or ensemble that grades."""
        inputs = self.inputs
        learned = describe_learned(inputs)
        second = describe_ensemble(inputs.second_opinion) if inputs.get('second_opinion') else None
        if inputs.get('snapshots') is not None:
            subject: dict[str, Any] = {'snapshots': STRUCTURES_FILE}
            structures, links = inputs.snapshots.get_set(), []
        else:
            run, start = describe_run(inputs.parent_folder)
            subject, structures = {'run': {'structure': STRUCTURES_FILE, **run}}, StructureSet.from_atoms([start])
            folder_name = inputs.parent_folder.get_remote_path()
            links = [
                (inputs.parent_folder.computer.uuid, f'{folder_name}/{name}', name)
                for name in (LOG_FILE, SNAPSHOTS_FILE, FINAL_FILE)
            ]
        job = {
            **subject,
            'settings': CarveSettings.load(inputs.settings.get_dict()).plain(),
            'thresholds': Thresholds.load(inputs.thresholds.get_dict()).plain(),
            'learned': learned.job,
            'cutoff': learned.cutoff,
            'second_opinion': None if second is None else second.job,
        }
        calc_info = self.write_job(
            folder,
            job,
            structures={STRUCTURES_FILE: structures},
            copies=[*learned.copies, *(second.copies if second is not None else [])],
            retrieve=[RESULTS_FILE],
            retrieve_temporary=[CLUSTERS_FILE],
        )
        calc_info.remote_symlink_list = links
        for files in (learned, second):
            if files is not None:
                calc_info.provenance_exclude_list += files.write_files(Path(folder.abspath))
        return calc_info


class CarveClustersParser(EngineParser):
    """Read the clusters."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the clusters, by ``c<number>``, and a line for every centre."""
        self.out('carving', orm.Dict(self.read_results()))
        path = temporary / CLUSTERS_FILE
        if path.is_file():
            for index, cluster in enumerate(StructureSet.load(path)):
                self.out(f'clusters.c{index}', ClusterData(cluster))
        return None


def validate_carve(inputs: Any, ports: Any) -> str | None:
    """Refuse inputs that cannot be graded. Ports that are missing because a caller excluded them are not checked."""
    if not {'snapshots', 'potential', 'ensemble'} <= set(ports):
        return None
    if 'parent_folder' in ports:
        if (inputs.get('snapshots') is None) == (inputs.get('parent_folder') is None):
            return 'give either `snapshots`, or `parent_folder`, the remote folder of the MD run that has them'
        if problem := _check_folder(inputs.get('parent_folder'), inputs.get('metadata', {}).get('computer')):
            return problem
    if bool(inputs.get('ensemble')) == (inputs.get('potential') is not None):
        return 'give either `potential` or `ensemble`, whichever graded the snapshots'
    if inputs.get('second_opinion'):
        if inputs.get('ensemble'):
            return '`second_opinion` can only be given with `potential`: here `ensemble` grades the clusters already'
        if problem := check_ensemble(inputs['second_opinion']):
            return f'second_opinion: {problem}'
    snapshots = inputs.get('snapshots')
    present = {'gamma', 'step'} if snapshots is None else set(snapshots.base.attributes.get('properties'))
    if missing := {'gamma', 'step'} - present:
        return (
            f'snapshots have no {min(missing)!r}: take frames of an MD run that computed gamma, or run MD by '
            '`oodal.md.segments`, which grades its frames'
        )
    if snapshots is not None and (problem := check_graded(snapshots.get_set())):
        return problem
    try:
        cutoff = describe_learned(inputs).cutoff
        CarveSettings.load(inputs['settings'].get_dict() if 'settings' in inputs else {}).for_cutoff(cutoff)
    except OodalError as error:
        return str(error)
    return None


def _check_folder(folder: orm.RemoteData | None, computer: orm.Computer | None) -> str | None:
    """Refuse a folder that is no run of MD, or that the job could not see."""
    if folder is None:
        return None
    try:
        describe_run(folder)
    except OodalError as error:
        return f'parent_folder: {error}'
    if computer is not None and computer.pk != folder.computer.pk:
        return (
            f'parent_folder is on computer {folder.computer.label!r}, the job would run on {computer.label!r}: carve '
            'where MD ran, or run MD with `retrieve_snapshots`'
        )
    return None
