"""Write tables, structures and embeddings of a finished screening."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.data import LatentsData
from aiida_oodal.engine.analysis.quadrants import DEFINITION
from aiida_oodal.engine.analysis.table import WorkList, score_table
from aiida_oodal.engine.exchange.embeddings import SHA256_KEY, EmbeddingsName, write_embeddings
from aiida_oodal.engine.exchange.export import write_structures, write_table
from aiida_oodal.engine.ood.metrics import describe_scores

from .links import FITTED_TO, SCORED, latents_of

#: Values of structures that are labels or marks of this package.
_NOT_THE_USERS = {'REF_energy', SHA256_KEY}
#: What the columns of a table mean; the names of metrics are added.
_ABOUT = [
    ('name', 'what the structure is called, and its file among the candidates'),
    ('candidate', 'place among the candidates, 1 is to be labelled first; empty for the others'),
    ('verdict', 'out: the models disagree about it, or it is far from the reference set (95 % threshold); else known'),
    ('because', 'which score, by the mean over atoms or by the worst atom, is above which limit'),
    ('rank', '1 is the furthest out of the set'),
    ('reason', 'why it was taken as a candidate, or why it cannot be one'),
    ('structure', 'position in the set of structures, from 0'),
    ('quadrant_X', DEFINITION),
    ('out_X, out_for_all', 'the verdict against ensemble X, and against every ensemble'),
    ('<metric>_X', 'score of the structure against ensemble X: mean over its atoms; larger is further out'),
    ('<metric>_max_X, <metric>_p95_X', 'the same by the worst atom, and by the 95th percentile of the atoms'),
    ('<metric>_either_X', 'by the mean or the worst atom, whichever is further out; 1 at the 95 % threshold'),
    ('<metric>_rank_X', '1 is the furthest out of the set'),
    ('<metric>_percentile_X', 'share of the set that is not further out, percent'),
    ('<metric>_above_95_X', 'above the threshold that 95 % of the held-out structures are below; 90 and 99 alike'),
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
    against = node.inputs.against.value if 'against' in node.inputs else min(node.inputs.ensembles)
    for target in targets_of(node):
        scores = {name: data.get_scores() for name, data in sorted(node.outputs.scores[target].items())}
        table, n_work = score_table(scores, _work_list(node, target, against), first=against)
        structures = node.inputs.targets[target]['structures']
        nodes = [(f'{target}: structures', f'{structures.uuid} (UUID)')]
        data = node.outputs.scores[target]
        nodes += [(f'{target}: scores against {name}', f'{data[name].uuid} (UUID)') for name in scores]
        about = [*_ABOUT, *describe_scores().items(), *nodes]
        paths += [write_table(table, folder / f'OOD_ALL_SCORES_{target}.{kind}', about, n_work) for kind in tables]
        if copy:
            labelling = folder / 'OOD_labelling' / target
            chosen = node.outputs.candidates[target]
            write_structures(_named(target, chosen, structures.uuid), labelling, formats)
            paths.append(labelling)
    return paths


def _named(target: str, chosen: Iterable[Atoms], uuid: str) -> Iterator[tuple[str, Atoms]]:
    """Yield candidates with their names; each says of which set it is, by the UUID of its node."""
    for atoms in chosen:
        atoms.info['node'] = uuid
        yield f'{target}_{atoms.info["set_index"]:06d}', atoms


def _work_list(node: orm.WorkChainNode, target: str, against: str) -> WorkList:
    """Collect what is known of the structures of a target beside their scores."""
    taken = node.outputs.decisions[target]['taken']
    reasons = {entry['structure']: entry['reason'] for entry in taken}
    process = node.outputs.scores[target][against].creator
    results = process.outputs.results.get_dict() if process is not None and 'results' in process.outputs else {}
    for structure, name, position in results.get('sets', {}).get(target, {}).get('known', []):
        reasons[structure] = f'no candidate: it is structure {position} of the {name} set'
    structures = node.inputs.targets[target]['structures'].get_set()
    own = {key: values for key, values in structures.info.items() if values.ndim == 1 and key not in _NOT_THE_USERS}
    return WorkList(
        target,
        candidates={entry['structure']: place for place, entry in enumerate(taken, start=1)},
        reasons=reasons,
        info={key: values.tolist() for key, values in own.items()},
    )


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
                digest = shards[0].identity.sha256
                paths.append(write_embeddings(path, frames, _rows_of(shards), energies, sha256=digest))
    return paths


def targets_of(node: orm.WorkChainNode) -> list[str]:
    """Return the names of the targets of a screening."""
    return sorted(node.inputs.targets)


def latents_by_model(node: orm.WorkChainNode, ensemble: str, name: str) -> dict[str, list[LatentsData]]:
    """Return the latents of one set, shards in order, by label of the model.

    :param name: of a target, ``heldout``, or ``reference``: what the reference of the ensemble was fitted to.
    """
    data = node.outputs.references[ensemble] if name == 'reference' else node.outputs.scores[name][ensemble]
    latents: dict[str, list[LatentsData]] = {}
    for each in latents_of(data, FITTED_TO if name == 'reference' else SCORED.format(name)):
        latents.setdefault(each.model_label, []).append(each)
    return {
        label: sorted(shards, key=lambda shard: int(shard.base.attributes.get('first_structure')))
        for label, shards in latents.items()
    }


def _rows_of(shards: Sequence[LatentsData]) -> Iterator[NDArray[Any]]:
    """Go through the latents of the structures of all shards, each of shape (n_atoms, n_features)."""
    for shard in shards:
        latents, offsets = shard.get_array('latents'), shard.get_array('offsets')
        yield from (latents[start:stop] for start, stop in itertools.pairwise(offsets))
