"""From graded snapshots to clusters, with an ensemble of MACE models as the judge or as a second opinion."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.cut_clusters import cut_clusters
from aiida_oodal.calculations.ensemble_ports import define_ensemble
from aiida_oodal.calculations.extract_clusters import extract_clusters, validate_carve_settings
from aiida_oodal.calculations.latents import LatentsCalculation
from aiida_oodal.data import AcePotentialData, ClusterData, StructureSetData
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.calibration import check_level

from .resuming import ResumingWorkChain

_OPTIONAL = {'required': False, 'populate_defaults': False}


class CarveWorkChain(ResumingWorkChain):
    """Cut clusters around the worst atoms of snapshots, and grade the centres again inside the cells.

    Whoever graded the snapshots grades the cells: an ACE potential here, an ensemble in a job. Beside an ACE potential
    an ensemble gives a second opinion.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.input(
            'snapshots',
            valid_type=StructureSetData,
            help='Frames in the order of MD, with `gamma` of shape (n_atoms,) and `step`.',
        )
        spec.input(
            'carve',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            default=lambda: orm.Dict({}),
            validator=validate_carve_settings,
            help='Fields of `aiida_oodal.engine.carve.settings.CarveSettings`: radius, buffer [angstrom], shape, ...',
        )
        spec.input(
            'potential',
            valid_type=AcePotentialData,
            required=False,
            help='The ACE potential that graded the snapshots; without it the ensemble did.',
        )
        spec.input(
            'gamma_break',
            valid_type=orm.Float,
            serializer=orm.to_aiida_type,
            required=False,
            help='Buffer atoms with a larger gamma in the cell are counted, dimensionless.',
        )
        define_ensemble(spec, 'MACE models that look at the cells.')
        spec.input(
            'ensemble.level',
            valid_type=orm.Float,
            serializer=orm.to_aiida_type,
            required=False,
            validator=lambda node, _: None if node is None else check_level(node.value),
            help='Share of the held-out atoms of the reference set whose score is below the threshold; default 0.99.',
        )
        spec.expose_inputs(
            LatentsCalculation,
            namespace='embed',
            exclude=('structures', 'models', 'start', 'stop'),
            namespace_options={**_OPTIONAL, 'help': 'How the latents of the cells are computed.'},
        )
        spec.inputs.validator = validate_carve
        spec.outline(
            if_(cls.has_ensemble)(
                cls.cut, if_(cls.has_cells)(while_(cls.is_embed_due)(cls.run_embed), cls.inspect_embed)
            ),
            cls.extract,
        )
        spec.output_namespace(
            'clusters', valid_type=ClusterData, dynamic=True, required=False, help='Candidates for the DFT queue.'
        )
        spec.output('carving', valid_type=orm.Dict, help='Every centre that was considered, its grades and its fate.')
        spec.exit_code(
            401,
            'ERROR_GRADING_FAILED',
            message='the ensemble could not look at the cells, so no cluster was taken: {message}',
        )
        spec.exit_code(402, 'ERROR_CARVING_FAILED', message='no cluster could be cut: {message}')

    def has_ensemble(self) -> bool:
        """Tell whether an ensemble looks at the cells."""
        return bool(self.inputs.get('ensemble'))

    def cut(self) -> ExitCode | None:
        """Cut the cells that the ensemble is to look at."""
        cells, node = self.run_once('cut_clusters', cut_clusters, **self._sources())
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_CARVING_FAILED.format(message=node.exit_message)
        if cells:
            self.ctx.cells = cells['cells']
        return None

    def has_cells(self) -> bool:
        """Tell whether there is anything to look at."""
        return 'cells' in self.ctx

    def is_embed_due(self) -> bool:
        """Tell whether the cells have to be sent, or sent again, to the ensemble."""
        return self.is_due('embed')

    def run_embed(self) -> ToContext:
        """Submit the cells to the ensemble."""
        inputs = AttributeDict(self.exposed_inputs(LatentsCalculation, 'embed', agglomerate=False))
        inputs.models = self.inputs.ensemble['models']
        inputs.structures = self.ctx.cells
        return ToContext(embed=self.submit_once('embed', LatentsCalculation, inputs))

    def inspect_embed(self) -> ExitCode | None:
        """Do without a second opinion, but not without the only one."""
        embed = self.ctx.embed
        if embed.is_finished_ok and 'latents' in embed.outputs:
            self.ctx.latents = dict(embed.outputs.latents)
            return None
        message = embed.exit_message or 'not one could be evaluated, see `failures` in the results of the latents job.'
        if 'potential' in self.inputs:
            self.report(f'going on without a second opinion, LatentsCalculation<{embed.pk}> gave none: {message}')
            return None
        return self.exit_codes.ERROR_GRADING_FAILED.format(message=message)

    def extract(self) -> ExitCode | None:
        """Take the clusters that show their failure."""
        inputs, opinion = self._sources(), {}
        if 'gamma_break' in self.inputs:
            inputs['gamma_break'] = self.inputs.gamma_break
        if 'latents' in self.ctx:
            ensemble = self.inputs.ensemble
            opinion = {name: ensemble[name] for name in ('reference', 'level') if name in ensemble}
            opinion |= self.ctx.latents
        found, node = self.run_once('extract_clusters', extract_clusters, **inputs, **opinion)
        if not node.is_finished_ok and opinion and 'potential' in self.inputs:
            self.report(f'going on without a second opinion: {node.exit_message}')
            found, node = self.run_once('extract_clusters_alone', extract_clusters, **inputs)
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_CARVING_FAILED.format(message=node.exit_message)
        self.out_many(found)
        for sentence in describe_carving(found['carving'].get_dict()['centres']):
            self.report(sentence)
        return None

    def _sources(self) -> dict[str, Any]:
        """Return what both the cut and the extraction start from."""
        own = {'snapshots': self.inputs.snapshots, 'settings': self.inputs.carve}
        return own | ({'potential': self.inputs.potential} if 'potential' in self.inputs else {})


def describe_carving(centres: list[dict[str, Any]]) -> list[str]:
    """Return sentences for the process report: how many clusters, and every centre on which the two grades disagree."""
    taken = sum(centre['taken'] for centre in centres)
    if not centres:
        return ['no cluster: no frame has an atom over gamma_select and, at the same time, none over gamma_ceiling']
    sentences = [f'{taken} of {len(centres)} centres became clusters']
    opinions = Counter(centre['second_opinion'] for centre in centres if 'second_opinion' in centre)
    if opinions:
        counts = ', '.join(f'{number} {verdict}' for verdict, number in sorted(opinions.items()))
        sentences.append(f'second opinion of the ensemble, who finds the centre out of distribution: {counts}')
    sentences += [
        f'disagreement about atom {centre["centre"]} of step {centre["step"]} ({centre["second_opinion"]}): gamma '
        f'{centre["gamma_cluster"]:.4g}, score {centre["score"]:.4g} with threshold {centre["score_threshold"]:.4g}'
        for centre in centres
        if centre.get('second_opinion') in ('gamma only', 'score only')
    ]
    return sentences


def validate_carve(inputs: Any, _: Any) -> str | None:
    """Refuse what nobody could grade."""
    potential = inputs.get('potential')
    if not inputs.get('ensemble') and potential is None:
        return 'nothing grades the cells: give `potential`, `ensemble`, or both'
    if problem := check_ensemble(inputs):
        return problem
    snapshots = inputs.get('snapshots')
    present = {'gamma', 'step'} if snapshots is None else set(snapshots.base.attributes.get('properties'))
    if missing := {'gamma', 'step'} - present:
        return (
            f'snapshots have no {min(missing)!r}: frames of MD that was watched have `gamma` of every atom and `step`; '
            'of MD that was not, `oodal.md.segments` makes such frames'
        )
    try:
        cutoff = None if potential is None else potential.cutoff
        CarveSettings.load(inputs['carve'].get_dict() if 'carve' in inputs else {}).for_cutoff(cutoff)
    except OodalError as error:
        return f'carve: {error}'
    return None


def check_ensemble(inputs: Any) -> str | None:
    """Say what an ensemble lacks in order to look at cells, or return None."""
    ensemble = inputs.get('ensemble')
    if not ensemble:
        return None
    for name in ('models', 'reference'):
        if not ensemble.get(name):
            return f'ensemble.{name} is missing'
    if problem := ensemble['reference'].check_models(ensemble['models']):
        return str(problem)
    if 'code' not in (inputs.get('embed') or {}):
        return (
            'embed.code is missing: the ensemble computes latents in a job, for which the code of the engine is needed '
            '(aiida_oodal.calculations.engine_code.get_engine_code)'
        )
    return None
