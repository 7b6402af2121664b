"""The inputs of a campaign: its ports, and the checks before anything is submitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessSpec

from aiida_oodal.calculations.labels import unmerge, unpack
from aiida_oodal.calculations.learned import LEARNED, check_ensemble, define_learned, describe_learned
from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.calculations.select_clusters import SelectClustersCalculation
from aiida_oodal.calculations.thresholds import define_thresholds
from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.data.content import hash_content
from aiida_oodal.engine.carve.cluster import DEFAULT_EPSILON
from aiida_oodal.engine.carve.settings import CarveSettings, SelectSettings
from aiida_oodal.engine.errors import OodalError, require_known
from aiida_oodal.engine.labels import STRESS
from aiida_oodal.engine.mace.ensemble_settings import EnsembleSettings
from aiida_oodal.engine.md.settings import MdSettings, check_structure
from aiida_oodal.engine.thresholds import Thresholds

from .explore import ExploreWorkChain
from .label.ports import validate_enough
from .stages import LABEL_PORTS, TRAIN_PORTS, check_inputs, define_stage, load_labeller, load_trainer
from .train.base import Forecast, get_learned
from .train.levels import check_levels
from .trust.calibrated import check_calibration
from .trust.schedule import check_convergence, list_legs

#: How the names of the labels begin that a campaign begins with.
_INITIAL = 'initial_'
#: Ports of MD that the campaign fills in.
_MD_GIVEN = ('structure', 'settings', 'thresholds', 'parent_folder', 'restart_file', 'run_to', *LEARNED, 'pair')


def define_inputs(spec: ProcessSpec) -> None:
    """Define the ports of a campaign."""
    spec.input_namespace(
        'initial', help='What the campaign begins with: structures to label, labels, and a potential or an ensemble.'
    )
    spec.input(
        'initial.structures',
        valid_type=StructureSetData,
        required=False,
        help='Structures that are labelled before the first round.',
    )
    spec.input_namespace(
        'initial.labels',
        valid_type=StructureSetData,
        dynamic=True,
        required=False,
        help='Labelled sets, by any key.',
    )
    spec.input_namespace(
        'initial.clusters',
        valid_type=orm.StructureData,
        dynamic=True,
        required=False,
        help='Clusters and other structures by any key that are labelled before the first round, such as those that '
        'another campaign chose and had no label for when it ended.',
    )
    define_learned(
        spec,
        'initial.',
        text='What drives the walkers of the first round; without it, it is trained on the initial labels first.',
    )
    spec.input(
        'initial.train',
        valid_type=orm.Bool,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Bool(False),
        help='Whether a potential or an ensemble that is given is trained again before the first round, because there '
        'are labels that it has not learned.',
    )
    spec.input(
        'validation',
        valid_type=StructureSetData,
        required=False,
        help='Labelled set that is never trained on; the errors of every training on it are reported.',
    )
    spec.input_namespace(
        'walkers',
        dynamic=True,
        valid_type=(StructureSetData, orm.StructureData, orm.Dict, orm.List),
        help='By name: {"structure": node, "settings": Dict with the fields of MdSettings but for the thresholds}, and '
        'optionally "schedule": List of settings. When all walkers have run to their end, the next of them are merged '
        'over "settings", and the campaign goes on.',
    )
    define_thresholds(spec)
    spec.expose_inputs(MdCalculation, namespace='md', exclude=_MD_GIVEN)
    spec.expose_inputs(ExploreWorkChain, include=('carve', 'second_opinion'))
    spec.input(
        'ensemble.settings',
        valid_type=orm.Dict,
        required=False,
        serializer=orm.to_aiida_type,
        validator=lambda node, _: None if node is None else EnsembleSettings.check(node.get_dict()),
        help='Fields of `aiida_oodal.engine.mace.ensemble_settings.EnsembleSettings`, for campaigns that train an '
        'ensemble: which model gives forces, at which level gamma is 1, ...',
    )
    spec.expose_inputs(
        SelectClustersCalculation, namespace='select', exclude=('candidates', 'known', 'thresholds', *LEARNED)
    )
    define_stage(spec, 'label', 'oodal.label.ase', 'labels')
    spec.input(
        'label.enough',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        required=False,
        validator=validate_enough,
        help='When a round goes on without the labels that are still missing: {"share": 0.9} or {"hours": 12}; the '
        'late ones join the next round.',
    )
    define_stage(spec, 'train', 'oodal.train.ace', 'learns')


def validate_campaign(inputs: Any, _: Any) -> str | None:
    """Return why the inputs of a campaign cannot work, or None."""
    try:
        for what, names in (
            ('walkers', inputs.get('walkers', {})),
            ('anchors', inputs.get('anchors', {})),
            ('initial.labels', inputs.get('initial', {}).get('labels', {})),
            ('initial.clusters', inputs.get('initial', {}).get('clusters', {})),
        ):
            check_names(what, names)
        _check_start(inputs.get('initial', {}))
        forecast = _check_stages(inputs)
        _check_carving(inputs, forecast)
        _check_walkers(inputs, forecast)
        check_calibration(inputs)
        check_convergence(inputs)
    except OodalError as error:
        return str(error)
    return None


def find_labels(initial: Mapping[str, Any]) -> dict[str, StructureSetData]:
    """Return the labels that a campaign begins with: those given, and those that its potential was trained on.

    A potential that is refitted without its own training data forgets what it knew. Sets of the same content count
    once, also where they were merged with others.
    """
    labels = dict(initial.get('labels', {}))
    known = {hash_content(part) for node in labels.values() for part in unmerge(node)}
    training = _find_training(initial)
    for key, node in training.items():
        if hash_content(node) not in known:
            labels[key if key not in labels else f'{key}_{node.uuid[:8]}'] = node
    return labels


def name_parts(labels: Mapping[str, StructureSetData]) -> dict[str, StructureSetData]:
    """Return the labels that a campaign begins with by the names that they have in its trainings."""
    return {f'{_INITIAL}{key}': node for key, node in labels.items()}


def own_parts(parts: Mapping[str, StructureSetData]) -> dict[str, StructureSetData]:
    """Return of all labels of a campaign those that it did not begin with."""
    return {name: node for name, node in parts.items() if not name.startswith(_INITIAL)}


def _find_training(initial: Mapping[str, Any]) -> dict[str, StructureSetData]:
    """Return the training sets of the initial potential or ensemble, as far as they are in the provenance graph.

    Of an ensemble these are the sets that it was trained on and those that were held out.
    """
    potential, ensemble = initial.get('potential'), initial.get('ensemble') or {}
    learned = next(iter(ensemble.get('models', {}).values()), None) if potential is None else potential
    if learned is None or learned.creator is None:
        return {}
    training = learned.creator.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested().get('training', {})
    found: dict[str, StructureSetData] = {}
    for name, node in [pair for key, packed in training.items() for pair in unpack(key, packed).items()]:
        parts = unmerge(node)
        found |= {name: node} if parts == [node] else {f'{name}_{number}': part for number, part in enumerate(parts)}
    return found


def _check_start(initial: Mapping[str, Any]) -> None:
    if 'structures' in initial and initial.get('clusters'):
        raise OodalError('initial: give either `structures` or `clusters` to label, not both')
    learned = [name for name in LEARNED if initial.get(name)]
    if len(learned) > 1:
        raise OodalError('initial: give either `potential` or `ensemble`, not both')
    if not learned and not any(initial.get(name) for name in ('structures', 'clusters', 'labels')):
        raise OodalError(
            'give `initial.structures` or `initial.labels` that the first training can learn, or what was learned '
            'before: `initial.potential`, `initial.ensemble`'
        )
    if learned and 'structures' not in initial and not find_labels(initial):
        raise OodalError(
            f'initial.{learned[0]} was not trained here, so nobody knows on what: refitted to new labels alone it '
            'would forget what it knows. Give its training data as `initial.labels`'
        )
    if initial.get('ensemble') and (problem := check_ensemble(initial['ensemble'])):
        raise OodalError(f'initial: {problem}')


def _check_stages(inputs: Mapping[str, Any]) -> Forecast:
    """Check labeller, trainer and their inputs; return elements and cutoff of what will drive the walkers."""
    label, train, initial = inputs['label'], inputs['train'], inputs.get('initial', {})
    labeller, trainer = load_labeller(label['workflow'].value), load_trainer(train['workflow'].value)
    if problem := check_inputs(labeller, label.get('inputs', {}), LABEL_PORTS):
        raise OodalError(f'label.inputs of {label["workflow"].value}: {problem}')
    if problem := check_inputs(trainer, train.get('inputs', {}), TRAIN_PORTS):
        raise OodalError(f'train.inputs of {train["workflow"].value}: {problem}')
    labels = find_labels(initial)
    given = {**train.get('inputs', {}), 'learned': get_learned(initial)}
    parts = name_parts(labels)
    if problem := trainer.check_labels(given, parts, inputs.get('validation'), initial.get('structures')):
        raise OodalError(problem)
    for key, anchor in inputs.get('anchors', {}).items():
        if problem := trainer.check_labels(given, parts, anchor, initial.get('structures')):
            raise OodalError(f'anchors.{key}: {problem}')
    if problem := _judge_levels(inputs)[0]:
        raise OodalError(problem)
    sets = [*labels.values(), *([initial['structures']] if 'structures' in initial else [])]
    symbols = [symbol for node in sets for symbol in node.symbols]
    symbols += [symbol for node in initial.get('clusters', {}).values() for symbol in node.get_symbols_set()]
    if problem := labeller.check_symbols(label.get('inputs', {}), _list_asked(inputs)):
        raise OodalError(f'label.inputs of {label["workflow"].value}: {problem}')
    forecast = trainer.forecast(train.get('inputs', {}), symbols)
    if (settings := inputs.get('ensemble', {}).get('settings')) is not None:
        forces = EnsembleSettings.load(settings.get_dict()).forces
        if forecast.models and forces not in (None, 'mean', *forecast.models):
            raise OodalError(f'ensemble.settings: forces = {forces!r}: there are {", ".join(forecast.models)}, mean')
    if not any(initial.get(name) for name in LEARNED):
        return forecast
    # the walkers are driven by what is given first, and later by what is trained
    learned = describe_learned(initial)
    _check_elements_stay(inputs, learned.elements, forecast.elements)
    cutoffs = [cutoff for cutoff in (learned.cutoff, forecast.cutoff) if cutoff is not None]
    return Forecast(learned.elements, max(cutoffs, default=None))


def _list_asked(inputs: Mapping[str, Any]) -> set[str]:
    """Return the elements that the labeller will meet; what is labelled already may have others."""
    initial = inputs.get('initial', {})
    nodes = [walker['structure'] for walker in inputs.get('walkers', {}).values() if 'structure' in walker]
    nodes += [*initial.get('clusters', {}).values(), *([initial['structures']] if 'structures' in initial else [])]
    sets = (node.symbols if isinstance(node, StructureSetData) else node.get_symbols_set() for node in nodes)
    return {symbol for symbols in sets for symbol in symbols}


def _check_elements_stay(inputs: Mapping[str, Any], learned: Sequence[str], trained: Sequence[str]) -> None:
    """Refuse training data that lack an element of a walker which the initial potential knows."""
    for name, walker in inputs.get('walkers', {}).items():
        symbols = set(get_structures(walker['structure']).symbols) if 'structure' in walker else set()
        if lost := sorted((symbols & set(learned)) - set(trained)):
            raise OodalError(
                f'walker {name!r} has {" ".join(lost)}, which the training data ({" ".join(sorted(trained))}) lack: '
                'what is learned of them would not know it any more. Give data with this element, too, as '
                '`initial.labels` or `initial.structures`'
            )


def _judge_levels(inputs: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """Return why the given labels and those of the labeller may not be trained on together, or None; and doubts."""
    label, train = inputs['label'], inputs['train'].get('inputs', {})
    mix = 'mix_levels' in train and bool(train['mix_levels'].value)
    level = load_labeller(label['workflow'].value).get_level(label.get('inputs', {}))
    return check_levels(find_labels(inputs.get('initial', {})).values(), mix=mix, new=level)


def _check_carving(inputs: Mapping[str, Any], forecast: Forecast) -> None:
    settings = inputs['carve'].get('settings')
    CarveSettings.load({} if settings is None else settings.get_dict()).for_cutoff(forecast.cutoff)
    if inputs.get('second_opinion') and (problem := check_ensemble(inputs['second_opinion'])):
        raise OodalError(f'second_opinion: {problem}')
    settings = inputs['select'].get('settings')
    SelectSettings.load({} if settings is None else settings.get_dict())


def _check_walkers(inputs: Mapping[str, Any], forecast: Forecast) -> None:
    walkers = inputs.get('walkers', {})
    if not walkers:
        raise OodalError('give at least one walker: walkers={"name": {"structure": node, "settings": Dict}}')
    thresholds = inputs['thresholds'].get_dict() if 'thresholds' in inputs else {}
    for name, walker in walkers.items():
        try:
            _check_walker(walker, thresholds, forecast)
        except OodalError as error:
            raise OodalError(f'walker {name!r}: {error}') from error


def check_names(what: str, names: Iterable[str]) -> None:
    """Refuse names that cannot be part of the label of a link.

    :param what: of which they are the names.
    """
    for name in names:
        if not str(name).isidentifier() or '__' in name or name.startswith('_') or name.endswith('_'):
            raise OodalError(
                f'{what}: the name {name!r} may have letters, digits and single underscores, and begins with a letter'
            )


def _check_walker(walker: Mapping[str, Any], thresholds: Mapping[str, float], forecast: Forecast) -> None:
    """Check a walker's structure and settings against elements and cutoff of what drives it."""
    if missing := {'structure', 'settings'} - set(walker):
        raise OodalError(f'lacks {", ".join(sorted(missing))}')
    require_known(walker, ('structure', 'settings', 'schedule'), 'inputs')
    structures = get_structures(walker['structure'])
    if len(structures) != 1:
        raise OodalError(f'structure is a set of {len(structures)}: give one structure, or a walker for each of them')
    for entry, values in enumerate(list_legs(walker)):
        try:
            if own := sorted(set(values) & set(Thresholds().plain())):
                raise OodalError(
                    f'{own[0]} = {values[own[0]]}: thresholds are given once, as `thresholds` of the campaign'
                )
            settings = MdSettings.load({**values, **thresholds})
            check_structure(settings, structures[0], forecast.elements, forecast.cutoff, forces='embedded')
        except OodalError as error:
            if not entry:
                raise
            raise OodalError(f'entry {entry} of its schedule: {error}') from error


def find_doubts(inputs: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each input that is allowed but not advised."""
    doubts = _judge_levels(inputs)[1]
    settings = inputs['carve'].get('settings')
    carve = CarveSettings.load({} if settings is None else settings.get_dict())
    train = inputs['train'].get('inputs', {}).get('settings')
    if carve.shape == 'sphere' and train is not None and train.get_dict().get('weights', 'full') == 'full':
        doubts.append(
            "carve shape 'sphere' with train weights 'full': the fit will learn the surfaces in the corners of the "
            "cells; use shape 'cube', or weights 'mask'"
        )
    return [*doubts, *_doubt_size(inputs, carve), *_doubt_pressure(inputs)]


def _doubt_size(inputs: Mapping[str, Any], carve: CarveSettings) -> list[str]:
    """Warn of walkers whose cells are smaller than the cubes that will be cut out of them."""
    edge = 2.0 * (carve.radius + carve.buffer) + DEFAULT_EPSILON
    small, largest = [], 0
    for name, walker in sorted(inputs['walkers'].items()):
        atoms = get_structures(walker['structure'])[0]
        is_cut = carve.shape == 'cube' and len(atoms) > carve.whole_atoms
        if is_cut and atoms.pbc.all() and atoms.cell.volume < edge**3:
            small.append(f'{name} ({len(atoms)} atoms, a cube about {len(atoms) * edge**3 / atoms.cell.volume:.0f})')
            largest = max(largest, len(atoms))
    if not small:
        return []
    return [
        f'a cluster, a cube with an edge of {edge:g} angstrom, is larger than the cell of its walker, and its label '
        f'dearer than that of the whole frame: {", ".join(small)}. Have frames labelled whole, by the carve setting '
        f'whole_atoms = {largest}, or give larger cells, or a smaller radius (now {carve.radius:g}) and buffer (now '
        f'{carve.buffer:g}); the edge must exceed twice the cutoff'
    ]


def _doubt_pressure(inputs: Mapping[str, Any]) -> list[str]:
    """Warn of walkers at constant pressure if no label has a stress; labels that are still to come may have one."""
    initial = inputs.get('initial', {})
    labels = find_labels(initial)
    awaits = 'structures' in initial or initial.get('clusters')
    if awaits or any(STRESS in node.base.attributes.get('properties') for node in labels.values()):
        return []
    under_pressure = [
        name
        for name, walker in inputs['walkers'].items()
        if MdSettings.load(walker['settings'].get_dict()).ensemble == 'npt'
    ]
    if not under_pressure:
        return []
    return [
        f'walkers at constant pressure ({", ".join(sorted(under_pressure))}), but no label has a stress ({STRESS}): '
        'what density they take is trained by energies and forces alone. Let the labels have several densities, or '
        "stresses (ACE learns them if train.stress_weight is above 0), or let walkers run with ensemble = 'nvt'"
    ]
