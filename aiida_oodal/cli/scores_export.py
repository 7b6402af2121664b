"""Files for people out of a finished screening."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.links import LinkType
from numpy.typing import NDArray

from aiida_oodal.data import LatentsData
from aiida_oodal.engine.ood.exchange import EmbeddingsName, write_embeddings
from aiida_oodal.engine.ood.export import write_structures, write_table
from aiida_oodal.engine.ood.quadrants import DEFINITION
from aiida_oodal.engine.ood.scores import METRICS
from aiida_oodal.engine.ood.table import score_table

#: What the columns of a table mean; the names of metrics are added.
_ABOUT = [
    ('structure', 'position in the set of structures, from 0'),
    ('set', 'UUID of the set of structures'),
    ('scores_X', 'UUID of the scores against ensemble X'),
    ('<metric>_X', 'score of the structure against ensemble X: mean over its atoms; larger is further out'),
    ('<metric>_max_X, <metric>_p95_X', 'the same by the worst atom, and by the 95th percentile of the atoms'),
    ('<metric>_rank_X', '1 is the furthest out of the set'),
    ('<metric>_percentile_X', 'share of the set that is not further out, percent'),
    ('<metric>_above_95_X', 'above the threshold that 95 % of the held-out structures are below; 90 and 99 alike'),
    ('quadrant_X', DEFINITION),
    ('out_X', 'disagreement or distance above its 95 % threshold'),
    ('out_for_all', 'out against every ensemble'),
]


def export_scores(
    node: orm.WorkChainNode,
    folder: Path,
    *,
    tables: Sequence[str] = ('xlsx',),
    formats: Sequence[str] = ('cif',),
    copy: bool = True,
) -> list[Path]:
    """Write ``OOD_ALL_SCORES_{target}`` tables, and candidates into ``OOD_labelling/{target}``.

    :param copy: whether files of structures are written too.
    :return: the tables and the folders of candidates.
    """
    paths = []
    for target in targets_of(node):
        scores = {name: data.get_scores() for name, data in sorted(node.outputs.scores[target].items())}
        structures = node.inputs.targets[target]['structures']
        n_rows = len(next(iter(scores.values())))
        identifiers = {'set': [structures.uuid] * n_rows}
        identifiers |= {f'scores_{name}': [node.outputs.scores[target][name].uuid] * n_rows for name in scores}
        table = score_table(scores, info=identifiers)
        about = [*_ABOUT, *METRICS.items()]
        paths += [write_table(table, folder / f'OOD_ALL_SCORES_{target}.{kind}', about) for kind in tables]
        if copy:
            labelling = folder / 'OOD_labelling' / target
            chosen = node.outputs.candidates[target]
            named = ((f'{target}_{atoms.info["set_index"]:06d}', atoms) for atoms in chosen)
            write_structures(named, labelling, formats)
            paths.append(labelling)
    return paths


def export_embeddings(node: orm.WorkChainNode, folder: Path) -> list[Path]:
    """Write the latents of every target as ``embeddings_MACE_{ensemble}_{wX}_on_{target}.extxyz``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for target in targets_of(node):
        structures = node.inputs.targets[target]['structures'].get_set()
        for ensemble in sorted(node.outputs.scores[target]):
            for label, shards in sorted(latents_by_model(node, ensemble, target).items()):
                path = folder / str(EmbeddingsName(ensemble, label, target))
                index = np.concatenate([shard.get_array('structure_index') for shard in shards])
                has_energies = all('energies' in shard.get_arraynames() for shard in shards)
                energies = np.concatenate([shard.get_array('energies') for shard in shards]) if has_energies else None
                frames = (structures[int(position)] for position in index)
                paths.append(write_embeddings(path, frames, _rows_of(shards), energies))
    return paths


def targets_of(node: orm.WorkChainNode) -> list[str]:
    """Return the names of the targets of a screening."""
    return sorted(node.inputs.targets)


def latents_by_model(node: orm.WorkChainNode, ensemble: str, name: str) -> dict[str, list[LatentsData]]:
    """Return the latents of one set, shards in order, by label of the model.

    :param name: of a target, ``heldout``, or ``reference``: what the reference of the ensemble was fitted to.
    """
    if name == 'reference':
        process, prefix = node.outputs.references[ensemble].creator, 'reference__'
    else:
        process, prefix = node.outputs.scores[name][ensemble].creator, ''
    latents: dict[str, list[LatentsData]] = {}
    for link in process.base.links.get_incoming(node_class=LatentsData, link_type=LinkType.INPUT_CALC).all():
        if link.link_label.startswith(prefix):
            latents.setdefault(link.node.model_label, []).append(link.node)
    return {
        label: sorted(shards, key=lambda shard: int(shard.base.attributes.get('first_structure')))
        for label, shards in latents.items()
    }


def _rows_of(shards: Sequence[LatentsData]) -> Iterator[NDArray[Any]]:
    """Go through the latents of the structures of all shards, each of shape (n_atoms, n_features)."""
    for shard in shards:
        latents, offsets = shard.get_array('latents'), shard.get_array('offsets')
        yield from (latents[start:stop] for start, stop in itertools.pairwise(offsets))
