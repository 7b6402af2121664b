"""Screen sets of structures for what ensembles of MACE models do not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.engine_job import was_lost
from aiida_oodal.calculations.fit_reference import fit_reference, validate_reference_settings
from aiida_oodal.calculations.latents import LatentsCalculation
from aiida_oodal.calculations.score import score
from aiida_oodal.calculations.select_candidates import select_candidates, validate_candidate_settings
from aiida_oodal.data import LatentsData, MaceModelData, OodReferenceData, OodScoresData, StructureSetData

from .resuming import ResumingWorkChain
from .screen_inputs import split_into_shards, validate_screen

#: What the held-out structures of an ensemble are called among the scores.
HELDOUT = 'heldout'
#: How often a shard is sent again that came back without having finished a single structure more.
_MAX_FRUITLESS = 2


class ScreenWorkChain(ResumingWorkChain):
    """Structure sets x ensembles -> latents -> scores -> candidates.

    The calls are named ``embed_<ensemble>_<set>_<first structure>``, ``fit_<ensemble>``, ``score_<ensemble>_<target>``
    and ``select_<target>``; the sets of an ensemble are ``reference`` and ``heldout``.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.input_namespace(
            'ensembles',
            dynamic=True,
            valid_type=(MaceModelData, StructureSetData, OodReferenceData, LatentsData),
            help='By name: {"models": {"w1": node, ...}, "reference": StructureSetData (what the models were trained '
            'on) or a fitted OodReferenceData, "heldout": StructureSetData (like it, but not trained on; sets the '
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
            # Not needed where all latents are there already.
            namespace_options={'required': False, 'populate_defaults': False},
        )
        spec.input(
            'reference',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=validate_reference_settings,
            help='How references are fitted: fields of `aiida_oodal.engine.ood.score_settings.ReferenceSettings`.',
        )
        spec.input(
            'candidates',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({'n': 100, 'level': 0.95}),
            validator=validate_candidate_settings,
            help='Fields of `aiida_oodal.engine.ood.score_settings.CandidateSettings`; by default at most 100 of those '
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
            help='Larger sets are sharded over several jobs.',
        )
        spec.inputs.validator = validate_screen
        spec.outline(
            cls.setup,
            while_(cls.should_embed)(cls.run_embed, cls.inspect_embed),
            cls.fit_references,
            cls.score_targets,
            cls.select,
            cls.finish,
        )
        spec.output_namespace(
            'references', valid_type=OodReferenceData, dynamic=True, help='By ensemble; reusable as `reference`.'
        )
        spec.output_namespace(
            'scores',
            valid_type=OodScoresData,
            dynamic=True,
            help='By target and ensemble, per atom and per structure; those of `heldout` are for comparison.',
        )
        spec.output_namespace(
            'candidates', valid_type=StructureSetData, dynamic=True, help='By target: the structures to look at first.'
        )
        spec.output_namespace(
            'decisions', valid_type=orm.Dict, dynamic=True, help='By target: rank, score and reason of each candidate.'
        )
        spec.exit_code(
            401,
            'ERROR_EMBEDDING_FAILED',
            message='{what} could not be turned into latents: {message} All other latents are kept; mend the cause and '
            'submit the same again with caching enabled.',
        )
        spec.exit_code(402, 'ERROR_SCORING_FAILED', message='{what} failed: {message}')

    def setup(self) -> None:
        """List the jobs."""
        self.ctx.todo = []
        self.ctx.latents = {}
        self.ctx.fruitless = {}
        for ensemble, name, structures in self._sets():
            for start, stop in split_into_shards(structures.get_array('offsets'), self.inputs.atoms_per_job.value):
                self.ctx.todo.append([ensemble, name, start, stop])
        if self.ctx.todo:
            self.report(f'{len(self.ctx.todo)} jobs turn structures into latents')

    def _sets(self) -> Iterator[tuple[str, str, StructureSetData]]:
        """Go through what has to be turned into latents: ensemble, name of the set, structures."""
        for ensemble, inputs in self.inputs.ensembles.items():
            for name in ('reference', 'heldout'):
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
            again = self.ctx.fruitless.get(key, 0)
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
            if rest is not None:
                self.ctx.fruitless[key] = self.ctx.fruitless.get(key, 0) + 1 if rest == start else 0
                if self.ctx.fruitless[key] <= _MAX_FRUITLESS:
                    self.report(
                        f'{name} under {ensemble}: ended at structure {rest} of {stop}, going on from there '
                        f'({job.exit_message})'
                    )
                    self.ctx.todo.append([ensemble, name, rest, stop])
                    continue
            if not job.is_finished_ok:
                return self.exit_codes.ERROR_EMBEDDING_FAILED.format(
                    what=f'{name} under {ensemble}',
                    message=f'{job.process_label}<{job.pk}>: {job.exit_message or job.process_state.value}',
                )
            failures = job.outputs.results['failures']
            text = f'; {len(failures)} failed, the first: {failures[0]["message"]}' if failures else ''
            self.report(f'{name} under {ensemble}: {job.outputs.results["n_structures"]} structures done{text}')
        return None

    def _latents(self, ensemble: str, name: str) -> dict[str, LatentsData]:
        """Return the latents of one set, by key: those given, or those that the jobs made."""
        inputs = self.inputs.ensembles[ensemble]
        given: Mapping[str, LatentsData] | None = (
            inputs.get(f'{name}_latents')
            if name in ('reference', 'heldout')
            else self.inputs.targets[name].get('latents', {}).get(ensemble)
        )
        if given is not None:
            return dict(given)
        nodes = self.ctx.latents.get(f'{ensemble}/{name}', [])
        return {f'{node.model_label}_{node.base.attributes.get("first_structure")}': node for node in nodes}

    def fit_references(self) -> ExitCode | None:
        """Fit what scores need, or take what was fitted before."""
        self.ctx.references = {}
        for ensemble, inputs in self.inputs.ensembles.items():
            if isinstance(inputs.get('reference'), OodReferenceData):
                self.ctx.references[ensemble] = inputs['reference']
                continue
            groups = {name: self._latents(ensemble, name) for name in ('reference', 'heldout')}
            groups = {name: latents for name, latents in groups.items() if latents}
            labelled = inputs.get('heldout' if 'heldout' in groups else 'reference')
            fitted, node = self.run_once(
                f'fit_{ensemble}',
                fit_reference,
                self.inputs.reference,
                **({} if labelled is None else {'labelled': labelled}),
                **groups,
            )
            if not node.is_finished_ok:
                return self.exit_codes.ERROR_SCORING_FAILED.format(
                    what=f'fitting the reference of {ensemble}', message=node.exit_message
                )
            for note in fitted.base.attributes.get('notes'):
                self.report(f'{ensemble}: {note}')
            self.ctx.references[ensemble] = fitted
        return None

    def score_targets(self) -> ExitCode | None:
        """Score every target against every ensemble, and its held-out structures, to compare with."""
        self.ctx.scores = {}
        for name in (*self.inputs.targets, HELDOUT):
            for ensemble, reference in self.ctx.references.items():
                latents = self._latents(ensemble, name)
                if not latents:
                    continue
                scored, node = self.run_once(f'score_{ensemble}_{name}', score, reference, **latents)
                if not node.is_finished_ok:
                    return self.exit_codes.ERROR_SCORING_FAILED.format(
                        what=f'scoring {name} against {ensemble}', message=node.exit_message
                    )
                self.ctx.scores.setdefault(name, {})[ensemble] = scored
        return None

    def select(self) -> ExitCode | None:
        """Choose the candidates of every target."""
        self.ctx.selected = {}
        ensemble = self.inputs.against.value if 'against' in self.inputs else min(self.ctx.references)
        for target, inputs in self.inputs.targets.items():
            self.ctx.selected[target], node = self.run_once(
                f'select_{target}',
                select_candidates,
                inputs['structures'],
                self.inputs.candidates,
                self.ctx.scores[target][ensemble],
                self.ctx.references[ensemble],
                **self._latents(ensemble, target),
            )
            if not node.is_finished_ok:
                return self.exit_codes.ERROR_SCORING_FAILED.format(
                    what=f'choosing candidates of {target}', message=node.exit_message
                )
            self.report(f'{target}: {self.ctx.selected[target]["decisions"]["summary"]} under {ensemble}')
        return None

    def finish(self) -> None:
        """Attach the outputs."""
        self.out('references', self.ctx.references)
        self.out('scores', self.ctx.scores)
        for name in ('candidates', 'decisions'):
            self.out(name, {target: selected[name] for target, selected in self.ctx.selected.items()})
