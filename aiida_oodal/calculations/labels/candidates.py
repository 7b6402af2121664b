"""Cut a cluster around the worst atom of each candidate of a screening."""

from __future__ import annotations

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from numpy.typing import NDArray

from aiida_oodal.calculations.explained import explained
from aiida_oodal.data import ClusterData, OodScoresData, StructureSetData
from aiida_oodal.engine.carve.cluster import cut_each
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.looks import JUDGES, OVERALL
from aiida_oodal.engine.ood.scores import OodScores


@calcfunction
@explained
def carve_candidates(
    candidates: StructureSetData, scores: OodScoresData, metric: orm.Str, settings: orm.Dict
) -> dict[str, ClusterData]:
    """Return a cluster around the worst atom of every candidate: ``c0000``, ``c0001``, ... by its number.

    The worst atom is the one whose score is the largest share of the 95 % threshold of its element: scores of different
    elements are not compared. A candidate that cannot be cut is left out; if none can be cut, the calcfunction fails.

    :param candidates: as :func:`.take_candidates` returns them.
    :param scores: of the set that they were chosen from.
    :param metric: the score that they were chosen by; of ``overall`` the one that is furthest above its threshold.
    :param settings: fields of :class:`aiida_oodal.engine.carve.settings.CarveSettings`, ``cutoff`` among them.
    """
    found = scores.get_scores()
    judges = JUDGES if metric.value == OVERALL else (metric.value,)
    names = [name for name in judges if name in found.per_atom]
    if not names:
        raise OodalError(f'there is no {metric.value!r} per atom, only {", ".join(found.per_atom)}')
    cut = CarveSettings.load(settings.get_dict()).for_cutoff(None)
    shares = np.max([_shares(found, name) for name in names], axis=0)
    rows = {int(index): row for row, index in enumerate(found.structure_index)}
    clusters, reasons = {}, []
    for number, atoms in enumerate(candidates):
        start, stop = found.offsets[rows[int(atoms.info['set_index'])] :][:2]
        centre = int(np.argmax(shares[start:stop]))
        (cluster,) = cut_each(atoms, [centre], cut)
        if isinstance(cluster, OodalError):
            reasons.append(f'candidate {number}: {cluster}')
            continue
        cluster.info['score'] = float(found.per_atom[names[0]][start + centre])
        clusters[f'c{number:04d}'] = ClusterData(cluster)
    if not clusters:
        raise OodalError(reasons[0] if reasons else 'there are no candidates')
    return clusters


def _shares(scores: OodScores, metric: str) -> NDArray[np.float64]:
    """Return each atom's score as a share of the threshold of its element, shape (n_atoms,).

    An element that the reference set lacks has no threshold: its atoms come first.
    """
    values = np.asarray(scores.per_atom[metric], dtype=np.float64)
    limits = scores.thresholds.of_atoms(metric, 0.95, scores.numbers)
    shares: NDArray[np.float64] = np.divide(values, limits, out=np.full(len(values), np.inf), where=limits > 0)
    return shares
