"""Score sets of structures against one reference, and choose what is worth a label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec, ExitCode

from aiida_oodal.calculations.job.engine_job import EngineCalculation, EngineParser
from aiida_oodal.data import LatentsData, OodReferenceData, OodScoresData
from aiida_oodal.data.arrays import read_arrays
from aiida_oodal.data.latents import copy_shards, group_shards
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import REFERENCE_FILE, RESULTS_FILE, SCORES_FOLDER
from aiida_oodal.engine.ood.candidates import CandidateOptions


class ScoreSetsCalculation(EngineCalculation):
    """Latents of many sets under one ensemble x its reference -> scores of every set, and candidates."""

    COMMAND = 'score'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs."""
        super().define(spec)
        spec.input(
            'reference',
            valid_type=OodReferenceData,
            help='Reference that was fitted on latents of the same models; `insist` allows others.',
        )
        spec.input_namespace(
            'sets',
            valid_type=LatentsData,
            dynamic=True,
            help='By name of the set: {any key: LatentsData}, one node for each model and shard.',
        )
        spec.input(
            'candidates',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            required=False,
            validator=validate_candidate_settings,
            help='Fields of `aiida_oodal.engine.ood.candidates.CandidateOptions`; without it nothing is chosen.',
        )
        spec.input(
            'choose_from',
            valid_type=orm.List,
            serializer=orm.to_aiida_type,
            required=False,
            help='Names of the sets that candidates are chosen from; default: all.',
        )
        spec.input(
            'insist',
            valid_type=orm.Bool,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Bool(False),
            help='Score even if the hashes of the models are not those that the reference was fitted for.',
        )
        spec.inputs['metadata']['options']['parser_name'].default = 'oodal.score_sets'
        previous = spec.inputs.validator
        spec.inputs.validator = lambda inputs, context: previous(inputs, context) or _validate(inputs)
        spec.output_namespace(
            'scores', valid_type=OodScoresData, dynamic=True, help='Scores of each set, per atom and per structure.'
        )
        spec.output_namespace(
            'decisions',
            valid_type=orm.Dict,
            dynamic=True,
            required=False,
            help='For each set that candidates were chosen from: structure, score, rank and reason of each candidate, '
            'in order.',
        )
        spec.output(
            'results',
            valid_type=orm.Dict,
            help='For each set: what was scored, what was left out, and what is in the reference set already.',
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the job file and the reference; latents are copied from node to job as they are."""
        inputs = self.inputs
        job: dict[str, Any] = {'sets': {}}
        copies = []
        for name, nodes in sorted(inputs.sets.items()):
            files, job['sets'][name] = copy_shards(nodes.values(), name)
            copies += files
        if 'candidates' in inputs:
            job['candidates'] = CandidateOptions.load(inputs.candidates.get_dict()).plain()
            job['choose_from'] = inputs.choose_from.get_list() if 'choose_from' in inputs else list(job['sets'])
        np.savez(folder.get_abs_path(REFERENCE_FILE), allow_pickle=False, **read_arrays(inputs.reference))
        calc_info = self.write_job(
            folder, job, copies=copies, retrieve=[RESULTS_FILE], retrieve_temporary=[SCORES_FOLDER]
        )
        calc_info.provenance_exclude_list = [REFERENCE_FILE]
        return calc_info


class ScoreSetsParser(EngineParser):
    """Take the scores as they are."""

    def parse_outputs(self, temporary: Path) -> ExitCode | None:
        """Attach the scores, and what was chosen."""
        results = self.read_results()
        for name, found in results['sets'].items():
            self.out(f'scores.{name}', OodScoresData.from_folder(temporary / SCORES_FOLDER / name))
            if (decisions := found.pop('decisions', None)) is not None:
                self.out(f'decisions.{name}', orm.Dict(decisions))
        self.out('results', orm.Dict(results))
        return None


def validate_candidate_settings(node: orm.Dict | None, _: Any) -> str | None:
    """Refuse wrong settings at submission."""
    return None if node is None else CandidateOptions.check(node.get_dict())


def _validate(inputs: Any) -> str | None:
    """Refuse latents that are not of the reference's models; ports may be missing where this is exposed."""
    if 'reference' not in inputs:
        return None
    if not inputs.get('sets'):
        return 'sets is missing: give the latents of at least one set'
    for name, nodes in inputs['sets'].items():
        if isinstance(nodes, LatentsData):
            return f'sets.{name} must be {{key: LatentsData, ...}}, one node for each model and shard'
        try:
            shards = group_shards(nodes.values())
        except OodalError as error:
            return f'sets.{name}: {error}'
        insist = 'insist' in inputs and inputs['insist'].value
        for shard in shards:
            if problem := inputs['reference'].check_models(shard, insist=insist, given_as=f'sets.{name}'):
                return str(problem)
    if 'choose_from' in inputs and (unknown := sorted(set(inputs['choose_from'].get_list()) - set(inputs['sets']))):
        return f'choose_from: {unknown[0]!r} is not among the sets; there is {", ".join(sorted(inputs["sets"]))}'
    return None
