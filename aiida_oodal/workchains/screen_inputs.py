"""The checks of the inputs of a screening, before anything is submitted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from aiida import orm
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from aiida_oodal.data import LatentsData, OodReferenceData, StructureSetData
from aiida_oodal.data.identity import check_members, compare_models, compare_structures, count_shared, identify
from aiida_oodal.data.latents import group_shards
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.candidates import CandidateOptions
from aiida_oodal.engine.ood.fitting import FitOptions
from aiida_oodal.engine.ood.identity import ModelIdentity
from aiida_oodal.engine.ood.looks import OVERALL
from aiida_oodal.engine.ood.metrics import SCORES

#: What the held-out structures of an ensemble are called among its sets and among the scores.
HELDOUT = 'heldout'
_ENSEMBLE_KEYS = {'models', 'reference', 'heldout', 'reference_latents', 'heldout_latents'}


def validate_screen(inputs: Any, _: Any) -> str | None:
    """Refuse a screening that cannot end, or whose parts do not belong together, before anything is submitted."""
    ensembles, targets = inputs.get('ensembles', {}), inputs.get('targets', {})
    if not ensembles:
        return 'give at least one ensemble: ensembles={"A": {"models": {"w1": node, ...}, "reference": node}}'
    if not targets:
        return 'give at least one target: targets={"name": {"structures": node}}'
    if both := sorted({'reference', HELDOUT} & set(targets)):
        return f'target {both[0]!r}: that is what a set of an ensemble is called, choose another name'
    if problem := _check_names(ensembles, targets):
        return problem
    for name, ensemble in ensembles.items():
        if problem := _check_ensemble(ensemble):
            return f'ensemble {name!r}: {problem}'
    for name, target in targets.items():
        if problem := _check_target(target, ensembles):
            return f'target {name!r}: {problem}'
    if 'against' in inputs and inputs['against'].value not in ensembles:
        return f'against = {inputs["against"].value!r} is no ensemble; there is {", ".join(sorted(ensembles))}'
    if problem := _check_codes(inputs):
        return problem
    for name in ensembles:
        try:
            problem = _check_identity(inputs, name) or _check_sets(inputs, name) or _check_scores(inputs, name)
        except OodalError as error:
            problem = str(error)
        if problem:
            return f'ensemble {name!r}: {problem}'
    return None


def given_latents(inputs: Any, ensemble: str, name: str) -> Mapping[str, LatentsData] | None:
    """Return the latents of a set that are there already; None if a job has to make them.

    :param name: ``reference``, ``heldout``, or a target.
    """
    latents: Mapping[str, LatentsData] | None
    if name in ('reference', HELDOUT):
        latents = inputs['ensembles'][ensemble].get(f'{name}_latents')
    else:
        latents = inputs['targets'][name].get('latents', {}).get(ensemble)
    return latents


def split_into_shards(offsets: NDArray[np.int64], atoms_per_job: int) -> list[tuple[int, int]]:
    """Cut a set into runs of structures with at most so many atoms each, but at least one structure.

    :param offsets: structure ``i`` owns atoms ``offsets[i]:offsets[i + 1]``, shape ``(n_structures + 1,)``.
    :return: first and last (exclusive) structure of each run, as even as they can be.
    """
    n_structures = len(offsets) - 1
    n_shards = max(1, -(-int(offsets[-1]) // atoms_per_job))
    # Cuts where the atoms are split evenly; structures are not.
    cuts = np.searchsorted(offsets, np.linspace(0, offsets[-1], n_shards + 1)[1:-1])
    bounds = np.unique(np.concatenate([[0], cuts, [n_structures]]))
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(bounds)]


def _check_names(ensembles: Mapping[str, Any], targets: Mapping[str, Any]) -> str | None:
    """Refuse names that are the same when they are put together: calls are known by them."""
    pairs: dict[str, tuple[str, str]] = {}
    for pair in itertools.product(ensembles, (*targets, 'reference', HELDOUT)):
        if other := pairs.get('_'.join(pair)):
            return (
                f'ensemble {other[0]!r} with {other[1]!r} and ensemble {pair[0]!r} with {pair[1]!r} are both called '
                f'{"_".join(pair)!r}: rename one'
            )
        pairs['_'.join(pair)] = pair
    return None


def _check_ensemble(ensemble: Mapping[str, Any]) -> str | None:
    if unknown := sorted(set(ensemble) - _ENSEMBLE_KEYS):
        return f'{unknown[0]!r} is none of {", ".join(sorted(_ENSEMBLE_KEYS))}'
    reference = ensemble.get('reference')
    if 'models' in ensemble and not ensemble['models']:
        return 'models is empty: give at least one model'
    if reference is None and 'reference_latents' not in ensemble:
        return 'give `reference`: the structures that the models were trained on, or an OodReferenceData'
    for name in ('reference', HELDOUT):
        given = isinstance(ensemble.get(name), StructureSetData)
        if given and 'models' not in ensemble and f'{name}_latents' not in ensemble:
            return f'its {name} set has no latents yet: give `models` to make them, or `{name}_latents`'
    return None


def _check_target(target: Mapping[str, Any], ensembles: Mapping[str, Any]) -> str | None:
    structures = target.get('structures')
    if not isinstance(structures, StructureSetData):
        return 'give `structures`, a StructureSetData'
    latents = target.get('latents', {})
    if unknown := sorted(set(latents) - set(ensembles)):
        return f'latents of {unknown[0]!r}, which is no ensemble; there is {", ".join(sorted(ensembles))}'
    for name, ensemble in ensembles.items():
        if 'models' not in ensemble and name not in latents:
            return f'ensemble {name!r} has no models: give the latents of this target under it'
    return None


def _check_codes(inputs: Any) -> str | None:
    """Refuse a screening without a code for its jobs."""
    codes = {name: 'code' in (inputs.get(name) or {}) for name in ('embed', 'judge')}
    needs_models = [name for name, ensemble in inputs['ensembles'].items() if 'models' in ensemble]
    if needs_models and not codes['embed']:
        return f'ensemble {needs_models[0]!r} has models to run: give `embed.code`, the engine (`get_engine_code()`)'
    if not any(codes.values()):
        return (
            'references are fitted and sets are scored in jobs: give `judge.code`, the engine (`get_engine_code()`), '
            'and `judge.metadata.computer`'
        )
    return None


def _check_identity(inputs: Any, name: str) -> str | None:
    """Refuse models, latents, references and structures that do not belong together."""
    ensemble, insist = inputs['ensembles'][name], _insists(inputs)
    head = _settings_of(inputs, 'embed').get('head')
    if 'models' in ensemble and (problem := check_members(ensemble['models'], head)):
        return problem
    sources: list[tuple[str, Mapping[str, ModelIdentity]]] = []
    if isinstance(ensemble.get('reference'), OodReferenceData):
        sources.append(('the reference', ensemble['reference'].model_identities))
    if 'models' in ensemble:
        layers = _settings_of(inputs, 'embed').get('layers', 'all')
        models = {label: identify(node) for label, node in ensemble['models'].items()}
        sources.append(('models', {k: ModelIdentity(sha256=one.sha256, layers=layers) for k, one in models.items()}))
    for set_name, structures in _sets_of(inputs, name):
        latents = given_latents(inputs, name, set_name)
        if latents is None:
            continue
        called = f'the latents of {set_name}'
        shards = group_shards(latents.values())
        sources += [(called, {label: node.identity for label, node in shard.items()}) for shard in shards]
        if structures is not None:
            exact = not insist
            if problem := compare_structures(structures, latents.values(), called, positions=exact):
                return problem
    for (known_as, known), (given_as, given) in itertools.combinations(sources, 2):
        if insist:
            known = dict.fromkeys(known, ModelIdentity())
        if problem := compare_models(known, given, known_as, given_as):
            return problem
    return None


def _check_sets(inputs: Any, name: str) -> str | None:
    """Refuse reference and held-out sets from which nothing can be fitted."""
    ensemble = inputs['ensembles'][name]
    reference, heldout = ensemble.get('reference'), ensemble.get(HELDOUT)
    if not isinstance(reference, StructureSetData):
        return None
    options = FitOptions.load(inputs['reference'].get_dict() if 'reference' in inputs else {})
    elements, counts = np.unique(reference.get_array('numbers'), return_counts=True)
    rare = {chemical_symbols[z]: n for z, n in zip(elements, counts, strict=True) if n < options.min_atoms}
    if rare:
        text = ', '.join(f'{symbol} ({n})' for symbol, n in rare.items())
        return (
            f'its reference set has too few atoms of {text}: {options.min_atoms} of each element are needed; add '
            'structures, leave these out, or lower min_atoms'
        )
    if not isinstance(heldout, StructureSetData):
        return None if len(reference) > 1 else 'its reference set is one structure: two or more are needed'
    if unknown := sorted(set(heldout.symbols) - set(reference.symbols), key=lambda symbol: atomic_numbers[symbol]):
        return (
            f'its held-out set contains {", ".join(unknown)}, which the reference set lacks '
            f'({", ".join(reference.symbols)}): hold out structures like those of the reference set'
        )
    if not _insists(inputs) and count_shared(heldout, reference) == len(heldout):
        return (
            'every held-out structure is in the reference set too: thresholds would be tighter than they should be. '
            'Give structures that the models were not trained on, or leave `heldout` out, or set `insist` to true'
        )
    return None


def _check_scores(inputs: Any, name: str) -> str | None:
    """Refuse scores that this ensemble cannot have."""
    ensemble = inputs['ensembles'][name]
    labels = _labels_of(inputs, name)
    wanted = FitOptions.load(inputs['reference'].get_dict() if 'reference' in inputs else {})
    fitted = isinstance(ensemble.get('reference'), OodReferenceData)
    metrics = set(SCORES) if fitted else set(wanted.for_models(len(labels)).metrics or ())
    against = inputs['against'].value if 'against' in inputs else min(inputs['ensembles'])
    if 'candidates' not in inputs or name != against:
        return None
    metric = CandidateOptions.load(inputs['candidates'].get_dict()).metric
    if metric == OVERALL:
        return None
    if metric not in metrics:
        how = 'for one model there is ' if len(labels) == 1 else 'the reference is fitted for '
        return f'candidates are to be chosen by {metric}, but {how}{", ".join(sorted(metrics))}'
    forces = _settings_of(inputs, 'embed').get('forces', False)
    if 'models' in ensemble and not forces and metric in ('force_std', 'predicted_error'):
        return (
            f'candidates are to be chosen by {metric}, which needs forces: set `forces` in the latents settings to true'
        )
    return None


def _sets_of(inputs: Any, name: str) -> Iterable[tuple[str, StructureSetData | None]]:
    """Go through the sets of an ensemble and the targets, with their structures as far as they are given."""
    for set_name in ('reference', HELDOUT):
        structures = inputs['ensembles'][name].get(set_name)
        yield set_name, structures if isinstance(structures, StructureSetData) else None
    for target, own in inputs['targets'].items():
        yield target, own.get('structures')


def _labels_of(inputs: Any, name: str) -> list[str]:
    """Return the labels of the models of an ensemble."""
    ensemble = inputs['ensembles'][name]
    if 'models' in ensemble:
        return sorted(ensemble['models'])
    if isinstance(ensemble.get('reference'), OodReferenceData):
        return list(ensemble['reference'].base.attributes.get('model_labels'))
    return list(group_shards(ensemble['reference_latents'].values())[0])


def _settings_of(inputs: Any, namespace: str) -> dict[str, Any]:
    settings: orm.Dict | None = (inputs.get(namespace) or {}).get('settings')
    return {} if settings is None else dict(settings.get_dict())


def _insists(inputs: Any) -> bool:
    return bool('insist' in inputs and inputs['insist'].value)
