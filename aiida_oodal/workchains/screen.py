"""Screen sets of structures for what ensembles of MACE models, or single models, do not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.job.engine_job import was_lost
from aiida_oodal.calculations.latents import LatentsCalculation
from aiida_oodal.calculations.ood.fit_reference import FitReferenceCalculation, validate_fit_settings
from aiida_oodal.calculations.ood.score_sets import ScoreSetsCalculation, validate_candidate_settings
from aiida_oodal.calculations.ood.take_candidates import take_candidates
from aiida_oodal.data import LatentsData, MaceModelData, OodReferenceData, OodScoresData, StructureSetData
from aiida_oodal.engine.analysis.statistics import find_contradictions

from .resuming import ResumingWorkChain
from .screen_inputs import HELDOUT, given_latents, split_into_shards, validate_screen

_OPTIONAL = {'required': False, 'populate_defaults': False}


class ScreenWorkChain(ResumingWorkChain):
    """Structure sets x ensembles -> latents -> references -> scores -> candidates.

    The calls are named ``embed_<ensemble>_<set>_<first structure>``, ``fit_<ensemble>``, ``score_<ensemble>`` and
    ``take_<target>``; the sets of an ensemble are ``reference`` and ``heldout``.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.input_namespace(
            'ensembles',
            dynamic=True,
            valid_type=(MaceModelData, StructureSetData, OodReferenceData, LatentsData),
            help='By name: {"models": {"w1": node, ...} (one model is enough; with several, their disagreement is a '
            'score), "reference": StructureSetData (what the models were trained on) or a fitted OodReferenceData, '
            '"heldout": StructureSetData (similar structures that the models were not trained on; they set the '
            'thresholds)}. Latents that are there already take the place of models: "reference_latents" and '
            '"heldout_latents", each {"w1": LatentsData, ...}.',
        )
        spec.input_namespace(
            'targets',
            dynamic=True,
            valid_type=(StructureSetData, LatentsData),
            help='By name: {"structures": StructureSetData}, and "latents": {ensemble: {"w1": LatentsData, ...}} for '
            'ensembles whose latents are there already.',
        )
        spec.expose_inputs(
            LatentsCalculation,
            namespace='embed',
            exclude=('structures', 'models', 'start', 'stop'),
            namespace_options={
                **_OPTIONAL,
                'help': 'How structures are turned into latents; not needed where all latents are there already.',
            },
        )
        spec.expose_inputs(
            FitReferenceCalculation,
            namespace='judge',
            include=('code', 'metadata'),
            namespace_options={
                **_OPTIONAL,
                'help': 'Code, computer and options of the jobs that fit references and score; default: those of '
                '`embed`.',
            },
        )
        spec.input(
            'reference',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=validate_fit_settings,
            help='How references are fitted: fields of `aiida_oodal.engine.ood.fitting.FitOptions`.',
        )
        spec.input(
            'candidates',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({'n': 100, 'level': 0.95}),
            validator=validate_candidate_settings,
            help='Fields of `aiida_oodal.engine.ood.candidates.CandidateOptions`; by default at most 100 of those '
            'above the threshold that 95 % of the held-out structures are below.',
        )
        spec.input(
            'against',
            valid_type=orm.Str,
            serializer=orm.to_aiida_type,
            required=False,
            help='The ensemble whose scores choose the candidates; default: the first by name.',
        )
        spec.input(
            'atoms_per_job',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Int(1_000_000),
            validator=lambda node, _: None if node.value > 0 else f'atoms_per_job must be positive, got {node.value}',
            help='Largest number of atoms in a job; larger sets are split over several jobs.',
        )
        spec.input(
            'insist',
            valid_type=orm.Bool,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Bool(False),
            help='Go on although latents, structures, models and references are not known to belong together, or the '
            'held-out structures are in the reference set.',
        )
        spec.inputs.validator = validate_screen
        spec.outline(
            cls.setup,
            while_(cls.should_embed)(cls.run_embed, cls.inspect_embed),
            while_(cls.should_fit)(cls.run_fit),
            cls.inspect_fit,
            while_(cls.should_score)(cls.run_score),
            cls.inspect_score,
            cls.take_candidates,
            cls.finish,
        )
        spec.output_namespace(
            'references',
            valid_type=OodReferenceData,
            dynamic=True,
            help='The reference of each ensemble; it can be used again as the input `reference`.',
        )
        spec.output_namespace(
            'scores',
            valid_type=OodScoresData,
            dynamic=True,
            help='Scores by target and ensemble, per atom and per structure; those of `heldout` are for comparison.',
        )
        spec.output_namespace(
            'candidates',
            valid_type=StructureSetData,
            dynamic=True,
            help='For each target: the structures to look at first.',
        )
        spec.output_namespace(
            'decisions',
            valid_type=orm.Dict,
            dynamic=True,
            help='For each target: rank, score and reason of each candidate.',
        )
        spec.exit_code(
            401,
            'ERROR_EMBEDDING_FAILED',
            message='{what} could not be turned into latents: {message} All other latents are kept; mend the cause and '
            'submit the same again with caching enabled.',
        )
        spec.exit_code(
            402,
            'ERROR_SCORING_FAILED',
            message='{what} failed: {message} All latents are kept; mend the cause and submit the same again with '
            'caching enabled.',
        )

    def setup(self) -> None:
        """List the jobs."""
        self.ctx.todo = []
        self.ctx.latents = {}
        for ensemble, name, structures in self._sets():
            for start, stop in split_into_shards(structures.get_array('offsets'), self.inputs.atoms_per_job.value):
                self.ctx.todo.append([ensemble, name, start, stop])
        if self.ctx.todo:
            self.report(f'{len(self.ctx.todo)} jobs turn structures into latents')

    def _sets(self) -> Iterator[tuple[str, str, StructureSetData]]:
        """Go through what has to be turned into latents: ensemble, name of the set, structures."""
        for ensemble, inputs in self.inputs.ensembles.items():
            for name in ('reference', HELDOUT):
                node = inputs.get(name)
                if isinstance(node, StructureSetData) and f'{name}_latents' not in inputs:
                    yield ensemble, name, node
            for target, target_inputs in self.inputs.targets.items():
                if ensemble not in target_inputs.get('latents', {}):
                    yield ensemble, target, target_inputs['structures']

    def should_embed(self) -> bool:
        """Say whether there are jobs to send."""
        return bool(self.ctx.todo)

    def run_embed(self) -> ToContext:
        """Send all jobs."""
        self.ctx.sent = list(self.ctx.todo)
        self.ctx.todo = []
        sets = {(ensemble, name): node for ensemble, name, node in self._sets()}
        calls = {}
        for ensemble, name, start, stop in self.ctx.sent:
            inputs = AttributeDict(self.exposed_inputs(LatentsCalculation, namespace='embed'))
            inputs.structures = sets[ensemble, name]
            inputs.models = self.inputs.ensembles[ensemble]['models']
            inputs.start, inputs.stop = orm.Int(start), orm.Int(stop)
            key = f'embed_{ensemble}_{name}_{start}'
            again = self.count_fruitless(key)
            calls[key] = self.submit_once(f'{key}_again{again}' if again else key, LatentsCalculation, inputs)
        return ToContext(**calls)

    def inspect_embed(self) -> ExitCode | None:
        """Keep what was finished; send the rest of an interrupted shard again."""
        for ensemble, name, start, stop in self.ctx.sent:
            key = f'embed_{ensemble}_{name}_{start}'
            job = self.ctx[key]
            done = list(job.outputs.latents.values()) if 'latents' in job.outputs else []
            self.ctx.latents.setdefault(f'{ensemble}/{name}', []).extend(done)
            # Whatever ended it (walltime, memory, a node): what it says of itself tells where to go on.
            rest = job.outputs.results['next_structure'] if 'results' in job.outputs else None
            if rest is None and was_lost(job):
                rest = start
            if rest is not None and self.may_go_on(key, rest - start):
                self.report(
                    f'{name} under {ensemble}: ended at structure {rest} of {stop}, going on from there '
                    f'({job.exit_message})'
                )
                self.ctx.todo.append([ensemble, name, rest, stop])
                continue
            if not job.is_finished_ok:
                return self.exit_codes.ERROR_EMBEDDING_FAILED.format(
                    what=f'{name} under {ensemble}', message=_describe_end(job)
                )
            failures = job.outputs.results['failures']
            text = f'; {len(failures)} failed, the first: {failures[0]["message"]}' if failures else ''
            self.report(f'{name} under {ensemble}: {job.outputs.results["n_structures"]} structures done{text}')
        return None

    def should_fit(self) -> bool:
        """Say whether a reference has to be fitted, for the first time or because the machine lost the job."""
        return any(self.is_due(f'fit_{ensemble}') for ensemble in self._unfitted())

    def run_fit(self) -> ToContext:
        """Send a job for each ensemble that has no reference yet."""
        calls = {}
        for ensemble in self._unfitted():
            call = f'fit_{ensemble}'
            if not self.is_due(call):
                continue
            inputs = self._job_inputs('oodal.fit_reference')
            inputs.settings = self.inputs.reference
            for name in ('reference', HELDOUT):
                if latents := self._latents(ensemble, name):
                    inputs[name] = latents
            labelled = self.inputs.ensembles[ensemble].get(HELDOUT if HELDOUT in inputs else 'reference')
            if labelled is not None:
                inputs.labelled = labelled
            calls[call] = self.submit_once(call, FitReferenceCalculation, inputs)
        return ToContext(**calls)

    def inspect_fit(self) -> ExitCode | None:
        """Keep the references, those that were given too."""
        self.ctx.references = {}
        for ensemble, inputs in self.inputs.ensembles.items():
            if ensemble not in self._unfitted():
                self.ctx.references[ensemble] = inputs['reference']
                continue
            job = self.ctx[f'fit_{ensemble}']
            if not job.is_finished_ok:
                return self.exit_codes.ERROR_SCORING_FAILED.format(
                    what=f'fitting the reference of {ensemble}', message=_describe_end(job)
                )
            self.ctx.references[ensemble] = job.outputs.reference
            for note in job.outputs.results['notes']:
                self.report(f'{ensemble}: {note}')
        return None

    def should_score(self) -> bool:
        """Say whether sets have to be scored, for the first time or because the machine lost the job."""
        return any(self.is_due(f'score_{ensemble}') for ensemble in self.inputs.ensembles)

    def run_score(self) -> ToContext:
        """Send a job for each ensemble: it scores all targets, and the held-out structures to compare with."""
        calls = {}
        for ensemble in self.inputs.ensembles:
            call = f'score_{ensemble}'
            if not self.is_due(call):
                continue
            inputs = self._job_inputs('oodal.score_sets')
            inputs.reference, inputs.insist = self.ctx.references[ensemble], self.inputs.insist
            sets = {name: self._latents(ensemble, name) for name in (*self.inputs.targets, HELDOUT)}
            inputs.sets = {name: latents for name, latents in sets.items() if latents}
            if ensemble == self._against():
                inputs.candidates = self.inputs.candidates
                inputs.choose_from = orm.List(sorted(self.inputs.targets))
            calls[call] = self.submit_once(call, ScoreSetsCalculation, inputs)
        return ToContext(**calls)

    def inspect_score(self) -> ExitCode | None:
        """Keep the scores, and say what is worth knowing about them."""
        self.ctx.scores = {}
        for ensemble in self.inputs.ensembles:
            job = self.ctx[f'score_{ensemble}']
            if not job.is_finished_ok:
                return self.exit_codes.ERROR_SCORING_FAILED.format(
                    what=f'scoring against {ensemble}', message=_describe_end(job)
                )
            for name, scores in job.outputs.scores.items():
                self.ctx.scores.setdefault(name, {})[ensemble] = scores
            for name, found in job.outputs.results['sets'].items():
                for sentence in _describe_set(found) if name != HELDOUT else ():
                    self.report(f'{name} against {ensemble}: {sentence}')
        return None

    def take_candidates(self) -> ExitCode | None:
        """Take out the structures that were chosen of every target."""
        self.ctx.candidates = {}
        decisions = self.ctx[f'score_{self._against()}'].outputs.decisions
        for target, inputs in self.inputs.targets.items():
            self.ctx.candidates[target], node = self.run_once(
                f'take_{target}', take_candidates, inputs['structures'], decisions[target]
            )
            if not node.is_finished_ok:
                return self.exit_codes.ERROR_SCORING_FAILED.format(
                    what=f'taking the candidates of {target}', message=node.exit_message
                )
            self.report(f'{target}: {decisions[target]["summary"]} under {self._against()}')
        return None

    def finish(self) -> None:
        """Attach the outputs."""
        self.out('references', self.ctx.references)
        self.out('scores', self.ctx.scores)
        self.out('candidates', self.ctx.candidates)
        self.out('decisions', dict(self.ctx[f'score_{self._against()}'].outputs.decisions))

    def _against(self) -> str:
        """Return the ensemble that chooses the candidates."""
        return str(self.inputs.against.value) if 'against' in self.inputs else min(self.inputs.ensembles)

    def _unfitted(self) -> list[str]:
        """Return the ensembles that came without a fitted reference."""
        ensembles = self.inputs.ensembles
        return [name for name in ensembles if not isinstance(ensembles[name].get('reference'), OodReferenceData)]

    def _latents(self, ensemble: str, name: str) -> dict[str, LatentsData]:
        """Return the latents of one set, by key: those given, or those that the jobs made."""
        if (given := given_latents(self.inputs, ensemble, name)) is not None:
            return dict(given)
        nodes = self.ctx.latents.get(f'{ensemble}/{name}', [])
        return {f'{node.model_label}_{node.first_structure}': node for node in nodes}

    def _job_inputs(self, parser: str) -> AttributeDict:
        """Return code, computer and options of a job that fits or scores."""
        source = self.inputs.judge if 'code' in self.inputs.get('judge', {}) else self.inputs.embed
        metadata: Mapping[str, Any] = source.get('metadata', {})
        own = {name: metadata[name] for name in ('computer',) if metadata.get(name) is not None}
        options = {**metadata.get('options', {}), 'parser_name': parser}
        return AttributeDict({'code': source.code, 'metadata': {**own, 'options': options}})


def _describe_end(job: orm.CalcJobNode) -> str:
    """Say which job ended how."""
    return f'{job.process_label}<{job.pk}>: {job.exit_message or job.process_state.value}'


def _describe_set(found: Mapping[str, Any]) -> list[str]:
    """Return what is worth knowing about a set that was scored."""
    sentences = []
    if found['left_out']:
        sentences.append(f'{len(found["left_out"])} isolated atoms are in the reference set and were not scored')
    if found['n_known']:
        sentences.append(
            f'{found["n_known"]} structures are in the reference set or the held-out set too: they are no candidates'
        )
    return sentences + find_contradictions(found['flagged'], found['n_structures'])
