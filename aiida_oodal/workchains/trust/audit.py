"""The audit: frames of walkers that ran to their end are labelled, to see whether the potential was right there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.learned import LEARNED, define_learned
from aiida_oodal.calculations.trust.frames import take_audit_frames
from aiida_oodal.calculations.trust.judge import JudgeCalculation
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.trust.audit import AuditSettings, explain_verdicts, judge_walkers
from aiida_oodal.queue import enqueue
from aiida_oodal.workchains.carve import CarveWorkChain
from aiida_oodal.workchains.label.ports import define_campaign
from aiida_oodal.workchains.resuming import ResumingWorkChain
from aiida_oodal.workchains.stages import define_stage, load_labeller

#: Thresholds with which every atom of a frame that MD passed may be the centre of a cluster.
_ANY_GAMMA = {'gamma_select': 1e-6, 'gamma_break': 2e-6, 'gamma_ceiling': 1e9}
#: What the audit needs of a walker, beside `start`.
_OF_MD = ('final', 'snapshots', 'series', 'remote_folder')
#: Outputs of the comparison that are those of the audit, too.
_JUDGED = ('judged', 'judged_validation')


class AuditWorkChain(ResumingWorkChain):
    """Label the last frames of walkers, and compare with what drove them.

    Frames are labelled whole or, if one has more atoms than `whole_atoms`, as clusters that are cut around the atoms
    with the largest gamma. A walker passes if the force error is within the tolerance everywhere, if it is as dense at
    its end as it was at its start, and if its atoms have not lost their neighbours.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.input_namespace(
            'walkers',
            dynamic=True,
            valid_type=(StructureSetData, orm.StructureData, orm.ArrayData, orm.RemoteData),
            help='By name: `start`, the structure that the walker began with, and of the outputs of its MD `series`, '
            '`final`, `snapshots` and `remote_folder`, as far as they are there.',
        )
        define_learned(spec, text='The potential or ensemble that drove the walkers.')
        define_stage(spec, 'label', 'oodal.label.ase', 'labels')
        define_campaign(spec)
        spec.input(
            'settings',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=lambda node, _: AuditSettings.check(node.get_dict()),
            help='Fields of `aiida_oodal.engine.trust.audit.AuditSettings`: how many frames, the tolerance, ...',
        )
        spec.expose_inputs(CarveWorkChain, include=('carve',))
        spec.expose_inputs(JudgeCalculation, namespace='judge', exclude=('structures', 'starts', 'ends', *LEARNED))
        spec.outline(
            cls.setup,
            if_(cls.has_large)(cls.run_carve, cls.inspect_carve).else_(cls.take_frames),
            if_(cls.has_frames)(
                cls.run_label, cls.inspect_label, if_(cls.has_labels)(while_(cls.is_judge_due)(cls.run_judge))
            ),
            cls.finish,
        )
        spec.output('labels', valid_type=StructureSetData, required=False, help='The structures with their labels.')
        spec.output(
            'judged',
            valid_type=StructureSetData,
            required=False,
            help='The structures with `gamma` and `force_error` [eV/angstrom] of every atom.',
        )
        spec.output(
            'judged_validation',
            valid_type=orm.ArrayData,
            required=False,
            help='The same of the atoms of the validation set, if there is one.',
        )
        spec.output(
            'results',
            valid_type=orm.Dict,
            help='`walkers` has for each walker whether it `passed`, the `reasons` if not, and the errors in its '
            '`frames` [meV/angstrom]; `failures` has why structures have no label.',
        )
        spec.exit_code(
            402, 'ERROR_JUDGING_FAILED', message='the labels are there, but nobody could compare with them: {message}'
        )

    def setup(self) -> None:
        """Fill the context."""
        #: What the labeller is asked for, as its inputs, and what it found; None until then.
        self.ctx.asked = self.ctx.labels = None
        #: By walker, why no cluster could be cut; by queue key of a cluster, its walker and step.
        self.ctx.uncut, self.ctx.origins = {}, {}
        #: By structure, why it has no label; and the first reason in words.
        self.ctx.failures, self.ctx.reason = {}, ''

    @property
    def _settings(self) -> AuditSettings:
        return AuditSettings.load(self.inputs.settings.get_dict())

    def has_large(self) -> bool:
        """Return whether frames of a walker are too large to be labelled whole, or stayed where MD ran."""
        most = self._settings.whole_atoms
        return any('final' not in run or run['final'].n_atoms > most for run in self.inputs.walkers.values())

    def take_frames(self) -> None:
        """Take the frames that are labelled whole."""
        runs = {
            name: {key: run[key] for key in ('final', 'snapshots') if key in run}
            for name, run in self.inputs.walkers.items()
        }
        frames = self.result_of('take_audit_frames', take_audit_frames, orm.Int(self._settings.frames), **runs)
        self.ctx.asked = {'structures': frames}

    def run_carve(self) -> ToContext:
        """Submit the carving of the last frame of every walker."""
        settings = {
            **self.inputs.carve.settings.get_dict(), 'snapshots': 1, 'centres_per_snapshot': self._settings.centres,
        }  # fmt: skip
        calls = {}
        for name, run in sorted(self.inputs.walkers.items()):
            inputs = AttributeDict(self.exposed_inputs(CarveWorkChain))
            inputs.carve = AttributeDict({**inputs.carve, 'settings': orm.Dict(settings)})
            inputs.thresholds = orm.Dict(_ANY_GAMMA)
            inputs |= _find_learned(self.inputs)
            inputs |= {'snapshots': run['final']} if 'final' in run else {'parent_folder': run['remote_folder']}
            calls[f'carve_{name}'] = self.submit_once(f'carve_{name}', CarveWorkChain, inputs)
        return ToContext(**calls)

    def inspect_carve(self) -> None:
        """Put the clusters into the DFT queue, and note whose they are."""
        clusters: dict[str, tuple[str, orm.StructureData]] = {}
        for name in sorted(self.inputs.walkers):
            carve = self.ctx[f'carve_{name}']
            if 'clusters' not in carve.outputs:
                self.ctx.uncut[name] = carve.exit_message or 'no cluster could be cut from its last frame'
                continue
            clusters |= {f'{name}_{key}': (name, node) for key, node in carve.outputs.clusters.items()}
        if not clusters:
            return
        level = load_labeller(self.inputs.label.workflow.value).get_level(self.inputs.label.inputs)
        entries = enqueue([node for _, node in clusters.values()], level, campaign=self._campaign)
        self.ctx.origins = {
            entries[node.uuid].key: (name, node.base.attributes.get('step', None)) for name, node in clusters.values()
        }
        self.ctx.asked = {'clusters': {key: node for key, (_, node) in clusters.items()}}

    def has_frames(self) -> bool:
        """Return whether there is something to label."""
        return self.ctx.asked is not None

    def run_label(self) -> ToContext:
        """Submit the labeller."""
        labeller = load_labeller(self.inputs.label.workflow.value)
        inputs = AttributeDict({**self.inputs.label.inputs, 'campaign': orm.Str(self._campaign), **self.ctx.asked})
        return ToContext(label=self.submit_once('label', labeller, inputs))

    def inspect_label(self) -> None:
        """Take the labels."""
        outputs = self.ctx.label.outputs
        self.ctx.failures = outputs.failures.get_dict() if 'failures' in outputs else {}
        self.ctx.reason = next(iter(self.ctx.failures.values()), self.ctx.label.exit_message or '')
        if 'labels' in outputs:
            self.ctx.labels = outputs.labels
            self.out('labels', outputs.labels)

    def has_labels(self) -> bool:
        """Return whether a structure could be labelled."""
        return self.ctx.labels is not None

    def is_judge_due(self) -> bool:
        """Return whether the comparison has to be submitted, for the first time or again."""
        return self.is_due('judge')

    def run_judge(self) -> ToContext:
        """Submit the comparison of forces with labels."""
        inputs = AttributeDict(self.exposed_inputs(JudgeCalculation, 'judge'))
        inputs.structures = self.ctx.labels
        inputs.starts = {name: run['start'] for name, run in self.inputs.walkers.items()}
        inputs.ends = {name: run['final'] for name, run in self.inputs.walkers.items() if 'final' in run}
        inputs |= _find_learned(self.inputs)
        return ToContext(judge=self.submit_once('judge', JudgeCalculation, inputs))

    def finish(self) -> ExitCode | None:
        """Attach the verdicts."""
        judged: dict[str, list[dict[str, Any]]] = {}
        matter: dict[str, dict[str, Any]] = {}
        if self.has_labels():
            job = self.ctx.judge
            if not job.is_finished_ok:
                message = job.exit_message or f'{job.process_label}<{job.pk}> is {job.process_state.value}'
                return self.exit_codes.ERROR_JUDGING_FAILED.format(message=message)
            self.out_many({name: job.outputs[name] for name in _JUDGED if name in job.outputs})
            matter = job.outputs.results['walkers']
            for found in job.outputs.results['structures']:
                name, step = self.ctx.origins.get(found['key'], (found['walker'], found['step']))
                judged.setdefault(name, []).append({**found, 'walker': name, 'step': step})
        failures = {name: self.ctx.uncut.get(name, self.ctx.reason) for name in self.inputs.walkers}
        volumes = {name: run['series'].get_array('volume') for name, run in sorted(self.inputs.walkers.items())}
        verdicts = judge_walkers(judged, volumes, self._settings, matter=matter, failures=failures)
        for sentence in explain_verdicts(verdicts):
            self.report(sentence)
        self.out('results', orm.Dict({'walkers': verdicts, 'failures': self.ctx.failures}).store())
        return None

    @property
    def _campaign(self) -> str:
        return str(self.inputs.campaign.value) if 'campaign' in self.inputs else str(self.node.uuid)


def _find_learned(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: inputs[name] for name in LEARNED if inputs.get(name)}


def as_audited(node: orm.WorkChainNode, start: orm.Data) -> dict[str, orm.Data]:
    """Return what the audit needs of a walker.

    :param node: its exploration, which ran to its end.
    :param start: the structure that it began with.
    """
    return {'start': start, **{name: node.outputs[name] for name in _OF_MD if name in node.outputs}}
