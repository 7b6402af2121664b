"""Outliers inside a labelled set: structures that do not belong, and labels that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.calibration import Thresholds
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.fitting import FitOptions
from aiida_oodal.engine.ood.looks import JUDGES
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.scores import AGGREGATES, OodScores
from aiida_oodal.engine.ood.splitting import find_isolated

#: Modified z-score above which a value is an outlier (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
LIMIT = 3.5
#: Median absolute deviation of a normal distribution with standard deviation 1.
MAD_OF_NORMAL = 0.6744897501960817


@dataclass(frozen=True)
class Suspect:
    """A structure whose label should be looked at.

    :param structure: position in the set.
    :param z: modified z-score of the logarithm of its value among all structures.
    :param reason: in plain words.
    """

    structure: int
    z: float
    reason: str


def leave_out_scores(
    latents: EnsembleLatents, *, folds: int = 5, settings: Mapping[str, Any] | FitOptions | None = None
) -> OodScores:
    """Score every structure of a set against the others, fold by fold.

    A structure's own atoms would pull mean and covariance towards it, and its nearest neighbour would be itself.

    :param folds: parts that are left out one after the other.
    :param settings: of the fit; the seed also decides who is in which fold.
    :return: scores of all structures but isolated atoms, in the order of the set; the thresholds are quantiles of these
        very scores.
    :raises OodalError: if there are fewer structures than folds, or an element occurs in one fold only.
    """
    options = settings if isinstance(settings, FitOptions) else FitOptions.load(settings or {})
    latents = latents.select(np.flatnonzero(~find_isolated(latents)))
    if not 2 <= folds <= len(latents):
        raise OodalError(f'{folds} folds of {len(latents)} structures: take between 2 and the number of structures')
    fold = np.random.default_rng(options.seed).permutation(np.arange(len(latents)) % folds)
    parts, places = [], []
    for number in range(folds):
        out = np.flatnonzero(fold == number)
        left = latents.select(out)
        # The left-out structures are the held-out ones too: thresholds of one fold are not used.
        fitted = OodReference.fit(latents.select(np.flatnonzero(fold != number)), left, settings=options)
        parts.append(fitted.score(left, chunk_atoms=options.chunk_atoms))
        places.append(out)
    return _in_order(OodScores.concatenate(parts), np.concatenate(places))


def outliers(values: ArrayLike, what: str, limit: float = LIMIT) -> list[Suspect]:
    """Find structures whose value is far above those of the others.

    :param values: one positive number a structure, e.g. leave-out scores, or force error over disagreement.
    :param what: how to call the value in the reason.
    :param limit: modified z-score of its logarithm.
    :return: worst first.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or np.isnan(numbers).any() or np.any(numbers < 0.0):
        raise OodalError(f'{what}: one number >= 0 a structure is needed, shape {numbers.shape}')
    if not len(numbers):
        return []
    logs = np.log(np.maximum(numbers, np.finfo(float).tiny))
    median = np.median(logs)
    spread = np.median(np.abs(logs - median)) / MAD_OF_NORMAL
    z = (logs - median) / max(spread, 1e-12)
    found = [
        Suspect(int(i), float(z[i]), f'{what} is {numbers[i]:.3g}, {np.exp(logs[i] - median):.3g} times the median')
        for i in np.flatnonzero(z > limit)
    ]
    return sorted(found, key=lambda suspect: -suspect.z)


def suspect_labels(
    scores: OodScores, force_errors: ArrayLike, *, aggregate: str = 'mean', limit: float = LIMIT
) -> list[Suspect]:
    """Find structures whose force error is much larger than the models' disagreement about them explains.

    The models agree, and the label says otherwise: either all share one bias, or the label is wrong.

    :param scores: of the labelled set, with ``predicted_error``, ``aligned_variance`` or (of one model)
        ``mahalanobis``; the first that there is counts.
    :param force_errors: root mean square length of the force error of each structure, eV/angstrom, shape
        (n_structures,); NaN where there is no label.
    :param limit: modified z-score of the logarithm of the ratio.
    :return: worst first.
    :raises OodalError: if the errors are not one number a structure.
    """
    metric = next(name for name in ('predicted_error', *JUDGES, *scores.metrics) if name in scores.metrics)
    expected = scores.of(metric, aggregate)
    errors = np.asarray(force_errors, dtype=np.float64)
    if errors.shape != expected.shape:
        raise OodalError(f'{errors.shape} force errors for {len(expected)} structures')
    floor = np.finfo(float).eps * max(float(expected.max(initial=0.0)), 1.0)
    ratio = errors / np.maximum(expected, floor)
    labelled = np.flatnonzero(~np.isnan(ratio))
    found = outliers(ratio[labelled], f'force error over {metric}', limit)
    return [replace(suspect, structure=int(labelled[suspect.structure])) for suspect in found]


def _in_order(scores: OodScores, places: NDArray[np.int64]) -> OodScores:
    """Put structures back to their places in the set, and take the thresholds from all of them."""
    ordered = scores.take(np.argsort(places))
    # Each fold measured its looks on a scale of its own: they are combined anew.
    plain = {
        name: {kind: values for kind, values in kinds.items() if kind in AGGREGATES}
        for name, kinds in ordered.per_structure.items()
    }
    plain = {name: kinds for name, kinds in plain.items() if kinds}
    elements = scores.thresholds.elements
    thresholds = Thresholds.fit(ordered.numbers, ordered.per_atom, plain, AGGREGATES, elements)
    return replace(ordered, per_structure=thresholds.combine(plain), thresholds=thresholds)
