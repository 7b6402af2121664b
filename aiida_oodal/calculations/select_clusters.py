"""Choose among the clusters of all walkers those that are labelled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode
from ase import Atoms

from aiida_oodal.data import ClusterData, StructureSetData
from aiida_oodal.data.structures import get_structures
from aiida_oodal.engine.carve.settings import SelectSettings
from aiida_oodal.engine.files import KNOWN_FILE, RESULTS_FILE, STRUCTURES_FILE
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.thresholds import Thresholds

from .job.engine_job import EngineCalculation, EngineParser
from .learned import define_learned, describe_learned
from .thresholds import define_thresholds


class SelectClustersCalculation(EngineCalculation):
    """Candidates -> those worth a label. All are graded by the current potential, whichever graded them before."""

    COMMAND = 'select'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs."""
        super().define(spec)
        spec.input_namespace(
            'candidates', valid_type=ClusterData, dynamic=True, help='Clusters of all walkers, by any key.'
        )
        spec.input_namespace(
            'known',
            valid_type=(ClusterData, StructureSetData),
            dynamic=True,
            required=False,
            help='Clusters that were chosen in earlier rounds, one by one or as labelled sets of clusters, by any key; '
            'clusters like them are not chosen again.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=lambda node, _: SelectSettings.check(node.get_dict()),
            help='Fields of `aiida_oodal.engine.carve.settings.SelectSettings`: how many clusters, tolerances.',
        )
        define_thresholds(spec)
        define_learned(spec, text='The potential or ensemble that grades the candidates.')
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.select_clusters'
        spec.output(
            'selection',
            valid_type=orm.Dict,
            help='`chosen` has the keys of the clusters to label, the one that adds most first; `decisions` has the '
            'reason for each candidate.',
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the clusters, the settings, and the potential or ensemble that grades."""
        inputs = self.inputs
        learned = describe_learned(inputs)
        structures = {STRUCTURES_FILE: _collect(inputs.candidates)}
        if inputs.get('known'):
            structures[KNOWN_FILE] = _collect_bare(inputs.known)
        job = {
            'candidates': STRUCTURES_FILE,
            'known': KNOWN_FILE if KNOWN_FILE in structures else None,
            'settings': SelectSettings.load(inputs.settings.get_dict()).plain(),
            'thresholds': Thresholds.load(inputs.thresholds.get_dict()).plain(),
            'learned': learned.job,
        }
        calc_info = self.write_job(folder, job, structures=structures, copies=learned.copies, retrieve=[RESULTS_FILE])
        calc_info.provenance_exclude_list += learned.write_files(Path(folder.abspath))
        return calc_info


class SelectClustersParser(EngineParser):
    """Read the choice."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach it."""
        self.out('selection', orm.Dict(self.read_results()))
        return None


def _collect(clusters: Mapping[str, ClusterData]) -> StructureSet:
    """Return clusters as a set; each has its key in ``info``."""
    frames = []
    for key, cluster in sorted(clusters.items()):
        atoms = cluster.get_atoms()
        atoms.info['key'] = key
        frames.append(atoms)
    return StructureSet.from_atoms(frames)


def _collect_bare(nodes: Mapping[str, ClusterData | StructureSetData]) -> StructureSet:
    """Return clusters, and those of sets, without what was computed of them."""
    found = (atoms for _, node in sorted(nodes.items()) for atoms in get_structures(node))
    bare = [Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc) for atoms in found]
    return StructureSet.from_atoms(bare)
