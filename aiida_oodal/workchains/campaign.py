"""The whole loop: explore, select, queue, label, train, until every walker runs to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.job_options import get_job_options
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.calculations.select_clusters import select_clusters, validate_select_settings
from aiida_oodal.calculations.train_ace import TrainAceCalculation
from aiida_oodal.data import AcePotentialData, ClusterData, StructureSetData
from aiida_oodal.queue import QueueStatus, enqueue, find_known, mark

from .campaign_inputs import find_doubts, validate_campaign
from .explore import ExploreWorkChain, describe_walker
from .protocols import load_protocol, merge
from .resuming import ResumingWorkChain


class CampaignWorkChain(ResumingWorkChain):
    """Rounds of exploring and learning.

    The calls are named ``label_0``, ``train_0`` (the initial set), then ``explore_<round>_<walker>``,
    ``select_<round>``, ``label_<round>`` and ``train_<round>``: the report reads a campaign from these links. A job
    that the machine ended is sent again under the same name.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.input_namespace('initial', help='What the first potential is made of, or the first potential itself.')
        spec.input(
            'initial.structures',
            valid_type=StructureSetData,
            required=False,
            help='Structures that the reference labels first.',
        )
        spec.input('initial.labels', valid_type=StructureSetData, required=False, help='Structures labelled before.')
        spec.input(
            'initial.potential',
            valid_type=AcePotentialData,
            required=False,
            help='Potential to start from; without it the first one is fitted to the initial labels.',
        )
        spec.input(
            'validation',
            valid_type=StructureSetData,
            required=False,
            help='Labelled set that is never trained on; every potential is judged on it.',
        )
        spec.input_namespace(
            'walkers',
            dynamic=True,
            valid_type=(StructureSetData, orm.StructureData, orm.Dict),
            help='By name: {"structure": node, "settings": Dict with the fields of MdSettings}.',
        )
        spec.expose_inputs(
            MdCalculation,
            namespace='md',
            exclude=(
                *('structure', 'settings', 'potential', 'parent_folder', 'restart_file', 'run_to'),
                *('ensemble', 'pair'),  # what is carved and trained is ACE
            ),
        )
        spec.expose_inputs(LabelCalculation, namespace='label', exclude=('clusters', 'structures'))
        spec.expose_inputs(TrainAceCalculation, namespace='train', exclude=('training', 'validation'))
        # An ensemble gives a second opinion on the clusters.
        spec.expose_inputs(ExploreWorkChain, include=('carve', 'ensemble', 'embed'))
        spec.input(
            'select',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=validate_select_settings,
            help='Fields of `aiida_oodal.engine.carve.settings.SelectSettings`: how many clusters a round, tolerances.',
        )
        spec.input(
            'max_rounds',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Int(10),
            validator=lambda node, _: None if node.value > 0 else f'max_rounds must be at least 1, got {node.value}',
            help='The budget: how often the walkers are sent out at most.',
        )
        spec.inputs.validator = validate_campaign
        spec.outline(
            cls.setup,
            if_(cls.should_label_initial)(while_(cls.is_label_due)(cls.label_initial), cls.inspect_initial_labels),
            if_(cls.should_train_initial)(while_(cls.is_train_due)(cls.run_train), cls.inspect_train),
            while_(cls.should_explore)(
                cls.run_explore,
                cls.inspect_explore,
                if_(cls.has_candidates)(
                    cls.select_and_queue,
                    while_(cls.is_label_due)(cls.run_label),
                    cls.inspect_label,
                    while_(cls.is_train_due)(cls.run_train),
                    cls.inspect_train,
                ),
            ),
            cls.finish,
        )
        spec.output('potential', valid_type=AcePotentialData, help='The last potential.')
        spec.output(
            'results', valid_type=orm.Dict, required=False, help='What the last training says of that potential.'
        )
        spec.output_namespace(
            'labels', valid_type=StructureSetData, dynamic=True, help='The labelled set of every round.'
        )
        spec.exit_code(
            401,
            'ERROR_LABELLING_FAILED',
            message='no structure of round {round} could be labelled: {message} The clusters are in the queue as '
            'FAILED; see `verdi process report {pk}`.',
        )
        spec.exit_code(
            402,
            'ERROR_TRAINING_FAILED',
            message='the potential of round {round} could not be fitted: {message} All labels are kept and attached; '
            'see `verdi process report {pk}`.',
        )
        spec.exit_code(
            403,
            'ERROR_ALL_WALKERS_FAILED',
            message='every walker of round {round} failed, the first with: {message} See `verdi process status {pk}`.',
        )
        spec.exit_code(
            501,
            'ERROR_BUDGET_SPENT',
            message='the budget of {rounds} rounds is spent and walkers still halt: the last potential and all labels '
            'are attached; go on with a new campaign that takes them as `initial`.',
        )
        spec.exit_code(
            502,
            'ERROR_NOTHING_TO_LEARN',
            message='walkers of round {round} halted or failed, but no cluster could be chosen: {message}',
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode,
        computer: orm.Computer,
        walkers: Mapping[str, Mapping[str, Any]],
        initial_structures: StructureSetData | None = None,
        initial_labels: StructureSetData | None = None,
        initial_potential: AcePotentialData | None = None,
        validation: StructureSetData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        ensemble: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder filled from ``protocols/campaign.yaml``.

        :param code: the engine's code, see :func:`aiida_oodal.calculations.engine_code.get_engine_code`.
        :param computer: where every job runs.
        :param walkers: by name ``{'structure': node, 'settings': {...}}``; the settings win over those of the protocol.
        :param protocol: ``quick``, ``balanced`` or ``careful``.
        :param overrides: nested values for ``reference``, ``md``, ``carve``, ``select``, ``train``, ``max_rounds``.
        :param options: options of every job: resources, queue_name, max_wallclock_seconds, ...; they win over those
            that the computer was set up with for each process.
        :param ensemble: gives a second opinion on every cluster: ``{'models': {'w1': node, ...}, 'reference': node}``.
        """
        values = load_protocol('campaign', protocol, overrides)
        builder = cls.get_builder()
        for key, node in (
            ('structures', initial_structures),
            ('labels', initial_labels),
            ('potential', initial_potential),
        ):
            if node is not None:
                setattr(builder.initial, key, node)
        if validation is not None:
            builder.validation = validation
        builder.walkers = {
            name: {
                'structure': walker['structure'],
                'settings': orm.Dict(merge(values['md'], walker.get('settings', {}))),
            }
            for name, walker in walkers.items()
        }
        jobs = {'md': builder.md, 'label': builder.label, 'train_ace': builder.train}
        if ensemble is not None:
            builder.ensemble = ensemble
            jobs['latents'] = builder.embed
        for process, namespace in jobs.items():
            namespace.code = code
            namespace.metadata.computer = computer
            namespace.metadata.options.update({**get_job_options(computer, process), **(options or {})})
        builder.label.reference = orm.Dict(values['reference'])
        builder.train.settings = orm.Dict(values['train'])
        builder.carve = orm.Dict(values['carve'])
        builder.select = orm.Dict(values['select'])
        builder.max_rounds = orm.Int(values['max_rounds'])
        return builder

    def setup(self) -> None:
        """Begin with what is known."""
        initial = self.inputs.initial
        self.ctx.round = 0
        self.ctx.training = {}
        self.ctx.converged = False
        self.ctx.potential = initial.get('potential')
        for sentence in find_doubts(self.inputs):
            self.report(sentence)
        if 'labels' in initial:
            self.ctx.training['initial'] = initial.labels

    def should_label_initial(self) -> bool:
        """Tell whether there are structures that the reference must label first."""
        return 'structures' in self.inputs.initial

    def is_label_due(self) -> bool:
        """Tell whether the labels of this round are not there yet and may be asked for, once more if they were."""
        return self.is_due(f'label_{self.ctx.round}')

    def is_train_due(self) -> bool:
        """Tell the same of the fit of this round."""
        return self.is_due(f'train_{self.ctx.round}')

    def label_initial(self) -> ToContext:
        """Submit the labelling of the initial structures."""
        inputs = self.exposed_inputs(LabelCalculation, 'label', agglomerate=False)
        inputs.structures = self.inputs.initial.structures
        return ToContext(label_0=self.submit_once('label_0', LabelCalculation, inputs))

    def inspect_initial_labels(self) -> ExitCode | None:
        """Take the labels into the training set."""
        label = self.ctx.label_0
        if 'labels' not in label.outputs:
            return self._fail('ERROR_LABELLING_FAILED', label)
        if not label.is_finished_ok:
            self.report(f'going on without some initial structures: {label.exit_message}')
        self.ctx.training['start'] = label.outputs.labels
        return None

    def should_train_initial(self) -> bool:
        """Tell whether the first potential has to be fitted."""
        return self.ctx.potential is None

    def should_explore(self) -> bool:
        """Go on until every walker finishes or the budget is spent."""
        return not self.ctx.converged and self.ctx.round < self.inputs.max_rounds.value

    def run_explore(self) -> ToContext:
        """Send every walker out with the potential as it is now."""
        self.ctx.round += 1
        shared = self.exposed_inputs(MdCalculation, 'md', agglomerate=False)
        explorers = {}
        for name, walker in sorted(self.inputs.walkers.items()):
            md = AttributeDict(shared)
            md.update(potential=self.ctx.potential, structure=walker['structure'], settings=walker['settings'])
            inputs = AttributeDict(self.exposed_inputs(ExploreWorkChain, agglomerate=False))
            inputs.md = md
            explorers[f'explore_{name}'] = self.submit_once(
                f'explore_{self.ctx.round}_{name}', ExploreWorkChain, inputs
            )
        self.report(f'round {self.ctx.round}: sent out {len(explorers)} walkers')
        return ToContext(**explorers)

    def inspect_explore(self) -> ExitCode | None:
        """Read the verdicts: all completed means that the loop is done."""
        explorers = self._explorers()
        usable = {name: node for name, node in explorers.items() if node.is_finished_ok}
        for name, node in explorers.items():
            self.report(f'round {self.ctx.round}, walker {name}: {describe_walker(node)}')
        if not usable:
            return self._fail('ERROR_ALL_WALKERS_FAILED', next(iter(explorers.values())))
        self.ctx.converged = all(
            node.is_finished_ok and node.outputs.results['outcome'] == 'COMPLETED' for node in explorers.values()
        )
        return None

    def has_candidates(self) -> bool:
        """Tell whether there is something to learn."""
        return not self.ctx.converged

    def select_and_queue(self) -> ExitCode | None:
        """Choose among the candidates of all walkers and put the chosen ones into the DFT queue."""
        candidates: dict[str, ClusterData] = {
            f'{name}_{key}': cluster
            for name, node in self._explorers().items()
            if 'clusters' in node.outputs
            for key, cluster in node.outputs.clusters.items()
        }
        if not candidates:
            return self._stop_learning(
                'no frame on disk has its largest gamma between gamma_select and gamma_ceiling, or no cluster of such '
                'a frame was accepted (see the `carving` outputs of the walkers). Evaluate gamma more often '
                '(gamma_every), heat from a lower temperature, begin with more varied structures, or raise '
                'gamma_ceiling.'
            )
        selection, node = self.run_once(
            f'select_{self.ctx.round}',
            select_clusters,
            potential=self.ctx.potential,
            settings=self.inputs.select,
            candidates=candidates,
            queued=find_known(self.node.uuid, besides=candidates.values()),
        )
        if not node.is_finished_ok:
            return self._stop_learning(node.exit_message)
        chosen = {key: candidates[key] for key in selection['chosen']}
        self.ctx.queued = enqueue(chosen, campaign=self.node.uuid)
        self.report(
            f'round {self.ctx.round}: {len(candidates)} candidates, {len(chosen)} chosen, {len(self.ctx.queued)} queued'
        )
        if not self.ctx.queued:
            return self._stop_learning(f'see the decisions in Dict<{selection.pk}>.')
        return None

    def run_label(self) -> ToContext:
        """Submit the labelling of what was queued in this round."""
        inputs = self.exposed_inputs(LabelCalculation, 'label', agglomerate=False)
        inputs.clusters = self.ctx.queued
        call = f'label_{self.ctx.round}'
        node = self.submit_once(call, LabelCalculation, inputs)
        for cluster in self.ctx.queued.values():
            mark(cluster, QueueStatus.SUBMITTED)
        return ToContext(**{call: node})

    def inspect_label(self) -> ExitCode | None:
        """Book the labels in the queue and take them into the training set."""
        label = self.ctx[f'label_{self.ctx.round}']
        labelled = set()
        if 'labels' in label.outputs:
            labelled = set(label.outputs.labels.get_set().info['cluster'].tolist())
            self.ctx.training[f'round_{self.ctx.round}'] = label.outputs.labels
        for key, cluster in self.ctx.queued.items():
            if key in labelled:
                mark(cluster, QueueStatus.LABELLED)
            else:
                mark(cluster, QueueStatus.FAILED, reason=label.exit_message)
        if not labelled:
            return self._fail('ERROR_LABELLING_FAILED', label)
        return None

    def run_train(self) -> ToContext:
        """Submit the fit to all labels so far."""
        inputs = self.exposed_inputs(TrainAceCalculation, 'train', agglomerate=False)
        inputs.training = self.ctx.training
        if 'validation' in self.inputs:
            inputs.validation = self.inputs.validation
        call = f'train_{self.ctx.round}'
        return ToContext(**{call: self.submit_once(call, TrainAceCalculation, inputs)})

    def inspect_train(self) -> ExitCode | None:
        """Take the new potential."""
        self.ctx.train = self.ctx[f'train_{self.ctx.round}']
        if not self.ctx.train.is_finished_ok:
            return self._fail('ERROR_TRAINING_FAILED', self.ctx.train)
        self.ctx.potential = self.ctx.train.outputs.potential
        return None

    def finish(self) -> ExitCode | None:
        """Attach what was learned."""
        self._attach()
        if not self.ctx.converged:
            return self.exit_codes.ERROR_BUDGET_SPENT.format(rounds=self.ctx.round)
        self.report(f'every walker ran to its end in round {self.ctx.round}')
        return None

    def _attach(self) -> None:
        """Attach the potential and the labels that there are, whatever happens next."""
        if self.ctx.potential is not None:
            self.out('potential', self.ctx.potential)
        if 'train' in self.ctx and self.ctx.train.is_finished_ok:
            self.out('results', self.ctx.train.outputs.results)
        self.out('labels', {key: node for key, node in self.ctx.training.items() if key != 'initial'})

    def _explorers(self) -> dict[str, orm.WorkChainNode]:
        """Return this round's explorations by the name of their walker."""
        return {name: self.ctx[f'explore_{name}'] for name in sorted(self.inputs.walkers)}

    def _stop_learning(self, message: str) -> ExitCode:
        """Attach what there is and say why nothing could be added to it."""
        self._attach()
        return self.exit_codes.ERROR_NOTHING_TO_LEARN.format(round=self.ctx.round, message=message)

    def _fail(self, label: str, node: orm.ProcessNode) -> ExitCode:
        """Attach what there is and name the child that failed."""
        self._attach()
        message = node.exit_message or f'{node.process_label}<{node.pk}> is {node.process_state.value}.'
        return self.exit_codes[label].format(round=self.ctx.round, message=message, pk=self.node.pk)
