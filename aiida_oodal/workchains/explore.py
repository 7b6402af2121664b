"""One walker: run MD, and if it halts cut clusters around the atoms with the largest gamma."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, WorkChain, if_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.carve_clusters import validate_carve
from aiida_oodal.calculations.grade_snapshots import GradeSnapshotsCalculation
from aiida_oodal.calculations.learned import LEARNED
from aiida_oodal.data import ClusterData
from aiida_oodal.engine.trust.convergence import ConvergenceSettings

from .carve import CarveWorkChain
from .md_base import MdBaseWorkChain
from .md_segments import SUBJECT, MdSegmentsWorkChain
from .resuming import ResumingWorkChain


class ExploreWorkChain(ResumingWorkChain):
    """Run MD of one walker, and cut clusters out of its snapshots above gamma_select.

    MD that is driven by a potential or an ensemble (given in ``md``) is graded by it. MD with pair lines runs in
    segments, each graded by ``potential`` or ``ensemble``. The same potential or ensemble grades the clusters; with a
    potential, ``second_opinion`` can grade them, too.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs, outline, outputs, exit codes."""
        super().define(spec)
        spec.expose_inputs(MdBaseWorkChain)
        spec.expose_inputs(CarveWorkChain, include=('carve', 'thresholds', 'second_opinion', *LEARNED))
        spec.expose_inputs(
            GradeSnapshotsCalculation,
            namespace='grade',
            exclude=SUBJECT,
            namespace_options={'required': False, 'populate_defaults': False},
        )
        spec.input(
            'segment_steps',
            valid_type=orm.Int,
            serializer=orm.to_aiida_type,
            required=False,
            help='With `md.pair`: steps of a segment, after which the snapshots are graded.',
        )
        spec.input(
            'convergence',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            required=False,
            validator=lambda node, _: None if node is None else ConvergenceSettings.check(node.get_dict()),
            help='Fields of `aiida_oodal.engine.trust.convergence.ConvergenceSettings`: of MD that ran to its end '
            'clusters are cut, too, if `gamma_quantile` of its gamma is above `gamma`.',
        )
        spec.inputs.validator = validate_explore
        spec.outline(
            cls.run_md,
            cls.inspect_md,
            if_(cls.has_snapshots)(cls.run_carve, cls.inspect_carve),
        )
        spec.expose_outputs(MdBaseWorkChain)
        for name in ('remote_folder', 'retrieved'):  # segments have one each
            spec.outputs[name].required = False
        spec.expose_outputs(CarveWorkChain)
        spec.outputs['carving'].required = False
        spec.exit_code(
            400,
            'ERROR_MD_FAILED',
            message='the MD run of this walker failed: {message} See `verdi process report {pk}`.',
        )
        spec.exit_code(
            401,
            'ERROR_CARVING_FAILED',
            message='MD left frames to learn from, but no cluster could be cut: {message} Mend the cause, then carve '
            'with `oodal.carve`: it takes the output `snapshots` or, where there is none, the output `remote_folder` '
            'as `parent_folder`.',
        )

    def run_md(self) -> ToContext:
        """Submit MD, in segments if pair lines drive it."""
        process: type[WorkChain] = MdBaseWorkChain
        inputs: dict[str, Any] = self.exposed_inputs(MdBaseWorkChain)
        if self.inputs.md.get('pair'):
            process, ports = MdSegmentsWorkChain, MdSegmentsWorkChain.spec().inputs['md']
            inputs = {
                'md': {name: value for name, value in self.inputs.md.items() if name in ports},
                'grade': self.inputs.grade,
                'segment_steps': self.inputs.segment_steps,
                **{name: self.inputs[name] for name in ('thresholds', *LEARNED) if self.inputs.get(name)},
            }
        else:
            inputs['md'] = {**inputs['md'], 'thresholds': self.inputs.thresholds}
            if not self._carves_where_md_runs():
                inputs['md'].setdefault('retrieve_snapshots', orm.Bool(True))
        return ToContext(md=self.submit_once('md', process, AttributeDict(inputs)))

    def _carves_where_md_runs(self) -> bool:
        """Return whether the carving job runs on the computer of MD, so that it can read the folder of MD."""
        return _computer_of(self.inputs.md) == _computer_of(self.inputs.carve)

    def inspect_md(self) -> ExitCode | None:
        """Attach the outputs of MD; fail if it left no usable trajectory."""
        md = self.ctx.md
        self.out_many(self.exposed_outputs(md, MdBaseWorkChain))
        if md.is_finished_ok or md.exit_status == MdBaseWorkChain.exit_codes.ERROR_TRAJECTORY_LOST.status:
            return None
        return self.exit_codes.ERROR_MD_FAILED.format(message=md.exit_message or md.process_state.value, pk=md.pk)

    def has_snapshots(self) -> bool:
        """Return whether MD left frames to learn from, as an output or in its remote folder.

        If it ran to its end, its frames are only looked at where the campaign asks for a small gamma that it exceeded.
        """
        outputs = self.ctx.md.outputs
        stayed = not outputs.results.get_dict().get('has_frames', True) if 'results' in outputs else False
        if not ('snapshots' in outputs or stayed):
            return False
        return outputs.results['outcome'] != 'COMPLETED' or self._is_doubtful(outputs.series)

    def _is_doubtful(self, series: orm.ArrayData) -> bool:
        """Return whether gamma of MD that ran to its end was larger than the campaign wants it."""
        if 'convergence' not in self.inputs:
            return False
        settings = ConvergenceSettings.load(self.inputs.convergence.get_dict())
        return settings.find_doubtful(series.get_array('max_gamma')) is not None

    def run_carve(self) -> ToContext:
        """Submit the carving of the snapshots, with the potential or ensemble that graded them."""
        inputs = AttributeDict(self.exposed_inputs(CarveWorkChain))
        outputs = self.ctx.md.outputs
        if 'snapshots' in outputs:
            inputs.snapshots = outputs.snapshots
        else:
            inputs.parent_folder = outputs.remote_folder
        inputs |= _find_grader(self.inputs)
        return ToContext(carve=self.submit_once('carve', CarveWorkChain, inputs))

    def inspect_carve(self) -> ExitCode | None:
        """Attach the clusters."""
        carve = self.ctx.carve
        self.out_many(self.exposed_outputs(carve, CarveWorkChain))
        if carve.is_finished_ok:
            return None
        return self.exit_codes.ERROR_CARVING_FAILED.format(message=carve.exit_message or carve.process_state.value)


def _computer_of(job: Any) -> int:
    """Return the PK of the computer on which a job will run, from its inputs."""
    return int((job.get('metadata', {}).get('computer') or job['code'].computer).pk)


def _find_grader(inputs: Any) -> dict[str, Any]:
    """Return the potential or ensemble that grades MD: the one that drives it, or the one given with pair lines."""
    source = inputs if inputs['md'].get('pair') else inputs['md']
    return {name: source[name] for name in LEARNED if source.get(name)}


def has_completed(explorer: orm.WorkChainNode) -> bool:
    """Return whether a walker ran to its last step, and nothing after MD failed."""
    return bool(explorer.is_finished_ok) and explorer.outputs.results['outcome'] == 'COMPLETED'


def collect_clusters(explorers: Mapping[str, orm.WorkChainNode]) -> dict[str, ClusterData]:
    """Return the clusters of all walkers, by `<walker>_<number>`."""
    return {
        f'{name}_{key}': cluster
        for name, node in explorers.items()
        if 'clusters' in node.outputs
        for key, cluster in node.outputs.clusters.items()
    }


def describe_walker(explorer: orm.WorkChainNode) -> str:
    """Say in one line how a walker ended."""
    if 'results' not in explorer.outputs:
        return str(explorer.exit_message or explorer.process_state.value)
    results = explorer.outputs.results.get_dict()
    gamma = 'unknown' if results['max_gamma'] is None else f'{results["max_gamma"]:.2f}'
    return f'{results["outcome"]} at step {results["last_step"]}, largest gamma {gamma}'


def explain_failed(explorers: Mapping[str, orm.WorkChainNode]) -> str:
    """Say how many walkers failed, and why the first did; empty if none did."""
    failed = {name: node for name, node in explorers.items() if not node.is_finished_ok}
    if not failed:
        return ''
    name, node = next(iter(failed.items()))
    others = f' ({len(failed)} of {len(explorers)} walkers failed)' if len(failed) > 1 else ''
    return f'walker {name!r} failed{others}: {node.exit_message or node.process_state.value}'


def explain_no_candidates(explorers: Mapping[str, orm.WorkChainNode]) -> str:
    """Say why the walkers left no cluster; if some failed, say why the first of these did."""
    if failed := explain_failed(explorers):
        return failed
    at_once = [name for name, node in explorers.items() if _ended_at_once(node)]
    if at_once:
        return (
            f'walker {at_once[0]!r} ended at the structure that it began with, above gamma_ceiling: the potential does '
            'not know what that structure is. Label it as one of the initial structures (`initial_structures`), or '
            'begin with a structure that the potential knows.'
        )
    return (
        'no frame on disk has its largest gamma between gamma_select and gamma_ceiling, or no cluster of such a frame '
        'was accepted (see the `carving` outputs of the walkers). Evaluate gamma more often (gamma_every), heat from a '
        'lower temperature, begin with more varied structures, or raise gamma_ceiling.'
    )


def _ended_at_once(explorer: orm.WorkChainNode) -> bool:
    """Return whether gamma was above gamma_ceiling already in the structure that a walker began with."""
    results = explorer.outputs.results.get_dict() if 'results' in explorer.outputs else {}
    return results.get('outcome') == 'EXPLODED' and results['trigger_step'] == 0 and results['last_valid_step'] is None


def validate_explore(inputs: Any, ports: Any) -> str | None:
    """Refuse a walker whose frames or clusters could not be graded, before MD runs."""
    md = inputs.get('md', {})
    given = [name for name in LEARNED if inputs.get(name)]
    if md.get('pair'):
        if not given:
            return 'give `potential` or `ensemble`, which grades MD with pair lines'
        missing = [name for name in ('segment_steps', 'grade') if not inputs.get(name)]
        if missing:
            return f'{missing[0]} is missing: MD with pair lines runs in segments, which a job grades'
    elif given:
        return f'`{given[0]}` can only be given with pair lines; what drives MD is given in `md` and grades MD itself'
    carve = {'settings': inputs['carve']['settings'], 'second_opinion': inputs.get('second_opinion')}
    return validate_carve({**carve, **_find_grader({**inputs, 'md': md})}, {'snapshots', *LEARNED})
