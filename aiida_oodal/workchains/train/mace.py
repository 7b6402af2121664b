"""Train an ensemble of MACE models, one job for each seed, and fit the reference of the new models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.job.engine_job import was_lost
from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.calculations.labels.sets import hold_out
from aiida_oodal.calculations.latents import LatentsCalculation
from aiida_oodal.calculations.ood.fit_reference import FitReferenceCalculation
from aiida_oodal.calculations.train_mace import TrainMaceCalculation, combine_results, judge_ensemble
from aiida_oodal.data import MaceModelData, StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES
from aiida_oodal.engine.mace.train.settings import MaceTrainSettings
from aiida_oodal.engine.ood.fitting import FitOptions
from aiida_oodal.engine.ood.metrics import SCORES
from aiida_oodal.workchains.protocols import load_protocol

from .base import Forecast, TrainWorkChain

_CODES = TrainMaceCalculation.exit_codes
#: Exit codes of a training that goes on from its checkpoint.
_ENDED = (_CODES.ERROR_SCHEDULER_OUT_OF_WALLTIME.status, _CODES.ERROR_INTERRUPTED.status)
#: Sets that the reference is fitted to, and that its thresholds come from.
_SETS = ('training', 'heldout')


class MaceTrainWorkChain(TrainWorkChain):
    """Train one model for each seed on all labels but a held-out share, then fit the reference of these models.

    The held-out share decides which checkpoint of a training is kept, and sets the thresholds of gamma; which
    structures belong to it is decided by their content, so that it only grows from round to round. A training that is
    ended from outside goes on from its checkpoint.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, exit codes."""
        super().define(spec)
        shared = spec.inputs.validator  # exposing inputs replaces it
        spec.expose_inputs(
            TrainMaceCalculation,
            namespace='job',
            exclude=('training', 'validation', 'seed', 'settings', 'start', 'parent_folder'),
        )
        spec.expose_inputs(TrainMaceCalculation, include=('settings',))
        exposed = spec.inputs.validator
        spec.inputs.validator = lambda inputs, ports: (
            shared(inputs, ports) or (exposed and exposed(inputs, ports)) or _validate(inputs)
        )
        spec.expose_inputs(LatentsCalculation, namespace='embed', exclude=('structures', 'models', 'start', 'stop'))
        spec.expose_inputs(
            FitReferenceCalculation, namespace='fit', exclude=('reference', 'heldout', 'labelled', 'structures')
        )
        spec.input(
            'seeds',
            valid_type=orm.List,
            serializer=orm.to_aiida_type,
            default=lambda: orm.List([1, 2, 3, 4]),
            validator=_validate_seeds,
            help='One model for each, labelled w1, w2, ... in this order.',
        )
        spec.input(
            'start_from',
            valid_type=orm.Str,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Str('scratch'),
            validator=_validate_start,
            help='scratch: new weights in every round; last: the models of the round before; foundation: `foundation`.',
        )
        spec.input(
            'foundation',
            valid_type=MaceModelData,
            required=False,
            help='Model that is fine-tuned, in the first round or, with start_from = foundation, in every round.',
        )
        spec.input(
            'heldout_fraction',
            valid_type=orm.Float,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Float(0.15),
            validator=_validate_fraction,
            help='Share of every labelled set that is not trained on; isolated atoms are always trained on.',
        )
        spec.outline(
            cls.split,
            while_(cls.is_training_due)(cls.run_training, cls.inspect_training),
            cls.collect_models,
            while_(cls.is_embedding_due)(cls.run_embedding),
            cls.inspect_embedding,
            while_(cls.is_fit_due)(cls.run_fit),
            cls.inspect_fit,
        )
        spec.exit_code(
            402,
            'ERROR_TRAINING_FAILED',
            message='{seed}: {message} The models of the other seeds are kept; see `verdi process report {pk}`.',
        )
        spec.exit_code(403, 'ERROR_REFERENCE_FAILED', message='{message} The models are trained; see `{job}`.')

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode,
        computer: orm.Computer,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder filled from ``protocols/train_mace.yaml``.

        :param code: the engine's code, see :func:`aiida_oodal.calculations.codes.get_engine_code`.
        :param computer: where the jobs run.
        :param overrides: ``settings``, ``embed`` and ``fit``, fields of ``MaceTrainSettings``, ``LatentsSettings`` and
            ``FitOptions``; ``seeds``, ``start_from``, ``heldout_fraction``; ``foundation``, a model.
        :param options: of every job; they win over those that the computer was set up with.
        """
        given = dict(overrides or {})
        _check_places(given)
        foundation = given.pop('foundation', None)
        values = load_protocol('train_mace', protocol, given, closed=True)
        if not isinstance(values['seeds'], list):
            raise OodalError(
                f'seeds = {values["seeds"]!r}: give a list with a seed for each model, such as [1, 2, 3, 4]'
            )
        if len(values['seeds']) == 1 and 'metrics' not in given.get('fit', {}):
            values['fit']['metrics'] = [name for name in values['fit']['metrics'] if 'models' not in SCORES[name].needs]
        builder = cls.get_builder()
        for name, process in (('job', 'train_mace'), ('embed', 'latents'), ('fit', 'fit_reference')):
            builder[name].code = code
            builder[name].metadata.computer = computer
            builder[name].metadata.options.update(get_job_options(computer, process, options))
        builder.settings = orm.Dict(values['settings'])
        builder.embed.settings = orm.Dict(values['embed'])
        builder.fit.settings = orm.Dict(values['fit'])
        builder.seeds = orm.List(values['seeds'])
        builder.start_from = orm.Str(values['start_from'])
        builder.heldout_fraction = orm.Float(values['heldout_fraction'])
        if foundation is not None:
            builder.foundation = foundation
        return builder

    @classmethod
    def forecast(cls, inputs: Mapping[str, Any], symbols: Sequence[str]) -> Forecast:
        """Return the elements of the labels, and ``r_max`` of models that are trained from scratch."""
        models = _label_seeds(inputs['seeds']) if 'seeds' in inputs else ()
        if 'foundation' in inputs:
            return Forecast(sorted(set(symbols)), None, tuple(models))
        settings = MaceTrainSettings.load(inputs['settings'].get_dict() if 'settings' in inputs else {})
        return Forecast(sorted(set(symbols)), float(settings.to_values()['arguments']['r_max']), tuple(models))

    @classmethod
    def check_labels(
        cls,
        inputs: Mapping[str, Any],
        labels: Mapping[str, StructureSetData],
        validation: StructureSetData | None,
        awaited: StructureSetData | None = None,
    ) -> str | None:
        """Refuse sets without labels, and elements for which the energy of an isolated atom is not known."""
        for name, node in {**labels, **({} if validation is None else {'validation': validation})}.items():
            if not {ENERGY, FORCES} & set(node.base.attributes.get('properties')):
                return f'{name} has neither {ENERGY} nor {FORCES}: label it before training'
        settings = MaceTrainSettings.load(inputs['settings'].get_dict() if 'settings' in inputs else {})
        needs_start = settings.freeze != 'nothing' or settings.E0s == 'foundation'
        if needs_start and not (inputs.get('learned') or 'foundation' in inputs):
            return 'freeze and E0s = foundation need a model from the first training on: give `foundation`, or models'
        sets = [*labels.values(), *([] if awaited is None else [awaited])]
        elements = {symbol for node in sets for symbol in node.symbols}
        known = elements if settings.E0s == 'foundation' else set(settings.E0s)
        if sets and (missing := elements - known) and not any(map(_has_isolated_atom, sets)):
            return (
                f'no energy of an isolated atom of {", ".join(sorted(missing))}: add a structure of one atom, not '
                'periodic, to the initial structures or labels, or give the setting E0s ({element: eV}) of the trainer'
            )
        return None

    def split(self) -> None:
        """Hold out a share of every set."""
        labels = {f'set_{key}': node for key, node in self.inputs.labels.items()}
        sets = self.result_of('hold_out', hold_out, fraction=self.inputs.heldout_fraction, **labels)
        self.ctx.sets = {name: sets[name] for name in _SETS}
        #: Sets on which the errors of the ensemble are computed, by their names in the results.
        self.ctx.judged = {f'anchor_{key}': node for key, node in self.inputs.get('anchors', {}).items()}
        if 'validation' in self.inputs:
            self.ctx.judged['validation'] = self.inputs.validation
        self.ctx.seeds = _label_seeds(self.inputs.seeds)
        #: Labels of the models that are trained next; number of jobs of each model; remote folder of the last job of
        #: each that left a checkpoint.
        self.ctx.due = list(self.ctx.seeds)
        self.ctx.parts = dict.fromkeys(self.ctx.seeds, 0)
        self.ctx.folders = {}

    def is_training_due(self) -> bool:
        """Return whether a model has still to be trained, for the first time or from its checkpoint."""
        return bool(self.ctx.due)

    def run_training(self) -> ToContext:
        """Submit the models that are not trained yet; interrupted trainings go on from their checkpoints."""
        jobs = {}
        for label in self.ctx.due:
            inputs = AttributeDict(self.exposed_inputs(TrainMaceCalculation, 'job'))
            inputs.training = {'labels': self.ctx.sets['training']}
            inputs.validation = self.ctx.sets['heldout']
            inputs.seed = orm.Int(self.ctx.seeds[label])
            if (start := self._find_start(label)) is not None:
                inputs.start = start
            if label in self.ctx.folders:
                inputs.parent_folder = self.ctx.folders[label]
            call = f'train_{label}'
            part = self.ctx.parts[label] + 1
            jobs[call] = self.submit_once(call if part == 1 else f'{call}_part{part}', TrainMaceCalculation, inputs)
        return ToContext(**jobs)

    def inspect_training(self) -> None:
        """Find the trainings that were ended from outside and go on, unless they make no progress."""
        sent, self.ctx.due = self.ctx.due, []
        for label in sent:
            job = self.ctx[f'train_{label}']
            self.ctx.parts[label] += 1
            updates = job.outputs.results.get_dict()['updates'] if 'results' in job.outputs else 0
            if not (was_lost(job) or job.exit_status in _ENDED) or not self.may_go_on(f'train_{label}', updates):
                continue
            if job.exit_status in _ENDED:
                self.ctx.folders[label] = job.outputs.remote_folder
            self.ctx.due.append(label)
            self.report(f'{label}: {job.exit_message} It goes on from update {self.how_far(f"train_{label}")}.')

    def collect_models(self) -> ExitCode | None:
        """Take the models; if a training made a model no better than its start, keep the start."""
        self.ctx.models, self.ctx.trainings = {}, {}
        for label in self.ctx.seeds:
            job, start = self.ctx[f'train_{label}'], self._find_start(label)
            if job.exit_status == _CODES.ERROR_NO_IMPROVEMENT.status and start is not None:
                self.report(f'{label}: {job.exit_message} The model that it began with is kept.')
                self.ctx.models[label] = start
            elif job.is_finished_ok:
                self.ctx.models[label] = job.outputs.model
            else:
                message = job.exit_message or f'{job.process_label}<{job.pk}> is {job.process_state.value}'
                message = f'{message.rstrip(".")}.'
                return self.exit_codes.ERROR_TRAINING_FAILED.format(seed=label, message=message, pk=self.node.pk)
            self.ctx.trainings[label] = job.outputs.results
        if len({model.sha256 for model in self.ctx.models.values()}) < len(self.ctx.models):
            return self.exit_codes.ERROR_TRAINING_FAILED.format(
                seed=', '.join(self.ctx.models),
                message='several trainings made no model better than the one that they began with, and it is the same '
                'for all: such models never disagree. Give more `updates` or another `learning_rate`.',
                pk=self.node.pk,
            )
        return None

    def is_embedding_due(self) -> bool:
        """Return whether latents of a set are missing."""
        return any(self.is_due(f'embed_{name}') for name in self._embedded())

    def run_embedding(self) -> ToContext:
        """Submit the jobs that evaluate all sets with the new models: latents, energies, forces."""
        jobs = {}
        for name, structures in self._embedded().items():
            if self.is_due(f'embed_{name}'):
                inputs = AttributeDict(self.exposed_inputs(LatentsCalculation, 'embed'))
                inputs.structures, inputs.models = structures, self.ctx.models
                jobs[f'embed_{name}'] = self.submit_once(f'embed_{name}', LatentsCalculation, inputs)
        return ToContext(**jobs)

    def inspect_embedding(self) -> ExitCode | None:
        """Go on only with the latents of all structures."""
        for name in self._embedded():
            job = self.ctx[f'embed_{name}']
            if not job.is_finished_ok:
                return self._refuse(job)
        return None

    def is_fit_due(self) -> bool:
        """Tell whether the reference has to be fitted, or fitted again because the machine ended it."""
        return self.is_due('fit_reference')

    def run_fit(self) -> ToContext:
        """Submit the job that fits the reference of these models."""
        inputs = AttributeDict(self.exposed_inputs(FitReferenceCalculation, 'fit'))
        inputs.reference = dict(self.ctx.embed_training.outputs.latents)
        inputs.heldout = dict(self.ctx.embed_heldout.outputs.latents)
        inputs.labelled = self.ctx.sets['heldout']
        inputs.structures = {'reference': self.ctx.sets['training'], 'heldout': self.ctx.sets['heldout']}
        return ToContext(fit_reference=self.submit_once('fit_reference', FitReferenceCalculation, inputs))

    def inspect_fit(self) -> ExitCode | None:
        """Attach the ensemble and the errors of its models."""
        job = self.ctx.fit_reference
        if not job.is_finished_ok:
            return self._refuse(job)
        for note in job.outputs.results['notes']:
            self.report(note)
        self.out('learned', {'ensemble': {'models': self.ctx.models, 'reference': job.outputs.reference}})
        judged = {}
        for name, structures in self.ctx.judged.items():
            latents = dict(self.ctx[f'embed_{name}'].outputs.latents)
            judged[f'judged_{name}'] = self.result_of(f'judge_{name}', judge_ensemble, structures=structures, **latents)
        results = self.result_of(
            'combine_results', combine_results, reference=job.outputs.results, **self.ctx.trainings, **judged
        )
        self.out('results', results)
        return None

    def _embedded(self) -> dict[str, StructureSetData]:
        """Return the sets that are evaluated with the new models, by name."""
        return {**self.ctx.sets, **self.ctx.judged}

    def _find_start(self, label: str) -> MaceModelData | None:
        """Return the model that a seed starts from; None to start from scratch."""
        way, foundation = self.inputs.start_from.value, self.inputs.get('foundation')
        last = self.inputs.learned.get('ensemble', {}).get('models', {}) if 'learned' in self.inputs else {}
        return last.get(label, foundation) if way == 'last' else foundation if way == 'foundation' else None

    def _refuse(self, job: orm.ProcessNode) -> ExitCode:
        message = job.exit_message or f'{job.process_label}<{job.pk}> is {job.process_state.value}.'
        return self.exit_codes.ERROR_REFERENCE_FAILED.format(message=message, job=f'verdi process report {job.pk}')


def _check_places(overrides: Mapping[str, Any]) -> None:
    """Refuse what stands in `settings` but belongs beside them, the other way round, and a foundation that is no model.

    :raises OodalError: naming it and its place.
    """
    for name in overrides:
        if name in MaceTrainSettings.model_fields:
            raise OodalError(f'{name} is a setting of the models: give it in `settings`')
    settings = overrides.get('settings', {})
    for name in ('seeds', 'start_from', 'foundation', 'heldout_fraction'):
        if isinstance(settings, Mapping) and name in settings:
            raise OodalError(f'{name} stands beside `settings`, not among them')
    foundation = overrides.get('foundation')
    if foundation is not None and not isinstance(foundation, MaceModelData):
        raise OodalError(
            f"foundation = {foundation!r} is no model: give a node, such as MaceModelData('/absolute/path/of.model')"
        )


def _validate(inputs: Mapping[str, Any]) -> str | None:
    """Refuse what would be trained from a model that is not given, and scores that one model does not have."""
    if not {'start_from', 'seeds', 'settings'} <= set(inputs):
        return None
    way, settings = inputs['start_from'].value, MaceTrainSettings.load(inputs['settings'].get_dict())
    if way == 'foundation' and 'foundation' not in inputs:
        return "start_from = 'foundation' needs the model as `foundation`: MaceModelData('/absolute/path/of.model')"
    if way == 'scratch' and settings.freeze != 'nothing':
        return (
            f"freeze = {settings.freeze!r} needs models to start from, but start_from = 'scratch': give 'last' or "
            "'foundation'"
        )
    if way == 'scratch' and settings.E0s == 'foundation':
        return "E0s = 'foundation' needs a model to start from, but start_from = 'scratch': give 'foundation'"
    if len(inputs['seeds'].get_list()) == 1 and 'settings' in inputs.get('fit', {}):
        try:
            FitOptions.load(inputs['fit']['settings'].get_dict()).for_models(1)
        except OodalError as error:
            return f'{error} (`metrics` of `fit`)'
    return None


def _label_seeds(seeds: orm.List) -> dict[str, int]:
    """Return the seed of each model by the label of the model."""
    return {f'w{number}': seed for number, seed in enumerate(seeds.get_list(), start=1)}


def _has_isolated_atom(node: StructureSetData) -> bool:
    """Tell whether a set has an isolated atom, as a training finds it."""
    structures = node.get_set()
    single = np.diff(structures.offsets) == 1
    named = structures.info.get('config_type', np.full(len(structures), '')) == 'IsolatedAtom'
    return bool((single & (named | ~structures.pbc.any(axis=1))).any())


def _validate_seeds(node: orm.List, _: Any) -> str | None:
    seeds = node.get_list()
    if not seeds or any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in seeds):
        return f'seeds = {seeds}: give one whole number, not negative, for each model'
    return f'seeds = {seeds}: two models of one seed never disagree' if len(set(seeds)) < len(seeds) else None


def _validate_start(node: orm.Str, _: Any) -> str | None:
    ways = ('scratch', 'last', 'foundation')
    return None if node.value in ways else f'start_from = {node.value!r} is none of {", ".join(ways)}'


def _validate_fraction(node: orm.Float, _: Any) -> str | None:
    return None if 0.0 < node.value <= 0.5 else f'heldout_fraction = {node.value:g} must lie above 0 and at most at 0.5'
