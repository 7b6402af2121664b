"""What scores say about sets: shares above thresholds, and whether a score separates one set from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, mannwhitneyu

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.calibration import LEVELS
from aiida_oodal.engine.ood.looks import EITHER
from aiida_oodal.engine.ood.scores import OodScores

FloatArray = NDArray[np.float64]

#: Two-sided 95 % of a normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class FlagShare:
    """Structures of a set above one threshold.

    :param metric: name of the score.
    :param aggregate: from atoms to structures.
    :param level: share of held-out structures below it; 1 - level is expected of a set from the same distribution.
    :param n_above: structures above.
    :param n: structures of the set.
    :param share: n_above / n.
    :param low: lower end of its 95 % confidence interval.
    :param high: upper end.
    """

    metric: str
    aggregate: str
    level: float
    n_above: int
    n: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Separation:
    """How well a score tells a set from the in-distribution set.

    :param auroc: probability that a structure of the set has a larger score than one of the in-distribution set.
    :param low: lower end of its 95 % confidence interval.
    :param high: upper end.
    :param sentence: the verdict in plain words.
    """

    auroc: float
    low: float
    high: float
    sentence: str


@dataclass(frozen=True)
class SetComparison:
    """One score of one set: shares above the thresholds, and separation from the in-distribution set.

    :param separation: None for the in-distribution set itself.
    """

    name: str
    metric: str
    aggregate: str
    n: int
    shares: tuple[FlagShare, ...]
    separation: Separation | None


def wilson_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share (E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927)).

    :param count: successes.
    :param n: trials, 1 or more.
    """
    interval = binomtest(count, n).proportion_ci(method='wilson')
    return float(interval.low), float(interval.high)


def flag_shares(scores: OodScores, metric: str, aggregate: str = 'mean') -> tuple[FlagShare, ...]:
    """Count the structures above the 90, 95 and 99 % thresholds.

    :raises OodalError: if the score is missing or the set is empty.
    """
    if not len(scores):
        raise OodalError('the set has no structures: there is nothing to count')
    shares = []
    for level in LEVELS:
        count = int(np.count_nonzero(scores.flags(metric, aggregate, level)))
        low, high = wilson_interval(count, len(scores))
        shares.append(FlagShare(metric, aggregate, level, count, len(scores), count / len(scores), low, high))
    return tuple(shares)


def auroc(inside: FloatArray, outside: FloatArray) -> float:
    """Return the area under the receiver operating characteristic: how often a score of ``outside`` is the larger one.

    :param inside: scores of in-distribution structures, shape (n,).
    :param outside: scores of others, shape (m,). Ties count one half.
    """
    return float(mannwhitneyu(outside, inside, method='asymptotic').statistic / (len(inside) * len(outside)))


def separation(inside: FloatArray, outside: FloatArray, what: str = 'the score') -> Separation:
    """Judge whether a score separates two sets.

    The confidence interval is that of Newcombe (Stat. Med. 25, 559 (2006), method 5): Hanley and McNeil's variance as a
    function of the true area, solved for the area, so that an area of exactly 1 still has an interval.

    :param inside: scores of in-distribution structures, shape (n,).
    :param outside: scores of others, shape (m,).
    :param what: how to call the score in the sentence.
    :raises OodalError: if a set is empty.
    """
    if not len(inside) or not len(outside):
        raise OodalError('two sets with one structure or more are needed to say what a score separates')
    area = auroc(inside, outside)
    grid = np.linspace(0.0, 1.0, 20001)
    covered = grid[np.abs(grid - area) <= Z95 * _area_error(grid, len(inside), len(outside))]
    low, high = (float(covered.min()), float(covered.max())) if len(covered) else (area, area)
    numbers = f'AUROC {area:.3f}, 95 % interval {low:.3f} to {high:.3f}'
    if low > 0.5:
        verdict = f'{what} separates the sets ({numbers})'
    elif high < 0.5:
        verdict = (
            f'{what} ranks the sets the wrong way round ({numbers}): the in-distribution structures score higher; '
            'do not choose by it'
        )
    else:
        verdict = f'{what} separates nothing here ({numbers}, which includes 0.5, a toss of a coin)'
    return Separation(area, low, high, verdict)


def compare_sets(
    sets: Mapping[str, OodScores], in_distribution: str, metrics: Sequence[str] | None = None, aggregate: str = EITHER
) -> list[SetComparison]:
    """Compare sets that were scored against one reference.

    :param sets: scores by name of the set.
    :param in_distribution: the set that the others are compared to: held-out or test structures, not training ones.
    :param metrics: all that every set has if not given.
    :return: one entry for each metric and set.
    :raises OodalError: if the in-distribution set is not among the sets.
    """
    if in_distribution not in sets:
        raise OodalError(f'there is no set {in_distribution!r}; there are {", ".join(sets)}')
    base = sets[in_distribution]
    names = metrics or [name for name in base.metrics if all(name in scores.metrics for scores in sets.values())]
    result = []
    for metric in names:
        kinds = base.per_structure.get(metric, {aggregate: None})
        kind = aggregate if aggregate in kinds else next(iter(kinds))
        for name, scores in sets.items():
            shares = flag_shares(scores, metric, kind)
            found = None
            if name != in_distribution:
                what = f'{metric} ({kind}) of {name} against {in_distribution}:'
                found = separation(base.of(metric, kind), scores.of(metric, kind), what)
            result.append(SetComparison(name, metric, kind, len(scores), shares, found))
    return result


def find_contradictions(flagged: Mapping[str, int], n: int, level: float = 0.95) -> list[str]:
    """Say when one score flags many structures of a set, and another no more than chance would.

    :param flagged: structures above the threshold by score.
    :param n: structures of the set.
    :param level: of the threshold.
    """
    many = [name for name, count in flagged.items() if count >= max(0.5 * n, 3)]
    few = [name for name, count in flagged.items() if wilson_interval(count, n)[0] <= 1.0 - level and count <= 0.2 * n]
    if not many or not few:
        return []
    text = [f'{name} {flagged[name]}' for name in (*many, *few)]
    return [
        f'the scores contradict each other: above their {level:.0%} thresholds are, of {n} structures, '
        f'{", ".join(text)}. Each looks at something else; look at some structures by each of them before you choose'
    ]


def _area_error(area: FloatArray, n: int, m: int) -> FloatArray:
    """Return the standard error of an AUROC (Hanley and McNeil, Radiology 143, 29 (1982)) with Newcombe's sizes."""
    half = (n + m) / 2 - 1
    variance = area * (1 - area) * (1 + half * ((1 - area) / (2 - area) + area / (1 + area))) / (n * m)
    result: FloatArray = np.sqrt(variance)
    return result
