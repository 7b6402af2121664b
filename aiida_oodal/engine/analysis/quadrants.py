"""Two questions about every structure: do the models disagree, and is it far from what they were trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.ood.looks import EITHER, JUDGES, OVERALL
from aiida_oodal.engine.ood.scores import OodScores

BoolArray = NDArray[np.bool_]

#: By (models disagree, far from the reference set).
QUADRANTS = {
    (False, False): 'known',
    (False, True): 'confident novelty',
    (True, False): 'hidden danger',
    (True, True): 'alien',
}
#: For the user, beside every table and plot.
DEFINITION = (
    'Quadrants by two thresholds of the held-out structures: disagreement of the models and distance from the '
    'reference set. known: the models agree, near. confident novelty: the models agree, far (they may share one bias: '
    'check a few). hidden danger: the models disagree, near (it looks like the reference set, but was not learnt, or '
    'its labels contradict each other). alien: the models disagree, far.'
)


def flag_judges(scores: OodScores, aggregate: str = EITHER, level: float = 0.95) -> dict[str, BoolArray]:
    """Say which structures are above the thresholds of disagreement and of distance, as far as these scores are there.

    :param aggregate: from atoms to structures. By ``either`` the thresholds are those of the overall verdict, so that a
        structure is out if one of the two is, and all looks together flag a share of 1 - level of known structures.
    :param level: share of the held-out structures below.
    :return: by name of the score, shape (n_structures,).
    """
    judges = [name for name in JUDGES if name in scores.metrics]
    if aggregate == EITHER and OVERALL in scores.metrics and judges:
        flags = {judge: np.zeros(len(scores), dtype=bool) for judge in judges}
        for judge, look in scores.thresholds.pairs(OVERALL):
            flags[judge] |= scores.of(judge, look) > scores.thresholds.limit(judge, look, level, OVERALL)
        return flags
    kinds = {judge: aggregate if aggregate in scores.per_structure[judge] else 'mean' for judge in judges}
    return {judge: scores.flags(judge, kind, level) for judge, kind in kinds.items()}


def quadrants(scores: OodScores, *, aggregate: str = EITHER, level: float = 0.95) -> list[str] | None:
    """Name the quadrant of each structure.

    :param aggregate: from atoms to structures, see :func:`flag_judges`.
    :param level: share of the held-out structures below either threshold.
    :return: n_structures names, values of :data:`QUADRANTS`; None if disagreement or distance was not computed.
    """
    flags = flag_judges(scores, aggregate, level)
    if set(flags) != set(JUDGES):
        return None
    high, far = (flags[judge] for judge in JUDGES)
    return [QUADRANTS[bool(h), bool(f)] for h, f in np.stack([high, far], axis=1)]
