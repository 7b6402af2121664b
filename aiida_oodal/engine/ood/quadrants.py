"""Two questions about every structure: do the models disagree, and is it far from what they were trained on."""

from __future__ import annotations

import numpy as np

from aiida_oodal.engine.ood.scores import OodScores

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


def quadrants(
    scores: OodScores,
    *,
    disagreement: str = 'aligned_variance',
    distance: str = 'mahalanobis',
    aggregate: str = 'mean',
    level: float = 0.95,
) -> list[str]:
    """Name the quadrant of each structure.

    :param disagreement: the score that says whether the models disagree.
    :param distance: the score that says how far it is.
    :param aggregate: from atoms to structures.
    :param level: share of the held-out structures below either threshold.
    :return: n_structures names, values of :data:`QUADRANTS`.
    :raises OodalError: if one of the scores is missing.
    """
    high = scores.flags(disagreement, aggregate, level)
    far = scores.flags(distance, aggregate, level)
    return [QUADRANTS[bool(h), bool(f)] for h, f in np.stack([high, far], axis=1)]
