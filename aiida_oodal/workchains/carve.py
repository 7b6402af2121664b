"""Cut clusters out of graded snapshots, by a job that is submitted again if the machine ended it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.carve_clusters import CarveClustersCalculation, validate_carve

from .resuming import ResumingWorkChain

#: Ports of the job that say what is carved; the others are in the namespace ``carve``.
SUBJECT = ('snapshots', 'parent_folder', 'thresholds', 'potential', 'ensemble', 'second_opinion')


class CarveWorkChain(ResumingWorkChain):
    """Cut clusters around the worst atoms of snapshots, and grade the centres again inside the cells.

    The potential or ensemble that graded the snapshots also grades the cells. With a potential, an ensemble can give a
    second opinion.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.expose_inputs(CarveClustersCalculation, include=SUBJECT)
        spec.expose_inputs(CarveClustersCalculation, namespace='carve', exclude=SUBJECT)
        spec.inputs.validator = validate
        spec.outline(while_(cls.is_carve_due)(cls.run_carve), cls.inspect_carve)
        spec.expose_outputs(CarveClustersCalculation, include=('clusters', 'carving'))
        spec.exit_code(402, 'ERROR_CARVING_FAILED', message='no cluster could be cut: {message}')

    def is_carve_due(self) -> bool:
        """Return whether the job has to be submitted, for the first time or again."""
        return self.is_due('carve')

    def run_carve(self) -> ToContext:
        """Submit the job that cuts and grades."""
        inputs = AttributeDict(self.exposed_inputs(CarveClustersCalculation, 'carve'))
        return ToContext(carve=self.submit_once('carve', CarveClustersCalculation, inputs))

    def inspect_carve(self) -> ExitCode | None:
        """Attach the clusters."""
        job = self.ctx.carve
        if not job.is_finished_ok:
            message = job.exit_message or f'{job.process_label}<{job.pk}> is {job.process_state.value}'
            return self.exit_codes.ERROR_CARVING_FAILED.format(message=message)
        self.out_many(self.exposed_outputs(job, CarveClustersCalculation, agglomerate=False))
        carving = job.outputs.carving.get_dict()
        if carving['verdict']:
            self.report(f'{job.process_label}<{job.pk}> read the files of MD where they are: {carving["verdict"]}')
        if carving['second_opinion']:
            self.report(f'going on without a second opinion: {carving["second_opinion"]}')
        for sentence in describe_carving(carving['centres']):
            self.report(sentence)
        return None


def validate(inputs: Any, ports: Any) -> str | None:
    """Refuse inputs that cannot be graded."""
    carve = inputs['carve']
    return validate_carve({**inputs, 'settings': carve['settings'], 'metadata': carve.get('metadata', {})}, ports)


def describe_carving(centres: list[dict[str, Any]]) -> list[str]:
    """Return sentences for the process report: how many clusters, and each centre on which the two grades disagree."""
    taken = sum(centre['taken'] for centre in centres)
    if not centres:
        return ['no cluster: there is no frame whose largest gamma is above gamma_select and not above gamma_ceiling']
    sentences = [f'{taken} of {len(centres)} centres became clusters']
    opinions = Counter(centre['second_opinion'] for centre in centres if 'second_opinion' in centre)
    if opinions:
        counts = ', '.join(f'{number} {verdict}' for verdict, number in sorted(opinions.items()))
        sentences.append(f'second opinion of the ensemble, which grade finds the centre out of distribution: {counts}')
    sentences += [
        f'disagreement about atom {centre["centre"]} of step {centre["step"]} ({centre["second_opinion"]}): gamma '
        f'{centre["gamma_cluster"]:.4g}, score {centre["score"]:.4g} with threshold {centre["score_threshold"]:.4g}'
        for centre in centres
        if centre.get('second_opinion') in ('gamma only', 'score only')
    ]
    return sentences
