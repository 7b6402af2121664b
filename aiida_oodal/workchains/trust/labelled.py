"""The labels of a campaign: the structures that it begins with, and the chosen clusters of each round."""

from __future__ import annotations

from collections.abc import Mapping

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.labels import AWAITED, QUEUE_KEY
from aiida_oodal.queue import get_entries
from aiida_oodal.workchains.calls import Call, Stage
from aiida_oodal.workchains.campaign_inputs import find_labels, name_parts
from aiida_oodal.workchains.stages import load_labeller

from .packing import PacksSets
from .signs import explain_failures


class LabelledRounds(PacksSets):
    """Ask the labeller for what has no label yet, and keep the labels of each round apart.

    Mixed into :class:`.CampaignWorkChain`, which has ``inputs``, ``ctx.round``, ``ctx.chosen`` and ``_fail``. In
    ``ctx``, ``labels`` are all labelled sets by their names, and ``training`` the same sets as trainings take them,
    those of earlier rounds packed.
    """

    def setup_labels(self) -> None:
        """Fill the context from the inputs."""
        self.ctx.labels, self.ctx.training = {}, {}
        self.add_labels(name_parts(find_labels(self.inputs.initial)))
        #: The clusters that were chosen and have no label yet, by their key in the queue; those that are FAILED there
        #: are asked for again if they were retried.
        self.ctx.waiting = {}

    def add_labels(self, sets: Mapping[str, StructureSetData]) -> None:
        """Take in labelled sets, by names of their own."""
        self.ctx.labels |= sets
        self.ctx.training = self.pack_sets('labels', {**self.ctx.training, **sets})

    def has_unlabelled(self) -> bool:
        """Return whether there are structures without labels, which are labelled before the first round."""
        return 'structures' in self.inputs.initial or bool(self.inputs.initial.get('clusters'))

    def run_label(self) -> ToContext:
        """Submit the labeller: first for the initial structures, then for all chosen clusters that have no label."""
        labeller = load_labeller(self.inputs.label.workflow.value)
        inputs = AttributeDict({**self.inputs.label.inputs, 'campaign': orm.Str(self.node.uuid)})
        if self.ctx.round == 0:
            inputs |= {
                key: self.inputs.initial[key] for key in ('structures', 'clusters') if key in self.inputs.initial
            }
        else:
            # Earlier ones, too: their label came too late for `label.enough`, or they were retried.
            hopeful = {key for key, entry in get_entries(self.ctx.waiting).items() if not entry.is_given_up}
            inputs.clusters = {key: self.ctx.waiting[key] for key in sorted(hopeful.union(self.ctx.chosen))}
            if 'enough' in self.inputs.label:
                inputs.enough = self.inputs.label.enough
        return ToContext(label=self.submit_once(str(Call(Stage.LABEL, self.ctx.round)), labeller, inputs))

    def inspect_label(self) -> ExitCode | None:
        """Add the labels to the training set."""
        label = self.ctx.label
        if 'labels' not in label.outputs:
            code: ExitCode = self._fail('ERROR_LABELLING_FAILED', label)
            return code
        for sentence in explain_failures(label.outputs.failures.get_dict(), label.outputs.labels.n_structures):
            self.report(sentence)
        name = f'round_{self.ctx.round}' if self.ctx.round else AWAITED
        self.add_labels({name: label.outputs.labels})
        labelled = set(label.outputs.labels.get_set().info[QUEUE_KEY].tolist())
        self.ctx.waiting = {key: node for key, node in self.ctx.waiting.items() if key not in labelled}
        return None
