"""One verdict from several looks at a structure, which flags no more known structures than one look does.

A global shift shows in the mean over the atoms of a structure, a local event in its worst atom; models may disagree
where they are near what they know, and agree where they are far. Who looks at all of these and flags what is above any
of the thresholds, flags too much. So the looks are put on one scale, the largest is taken, and thresholds are those of
this largest number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Aggregates that are looked at: a global shift, and a local event.
LOOKS = ('mean', 'max')
#: The aggregate that is the larger of the two.
EITHER = 'either'
#: Scores of which a verdict is made: whether the models disagree, and how far it is from what they know.
JUDGES = ('aligned_variance', 'mahalanobis')
#: The verdict over all of :data:`JUDGES` and :data:`LOOKS`, a score of structures.
OVERALL = 'overall'
#: Share of the held-out structures for which the combined number is below 1.
_UNIT_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Looks:
    """The scale on which looks are compared: medians and spreads of the held-out structures.

    A look x becomes (x - median) / width; of several the largest is taken, and shifted and scaled so that it is 0 where
    all looks are, and 1 at the threshold of 95 %: of one look alone that is x over its threshold.

    :param metrics: names of the scores.
    :param medians: of the held-out structures, shape (n_metrics, 2) in the order of :data:`LOOKS`; NaN where a score
        has no such aggregate.
    :param widths: root mean square distance above the median of those above it, same shape.
    :param shifts: shape (n_metrics + 1,); the last is that of :data:`OVERALL`.
    :param units: same shape.
    """

    metrics: tuple[str, ...]
    medians: FloatArray
    widths: FloatArray
    shifts: FloatArray
    units: FloatArray

    @classmethod
    def fit(cls, per_structure: Mapping[str, Mapping[str, FloatArray]]) -> Looks:
        """Fit to the scores of held-out structures.

        :param per_structure: for each metric and aggregate shape (n_structures,).
        """
        metrics = tuple(per_structure)
        medians, widths = (np.full((len(metrics), len(LOOKS)), np.nan) for _ in range(2))
        for m, kinds in enumerate(per_structure.values()):
            for k, look in enumerate(LOOKS):
                if look in kinds:
                    medians[m, k], widths[m, k] = _centre(kinds[look])
        shifts, units = np.zeros(len(metrics) + 1), np.ones(len(metrics) + 1)
        bare = cls(metrics, medians, widths, shifts, units)
        for place, metric in enumerate((*metrics, OVERALL)):
            origins = [medians[bare._place(*pair)] / widths[bare._place(*pair)] for pair in bare.pairs(metric)]
            shifts[place] = max(0.0, *origins)
            top = float(quantiles(bare._largest(metric, per_structure), (_UNIT_LEVEL,))[0])
            units[place] = max(top + shifts[place], 1e-12)
        return bare

    @property
    def judges(self) -> tuple[str, ...]:
        """The scores that :data:`OVERALL` is made of: those of :data:`JUDGES` that there are, else the first."""
        return tuple(metric for metric in JUDGES if metric in self.metrics) or self.metrics[:1]

    def pairs(self, metric: str) -> tuple[tuple[str, str], ...]:
        """Return the scores and aggregates that a verdict is made of."""
        metrics = self.judges if metric == OVERALL else (metric,)
        pairs = [(name, look) for name in metrics for look in LOOKS]
        return tuple(pair for pair in pairs if np.isfinite(self.medians[self._place(*pair)]))

    def combine(self, per_structure: Mapping[str, Mapping[str, FloatArray]]) -> dict[str, dict[str, FloatArray]]:
        """Add ``either`` to each score, and :data:`OVERALL` if the scores that it is made of are there.

        :param per_structure: for each metric and aggregate shape (n_structures,).
        """
        result = {metric: dict(kinds) for metric, kinds in per_structure.items()}
        wanted = [metric for metric in self.metrics if metric in per_structure]
        for metric in [*wanted, OVERALL] if set(self.judges) <= set(wanted) else wanted:
            place = self._row(metric)
            values = (self._largest(metric, per_structure) + self.shifts[place]) / self.units[place]
            result.setdefault(metric, {})[EITHER] = values
        return result

    def excess(self, metric: str, look: str, values: FloatArray) -> FloatArray:
        """Return how far structures are above the median of the held-out ones, in units of their spread above it.

        :param values: of the score by an aggregate of :data:`LOOKS`, shape (n_structures,).
        """
        place = self._place(metric, look)
        result: FloatArray = (values - self.medians[place]) / self.widths[place]
        return result

    def limit(self, metric: str, look: str, threshold: float, by: str) -> float:
        """Return the threshold of one look in the unit of its score.

        :param threshold: of the combined number.
        :param by: the score whose combined number that is: ``metric`` itself or :data:`OVERALL`.
        """
        place, row = self._place(metric, look), self._row(by)
        return float(self.medians[place] + self.widths[place] * (threshold * self.units[row] - self.shifts[row]))

    def _largest(self, metric: str, per_structure: Mapping[str, Mapping[str, FloatArray]]) -> FloatArray:
        """Return the largest excess over all looks of a verdict, shape (n_structures,)."""
        excesses = [self.excess(name, look, per_structure[name][look]) for name, look in self.pairs(metric)]
        result: FloatArray = np.max(excesses, axis=0)
        return result

    def _row(self, metric: str) -> int:
        return len(self.metrics) if metric == OVERALL else self.metrics.index(metric)

    def _place(self, metric: str, look: str) -> tuple[int, int]:
        return self.metrics.index(metric), LOOKS.index(look)


def quantiles(values: FloatArray, levels: Sequence[float]) -> FloatArray:
    """Return the numbers that one more value of the same kind stays below with the given probabilities.

    The order statistic of rank (n + 1) q of n values, between two neighbours for ranks that are not whole (Weibull),
    the largest value for ranks above n. The rank rounded up instead is split conformal prediction (Vovk et al., 2005),
    which promises at least q and with few values gives much more.

    :param values: shape (n,), n > 0.
    :param levels: q, between 0 and 1.
    """
    with np.errstate(invalid='ignore'):
        result: FloatArray = np.quantile(values, levels, method='weibull')
    return result


def _centre(values: FloatArray) -> tuple[float, float]:
    """Return the median, and the root mean square distance above it of the values above it."""
    median = float(np.median(values))
    above = values[values > median] - median
    width = float(np.sqrt(np.mean(above**2))) if len(above) else 0.0
    # Held-out structures that are all alike have no spread; whatever differs from them is far then.
    return median, max(width, 1e-9 * abs(median), 1e-12)
