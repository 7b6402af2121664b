"""The builder of a campaign, filled from a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder

from aiida_oodal.calculations.job.options import get_job_options
from aiida_oodal.data import PotentialData, StructureSetData
from aiida_oodal.engine.errors import OodalError, require_known

from .campaign_inputs import check_names
from .protocols import load_protocol, merge
from .stages import load_labeller, load_trainer, unpack
from .trust.schedule import WALKER, expand_replicas

#: Stages that run jobs; each may have a code, a computer and options of its own.
STAGES = ('md', 'carve', 'select', 'label', 'train', 'audit')


class BuildsFromProtocol:
    """Fill the inputs of a campaign: mixed into :class:`.CampaignWorkChain`."""

    @classmethod
    def get_builder_from_protocol(
        cls,
        *,
        code: orm.AbstractCode,
        computer: orm.Computer,
        walkers: Mapping[str, Mapping[str, Any]],
        initial_structures: StructureSetData | None = None,
        initial_labels: StructureSetData | Mapping[str, StructureSetData] | None = None,
        initial_potential: PotentialData | None = None,
        initial_ensemble: Mapping[str, Any] | None = None,
        validation: StructureSetData | None = None,
        anchors: Mapping[str, StructureSetData] | None = None,
        labeller: str = 'oodal.label.ase',
        trainer: str = 'oodal.train.ace',
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        stages: Mapping[str, Mapping[str, Any]] | None = None,
        second_opinion: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder filled from ``protocols/campaign.yaml`` and the protocols of labeller and trainer.

        :param code: the engine's code, see :func:`aiida_oodal.calculations.codes.get_engine_code`.
        :param computer: where jobs run.
        :param walkers: by name ``{'structure': node, 'settings': {...}}``; the settings win over those of the protocol.
            Optional are ``'replicas': n`` for ``NAME_1`` to ``NAME_n``, which differ in their velocities, and
            ``'schedule': [{...}, ...]``, settings that are merged over these, one after the other, whenever all walkers
            have run to their end.
        :param initial_labels: one labelled set, or several by any key, such as the output ``labels`` of a campaign.
        :param initial_ensemble: ``{'models': {'w1': node, ...}, 'reference': node}``.
        :param anchors: labelled sets by any key that are never trained on and must not be forgotten.
        :param labeller: entry point of the labeller.
        :param trainer: entry point of the trainer.
        :param protocol: ``quick``, ``balanced`` or ``careful``.
        :param overrides: nested values for ``thresholds``, ``md``, ``carve``, ``select``, ``label``, ``train``,
            ``guard``, ``audit``, ``calibration``, ``convergence``, ``budget``, ``max_rounds``, ``schedule`` (of all
            walkers that have none of their own), ``mix_levels`` (learn labels of several levels of theory together).
        :param options: options of every job: resources, queue_name, max_wallclock_seconds, ...; they win over those
            that the computer was set up with for each process.
        :param stages: by name (``md``, ``carve``, ``select``, ``label``, ``train``, ``audit``) ``code``, ``computer``
            and ``options`` where they differ from those above.
        :param second_opinion: an ensemble that looks at every cluster: ``{'models': {...}, 'reference': node}``.
        :raises OodalError: if a protocol, a stage or an override is not known.
        """
        values = load_protocol('campaign', protocol, overrides, closed=True)
        places = _place_stages(code, computer, options, stages or {})
        builder: ProcessBuilder = cls.get_builder()  # type: ignore[attr-defined]
        several = initial_labels if isinstance(initial_labels, Mapping) else {}
        for what, names in (('walkers', walkers), ('anchors', anchors or {}), ('initial_labels', several)):
            check_names(what, names)  # a builder leaves out names that begin with `_`
        for what, ensemble in (('initial_ensemble', initial_ensemble), ('second_opinion', second_opinion)):
            require_known(ensemble or {}, ('models', 'reference', 'settings'), what)
        for key, node in (
            ('structures', initial_structures),
            ('labels', {'labels': initial_labels} if isinstance(initial_labels, orm.Node) else initial_labels),
            ('potential', initial_potential),
            ('ensemble', initial_ensemble),
        ):
            if node is not None:
                setattr(builder.initial, key, dict(node) if isinstance(node, Mapping) else node)
        if validation is not None:
            builder.validation = validation
        if anchors:
            builder.anchors = dict(anchors)
        if second_opinion is not None:
            builder.second_opinion = dict(second_opinion)
        builder.walkers = _fill_walkers(walkers, values['md'], values['schedule'])
        for name, process, namespace in (
            ('md', 'md', builder.md),
            ('carve', 'carve_clusters', builder.carve),
            ('select', 'select_clusters', builder.select),
            ('audit', 'judge', builder.audit.judge),
        ):
            place = places[name]
            namespace.code = place['code']
            namespace.metadata.computer = place['computer']
            namespace.metadata.options.update(get_job_options(place['computer'], process, place['options']))
        for name, stage, entry_point in (
            ('label', load_labeller(labeller), labeller),
            ('train', load_trainer(trainer), trainer),
        ):
            filled = stage.get_builder_from_protocol(protocol=protocol, overrides=values[name], **places[name])
            builder[name]['workflow'] = orm.Str(entry_point)
            builder[name]['inputs'] = unpack(filled)
        if _flag('mix_levels', values['mix_levels']):
            builder.train['inputs']['mix_levels'] = orm.Bool(True)
        builder.thresholds = orm.Dict(values['thresholds'])
        builder.carve.settings = orm.Dict(values['carve'])
        builder.select.settings = orm.Dict(values['select'])
        builder.guard = orm.Dict(values['guard'])
        builder.audit.settings = orm.Dict(values['audit'])
        builder.calibration = orm.Dict(values['calibration'])
        builder.convergence = orm.Dict(values['convergence'])
        if values['budget']:
            builder.budget = orm.Dict(values['budget'])
        builder.max_rounds = orm.Int(_whole(values['max_rounds']))
        return builder


def _place_stages(
    code: orm.AbstractCode,
    computer: orm.Computer,
    options: Mapping[str, Any] | None,
    stages: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return code, computer and options of every stage."""
    require_known(stages, STAGES, 'stages')
    common = {'code': code, 'computer': computer, 'options': dict(options or {})}
    places = {}
    for name in STAGES:
        own = dict(stages.get(name, {}))
        require_known(own, common, f'stages: {name}')
        places[name] = {**common, **own, 'options': {**common['options'], **own.get('options', {})}}
    return places


def _fill_walkers(
    walkers: Mapping[str, Any], shared: Mapping[str, Any], schedule: Any
) -> dict[str, dict[str, orm.Data]]:
    """Return the inputs of all walkers and replicas.

    :param shared: settings of all walkers; their own win.
    :param schedule: of walkers that have none of their own.
    """
    plain = {name: _read_walker(name, walker, shared, schedule) for name, walker in walkers.items()}
    filled = {}
    for name, walker in expand_replicas(plain).items():
        filled[name] = {'structure': walker['structure'], 'settings': orm.Dict(walker['settings'])}
        if walker['schedule']:
            filled[name]['schedule'] = orm.List(walker['schedule'])
    return filled


def _read_walker(name: str, walker: Any, shared: Mapping[str, Any], schedule: Any) -> dict[str, Any]:
    """Return structure, and settings, schedule and replicas of a walker as plain values."""
    if not isinstance(walker, Mapping):
        raise OodalError(f"walker {name!r}: give {{'structure': node, 'settings': {{...}}}}, not {walker!r}")
    require_known(walker, WALKER, f'walker {name!r}')
    if 'structure' not in walker:
        raise OodalError(f'walker {name!r} lacks a structure to begin with')
    own, entries = (_unwrap(walker.get(key, default)) for key, default in (('settings', {}), ('schedule', schedule)))
    if not isinstance(entries, (list, tuple)):
        raise OodalError(f'walker {name!r}: schedule = {entries!r} must be a list of settings, one after the other')
    return {
        'structure': walker['structure'],
        'settings': merge(shared, own),
        'schedule': list(entries),
        'replicas': walker.get('replicas', 1),
    }


def _unwrap(value: Any) -> Any:
    return value.value if isinstance(value, (orm.Dict, orm.List)) else value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OodalError(f'{name} = {value!r} must be true or false')
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise OodalError(f'max_rounds = {value!r} must be a whole number')
    return value
