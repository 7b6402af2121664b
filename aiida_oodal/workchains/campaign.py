"""The whole loop: explore, select, label, train, until every walker runs to its end."""

from __future__ import annotations

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.job.places import note_places
from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.calculations.select_clusters import SelectClustersCalculation
from aiida_oodal.data import ClusterData
from aiida_oodal.queue import enqueue

from .calls import Call, Stage
from .campaign_builder import BuildsFromProtocol
from .campaign_inputs import define_inputs, find_doubts, own_parts, validate_campaign
from .campaign_outputs import define_outputs
from .explore import (
    ExploreWorkChain,
    collect_clusters,
    describe_walker,
    explain_failed,
    explain_no_candidates,
)
from .stages import load_labeller
from .train.base import as_md_inputs, get_learned
from .trust.audited import AuditedWalkers, define_audit
from .trust.budget import define_budget
from .trust.calibrated import CalibratedTraining, define_calibration
from .trust.converged import ConvergingRounds, define_convergence
from .trust.guard import define_guard
from .trust.labelled import LabelledRounds
from .trust.packing import is_kind
from .trust.signs import count_stuck, explain_stuck


class CampaignWorkChain(BuildsFromProtocol, AuditedWalkers, ConvergingRounds, LabelledRounds, CalibratedTraining):
    """Repeat rounds of explore, select, queue, label and train until every walker runs to its end.

    The steps ``run_train`` to ``inspect_train_again`` are those of :class:`.GuardedTraining`, which also decides
    whether the next round uses what was trained in this one; :class:`.ConvergingRounds` decides whether there is one,
    and with which settings of MD. :class:`.CalibratedTraining` finds out what gamma means in eV/angstrom, and decides
    at which gamma MD halts. :class:`.AuditedWalkers` decides whether walkers that ran to their end are believed.
    Labeller and trainer are named by their entry points; the campaign knows only the base classes
    :class:`.LabelWorkChain` and :class:`.TrainWorkChain`. Call links have the labels that :class:`.Call` makes.

    In ``ctx``, ``learned`` is the potential or the ensemble that drives the walkers, as inputs of
    :class:`.MdCalculation`.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        define_inputs(spec)
        define_convergence(spec)
        define_budget(spec)
        define_audit(spec)
        define_guard(spec)
        define_calibration(spec)
        spec.inputs.validator = validate_campaign
        spec.outline(
            cls.setup,
            if_(cls.has_unlabelled)(cls.run_label, cls.inspect_label),
            if_(cls.should_train_first)(cls.run_train, cls.inspect_train),
            while_(cls.should_explore)(
                cls.run_explore,
                cls.inspect_explore,
                if_(cls.should_audit)(cls.run_audit, cls.inspect_audit),
                cls.conclude_round,
                if_(cls.should_learn)(
                    if_(cls.has_halted)(
                        while_(cls.is_select_due)(cls.run_select),
                        cls.inspect_select,
                        cls.run_label,
                        cls.inspect_label,
                    ),
                    cls.run_train,
                    cls.inspect_train,
                    if_(cls.should_train_again)(cls.run_train_again, cls.inspect_train_again),
                    while_(cls.is_judge_due)(cls.run_judge),
                ),
                cls.calibrate,
            ),
            cls.finish,
        )
        define_outputs(spec)

    def setup(self) -> None:
        """Fill the context from the inputs."""
        initial = self.inputs.initial
        self.ctx.round = 0
        self.setup_convergence()
        self.ctx.learned = get_learned(initial)
        #: By walker, how many rounds in a row it halted at its first step.
        self.ctx.stuck = {}
        note_places(self.node, self.inputs)
        self.setup_labels()
        self.setup_guard()
        self.setup_calibration()
        for sentence in find_doubts(self.inputs):
            self.report(sentence)

    def should_train_first(self) -> bool:
        """Return whether a training comes before the first round."""
        return not self.ctx.learned or self.inputs.initial.train.value

    def should_learn(self) -> bool:
        """Return whether this round did not pass: a walker did not run to its end, or failed the audit."""
        return not self.ctx.passed

    def has_halted(self) -> bool:
        """Return whether a walker of this round did not run to its end, or its gamma was too large on its way."""
        return bool(self.ctx.halted or self.ctx.doubtful)

    def run_explore(self) -> ToContext:
        """Submit MD and carving for every walker, driven by what was learned so far."""
        self.ctx.round += 1
        shared = self.exposed_inputs(MdCalculation, 'md', agglomerate=False)
        learned = as_md_inputs(self.ctx.learned, self.inputs.get('ensemble', {}).get('settings'))
        prepared = {}
        for name, walker in sorted(self.inputs.walkers.items()):
            inputs = AttributeDict(self.exposed_inputs(ExploreWorkChain, agglomerate=False))
            inputs.thresholds = self.ctx.thresholds
            # With the same potential and the same velocities MD would only repeat the run of the round before.
            inputs.md = AttributeDict({**shared, **learned, **self.prepare_walker(walker, shift=len(self.refused))})
            inputs |= self.describe_leg()
            self.require_accepted(ExploreWorkChain, inputs)
            prepared[name] = inputs
        explorers = {}
        for name, inputs in prepared.items():
            explorers[f'explore_{name}'] = self.submit_once(self._call(Stage.EXPLORE, name), ExploreWorkChain, inputs)
        self.report(f'round {self.ctx.round}: sent out {len(explorers)} walkers')
        return ToContext(**explorers)

    def inspect_explore(self) -> ExitCode | None:
        """Read how each walker ended; this round may pass if all of them completed."""
        explorers = self._explorers()
        for name, node in explorers.items():
            self.report(f'round {self.ctx.round}, walker {name}: {describe_walker(node)}')
        found = {name: run.outputs.results.get_dict() for name, run in explorers.items() if 'results' in run.outputs}
        self.ctx.stuck = count_stuck(self.ctx.stuck, found)
        for sentence in explain_stuck(self.ctx.stuck):
            self.report(sentence)
        if not any(node.is_finished_ok for node in explorers.values()):
            return self._fail('ERROR_ALL_WALKERS_FAILED', next(iter(explorers.values())))
        self.judge_walks(explorers)
        return None

    def is_select_due(self) -> bool:
        """Return whether the selection job has to be submitted, for the first time or because the machine ended it."""
        return bool(self._candidates()) and self.is_due(self._call(Stage.SELECT))

    def run_select(self) -> ToContext:
        """Submit the job that chooses among the clusters of all walkers."""
        inputs = AttributeDict(self.exposed_inputs(SelectClustersCalculation, 'select', agglomerate=False))
        inputs |= {'thresholds': self.ctx.thresholds, 'candidates': self._candidates(), **self.ctx.learned}
        if known := self._known():
            inputs.known = known
        call = self._call(Stage.SELECT)
        return ToContext(**{call: self.submit_once(call, SelectClustersCalculation, inputs)})

    def inspect_select(self) -> ExitCode | None:
        """Put the chosen clusters into the DFT queue."""
        candidates = self._candidates()
        if not candidates:
            return self._stop_learning(explain_no_candidates(self._explorers()))
        job = self.ctx[self._call(Stage.SELECT)]
        if not job.is_finished_ok:
            return self._stop_learning(job.exit_message or f'{job.process_label}<{job.pk}> {job.process_state.value}')
        chosen = {key: candidates[key] for key in job.outputs.selection['chosen']}
        level = load_labeller(self.inputs.label.workflow.value).get_level(self.inputs.label.inputs)
        entries = enqueue(chosen.values(), level, campaign=self.node.uuid)
        self.ctx.chosen = [entries[node.uuid].key for node in chosen.values()]
        self.ctx.waiting |= dict(zip(self.ctx.chosen, chosen.values(), strict=True))
        self.report(f'round {self.ctx.round}: {len(candidates)} candidates, {len(chosen)} chosen')
        if not chosen:
            failed = explain_failed(self._explorers())
            return self._stop_learning(f'see the decisions in Dict<{job.outputs.selection.pk}>. {failed}'.strip())
        return None

    def finish(self) -> ExitCode | None:
        """Attach the outputs, and return the exit code if the campaign has not converged."""
        if self.refused:
            self.report(self.explain_refusals())
        code: ExitCode | None = None
        if not self.ctx.converged:
            code = self.explain_end()
        elif self.refused:
            code = self.refuse_convergence()
        self.note_end(code)
        self.attach_known()
        if code is None:
            self.report(self.ctx.reason)
        return code

    def _call(self, stage: Stage, walker: str | None = None) -> str:
        """Return the label of a call of this round."""
        return str(Call(stage, self.ctx.round, walker))

    def _explorers(self) -> dict[str, orm.WorkChainNode]:
        """Return this round's explorations by the name of their walker."""
        return {name: self.ctx[f'explore_{name}'] for name in sorted(self.inputs.walkers)}

    def _candidates(self) -> dict[str, ClusterData]:
        """Return the clusters that were cut in this round, by `<walker>_<number>`."""
        return collect_clusters(self._explorers())

    def _known(self) -> dict[str, orm.Data]:
        """Return the clusters that were chosen in earlier rounds: the labels of each round, and those without a label.

        The labels of a round are one input, or of several rounds: in a long campaign there are hundreds of clusters.
        """
        labels = {name: node for name, node in self.ctx.training.items() if is_kind(name, 'round')}
        return {**labels, **self.ctx.waiting}

    def attach_known(self) -> None:
        """Attach what was learned and the labels that there are, whatever happens next."""
        if 'verdicts' not in self.ctx:
            return
        self.out('learned', self.ctx.learned)
        if 'potential' in self.ctx.learned:
            self.out('potential', self.ctx.learned['potential'])
        if 'results' in self.ctx:
            self.out('results', self.ctx.results)
        self.attach_guard()
        self.attach_calibration()
        self.attach_convergence()
        self.out('labels', own_parts(self.ctx.labels))

    def _stop_learning(self, message: str) -> ExitCode:
        """Attach the outputs, and return the exit code for a round without a cluster to label."""
        self.attach_known()
        message = f'{message} {self.explain_refusals()}'.strip()
        return self.exit_codes.ERROR_NOTHING_TO_LEARN.format(round=self.ctx.round, message=message)

    def _fail(self, label: str, node: orm.ProcessNode) -> ExitCode:
        """Attach the outputs, and return the exit code that names the child that failed."""
        self.attach_known()
        message = node.exit_message or f'{node.process_label}<{node.pk}> is {node.process_state.value}.'
        return self.exit_codes[label].format(round=self.ctx.round, message=message, pk=self.node.pk)
