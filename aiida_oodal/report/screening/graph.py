"""Read a screening from the graph, for its page and its figures."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiida import orm
from numpy.typing import NDArray

from aiida_oodal.data import LatentsData, OodReferenceData, StructureSetData, open_ensemble
from aiida_oodal.data.latents import group_shards
from aiida_oodal.engine.analysis.maps import sample_sets
from aiida_oodal.engine.analysis.truth import EnergyZeros, energy_errors, force_errors
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.scores import OodScores
from aiida_oodal.engine.ood.splitting import find_isolated
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.workchains.screen_inputs import HELDOUT

from .content import NodeId, Role, ScreenView, ViewedSet
from .links import FITTED_TO, SCORED, latents_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Sets whose labels say from which zeros energies count, in order of preference.
_KNOWN_SETS = ('reference', HELDOUT)


@dataclass(frozen=True)
class _Ensemble:
    """One ensemble of a screening.

    :param name: in the inputs.
    :param reference: what was fitted.
    :param zeros: how far labels count energies from other zeros than the models; None without labels.
    :param notes: what a reader should know of the reference and of the errors.
    """

    name: str
    reference: OodReference
    node: OodReferenceData
    zeros: EnergyZeros | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, node: orm.WorkChainNode, name: str) -> _Ensemble:
        """Read an ensemble of a screening."""
        data = node.outputs.references[name]
        reference = data.get_reference()
        zeros, fitted_on = fit_zeros_of(node, name)
        sentence = None if zeros is None else zeros.describe(fitted_on)
        return cls(name, reference, data, zeros, (*reference.notes, *([sentence] if sentence else [])))


def view_from_screen(node: orm.WorkChainNode, *, max_points: int = 2000, seed: int = 0) -> ScreenView:
    """Read what a finished screening found.

    Scores are those of the graph. What the reference was fitted to is scored here, ``max_points`` structures of it at
    most, because a process has no use for it; so is the place of the shown structures in latent space.

    :param node: of a ``ScreenWorkChain``.
    :param max_points: structures of all sets together that can be shown one by one, as for ``write_screen_page``.
    :param seed: of the choice.
    :raises OodalError: if it has no scores.
    """
    if 'scores' not in node.outputs:
        raise OodalError(
            f'{node.process_label}<{node.pk}> has no scores ({node.exit_message or node.process_state.value}): '
            f'`verdi process report {node.pk}` says how far it came'
        )
    ensembles = [_Ensemble.of(node, name) for name in sorted(node.outputs.references)]
    scores = dict(node.outputs.scores)
    many = len(ensembles) > 1
    sets = []
    for ensemble in ensembles:
        suffix = f' of {ensemble.name}' if many else ''
        if trained := latents_of(ensemble.node, FITTED_TO):
            sets.append(_view_reference(ensemble, trained, f'reference{suffix}', max_points, seed))
        if ensemble.name in scores.get(HELDOUT, {}):
            sets.append(_view_scored(node, HELDOUT, [ensemble], f'held out{suffix}', max_points, seed))
    sets += [_view_scored(node, name, ensembles, name, max_points, seed) for name in sorted(node.inputs.targets)]
    return ScreenView(
        sets,
        title=f'Screening {node.pk}: what the models do not know',
        nodes={'screening': _identify(node)} | {f'reference {each.name}': _identify(each.node) for each in ensembles},
        notes={each.name: each.notes for each in ensembles},
    ).sampled(max_points, seed)


def _view_scored(
    node: orm.WorkChainNode, name: str, ensembles: list[_Ensemble], title: str, max_points: int, seed: int
) -> ViewedSet:
    """Read a target, or held-out structures."""
    data = {
        each.name: node.outputs.scores[name][each.name] for each in ensembles if each.name in node.outputs.scores[name]
    }
    scores = _in_common({ensemble: one.get_scores() for ensemble, one in data.items()})
    first = next(iter(scores.values()))
    latents = {ensemble: latents_of(one, SCORED.format(name)) for ensemble, one in data.items()}
    structures = _structures_of(node, name, ensembles[0].name, latents[next(iter(data))])
    decisions = [] if name == HELDOUT else node.outputs.decisions[name].get_dict()['taken']
    position = {int(index): place for place, index in enumerate(first.structure_index)}
    candidates = {
        position[entry['structure']]: entry['reason'] for entry in decisions if entry['structure'] in position
    }
    shown = sample_sets([len(first)], max_points, keep=[list(candidates)], seed=seed)[0]
    consensus: dict[str, FloatArray] = {}
    errors: dict[str, FloatArray] = {}
    for each in ensembles:
        if each.name in scores:
            with _selected(latents[each.name], first.structure_index) as opened:
                consensus[each.name] = each.reference.structure_consensus(opened.select(shown))
                # Errors are those of the first ensemble: a figure has one axis for them.
                errors = errors or true_errors(opened, structures, each.zeros)
    role: Role = 'heldout' if name == HELDOUT else 'target'
    nodes = _nodes(structures) | {f'scores {ensemble}': _identify(one) for ensemble, one in data.items()}
    return ViewedSet(
        title,
        scores,
        consensus,
        shown=shown,
        structures=None if structures is None else structures.get_set(),
        role=role,
        nodes=nodes,
        candidates=candidates,
        force_errors=errors.get('force'),
        energy_errors=errors.get('energy'),
    )


def _view_reference(
    ensemble: _Ensemble, latents: list[LatentsData], title: str, max_points: int, seed: int
) -> ViewedSet:
    """Score some of what the reference was fitted to."""
    structures = evaluated_structures(latents)
    with open_ensemble(latents) as opened:
        usable = np.flatnonzero(~find_isolated(opened))
        part = opened.select(usable[sample_sets([len(usable)], max_points, seed=seed)[0]])
        scores = ensemble.reference.score(part, unknown_elements='far')
        consensus = ensemble.reference.structure_consensus(part)
        errors = true_errors(part, structures, ensemble.zeros)
        note = 'scored for this page, with what was fitted to it: its scores are a little too small'
        if len(part) < len(opened):
            note += f'; {len(part)} of its {len(opened)} structures'
    return ViewedSet(
        title,
        {ensemble.name: scores},
        {ensemble.name: consensus},
        structures=None if structures is None else structures.get_set(),
        role='reference',
        nodes=_nodes(structures),
        force_errors=errors.get('force'),
        energy_errors=errors.get('energy'),
        note=note,
    )


def fit_zeros_of(node: orm.WorkChainNode, ensemble: str) -> tuple[EnergyZeros | None, str]:
    """Fit how far labels count energies from other zeros than an ensemble: on what it knows, else on the first target.

    :return: None without labels or energies; and what it was fitted on.
    """
    sets = {name: latents_of(node.outputs.references[ensemble], f'{name}__') for name in _KNOWN_SETS}
    for target in sorted(node.inputs.targets):
        if ensemble in node.outputs.scores[target]:
            sets[target] = latents_of(node.outputs.scores[target][ensemble], SCORED.format(target))
    for name, latents in sets.items():
        structures = _structures_of(node, name, ensemble, latents) if latents else None
        labels = _labels(structures, 'REF_energy')
        if labels is None or any('energies' not in each.get_arraynames() for each in latents):
            continue
        shards = group_shards(latents)
        firsts = [next(iter(shard.values())) for shard in shards]
        sizes = np.concatenate([np.diff(first.get_array('offsets')) for first in firsts])
        found = EnergyZeros.fit(
            np.concatenate([[each.get_array('energies') for each in shard.values()] for shard in shards], axis=1),
            labels[np.concatenate([first.get_array('structure_index') for first in firsts])],
            np.concatenate([first.get_array('numbers') for first in firsts]),
            np.concatenate([[0], np.cumsum(sizes)]),
        )
        if found is not None:
            return found, f'the {name} set' if name in _KNOWN_SETS else name
    return None, ''


def true_errors(
    latents: EnsembleLatents, structures: StructureSetData | None, zeros: EnergyZeros | None = None
) -> dict[str, FloatArray]:
    """Compare with labels, where there are any: ``force`` of atoms, eV/angstrom; ``energy`` of structures, eV/atom.

    :param zeros: how far labels count energies from other zeros than the models.
    """
    found: dict[str, FloatArray] = {}
    forces = _labels(structures, 'REF_forces')
    if forces is not None and latents.forces is not None and structures is not None:
        bounds = structures.get_array('offsets')
        rows = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in latents.structure_index])
        found['force'] = force_errors(latents, forces[rows])
    energies = _labels(structures, 'REF_energy')
    if energies is not None and latents.energies is not None:
        found['energy'] = energy_errors(latents, energies[latents.structure_index], zeros)
    return found


def _labels(structures: StructureSetData | None, name: str) -> FloatArray | None:
    """Return labels of all structures of a set, NaN where there is none; None for a set without labels."""
    if structures is None or name not in structures.base.attributes.get('properties'):
        return None
    content: StructureSet = structures.get_set()
    found: FloatArray = (content.arrays if name == 'REF_forces' else content.info)[name]
    return found


def _structures_of(
    node: orm.WorkChainNode, name: str, ensemble: str, latents: list[LatentsData]
) -> StructureSetData | None:
    """Return the structures that latents are of, as the screening was given them, or as the job was."""
    own = name in _KNOWN_SETS
    given = node.inputs.ensembles[ensemble].get(name) if own else node.inputs.targets[name]['structures']
    return given if isinstance(given, StructureSetData) else evaluated_structures(latents)


def evaluated_structures(latents: list[LatentsData]) -> StructureSetData | None:
    """Return the structures of the job that made latents; None for latents that were read from files."""
    creator = latents[0].creator
    found = creator.inputs.structures if creator is not None and 'structures' in creator.inputs else None
    return found if isinstance(found, StructureSetData) else None


@contextmanager
def _selected(nodes: list[LatentsData], structure_index: IntArray) -> Iterator[EnsembleLatents]:
    """Open the latents of those structures that were scored against every reference."""
    with open_ensemble(nodes) as opened:
        wanted = np.flatnonzero(np.isin(opened.structure_index, structure_index))
        yield opened if len(wanted) == len(opened) else opened.select(wanted)


def _in_common(scores: Mapping[str, OodScores]) -> dict[str, OodScores]:
    """Keep the structures that were scored against every reference; one that a model refused is missing in some."""
    common = functools.reduce(np.intersect1d, [one.structure_index for one in scores.values()])
    return {name: one.take(np.flatnonzero(np.isin(one.structure_index, common))) for name, one in scores.items()}


def _nodes(structures: StructureSetData | None) -> dict[str, NodeId]:
    return {} if structures is None else {'structures': _identify(structures)}


def _identify(node: Any) -> NodeId:
    kind = node.process_label if isinstance(node, orm.ProcessNode) else type(node).__name__
    return NodeId(kind, node.pk, node.uuid)
