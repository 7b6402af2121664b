"""What a screening is given, looked at before anything is submitted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.data import OodReferenceData, StructureSetData

_ENSEMBLE_KEYS = {'models', 'reference', 'heldout', 'reference_latents', 'heldout_latents'}


def validate_screen(inputs: Any, _: Any) -> str | None:
    """Refuse a screening that cannot end, before anything is submitted."""
    ensembles, targets = inputs.get('ensembles', {}), inputs.get('targets', {})
    if not ensembles:
        return 'give at least one ensemble: ensembles={"A": {"models": {"w1": node, ...}, "reference": node}}'
    if not targets:
        return 'give at least one target: targets={"name": {"structures": node}}'
    if both := sorted({'reference', 'heldout'} & set(targets)):
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
    needs_models = [name for name, ensemble in ensembles.items() if 'models' in ensemble]
    if needs_models and 'code' not in inputs.get('embed', {}):
        return f'ensemble {needs_models[0]!r} has models to run: give `embed.code`, the engine (`get_engine_code()`)'
    return None


def _check_names(ensembles: Mapping[str, Any], targets: Mapping[str, Any]) -> str | None:
    """Refuse names that are the same when they are put together: calls are known by them."""
    pairs: dict[str, tuple[str, str]] = {}
    for pair in itertools.product(ensembles, (*targets, 'reference', 'heldout')):
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
    if 'models' in ensemble and len(ensemble['models']) < 2:
        return f'{len(ensemble["models"])} model: disagreement needs two or more'
    if reference is None and 'reference_latents' not in ensemble:
        return 'give `reference`: the structures that the models were trained on, or an OodReferenceData'
    if isinstance(reference, StructureSetData) and 'models' not in ensemble and 'reference_latents' not in ensemble:
        return 'its reference set has no latents yet: give `models` to make them, or `reference_latents`'
    if isinstance(reference, OodReferenceData) and 'models' in ensemble:
        return reference.check_models(ensemble['models'])
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
