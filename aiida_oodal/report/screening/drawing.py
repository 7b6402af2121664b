"""What the figures of a screening are drawn from, for the page and for print alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from aiida_oodal.engine.analysis.maps import (
    Density,
    Grid,
    LatentMap,
    Method,
    Regions,
    find_regions,
    fit_density,
    fit_map,
    methods,
)
from aiida_oodal.engine.analysis.quadrants import QUADRANTS, quadrants
from aiida_oodal.engine.ood.calibration import LEVELS
from aiida_oodal.engine.ood.metrics import SCORES

from .content import ScreenView, ViewedSet

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: In this order everywhere.
QUADRANT_NAMES = tuple(QUADRANTS.values())
QUADRANT_COLORS = ('#4393c3', '#e3b448', '#e66101', '#a50026')
#: For targets; told apart with any kind of colour vision (M. Okabe, K. Ito, 2008).
TARGET_COLORS = ('#d55e00', '#0072b2', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7b3294', '#8c510a')
ROLE_COLORS = {'reference': '#9a9a9a', 'heldout': '#3d3d3d'}
#: Of scores that have one.
UNITS = {name: f' [{score.unit.replace("angstrom", "Å")}]' for name, score in SCORES.items() if score.unit}
_BINS = 40


@dataclass(frozen=True, eq=False)
class DrawnMap:
    """A map of the structures that are shown, under one reference.

    :param latent_map: its coordinates have a row for each structure in ``rows``.
    :param rows: which of the structures shown are on the map; those without a consensus under this reference are not.
    :param density: of the reference set, or of all where no structure of it is shown.
    :param density_of: the name of that set.
    :param counts: structures of each set in each region, shape (n_regions, n_sets).
    """

    latent_map: LatentMap
    rows: IntArray
    density: Density
    density_of: str
    regions: Regions
    counts: IntArray


@dataclass(frozen=True, eq=False)
class Distribution:
    """How one score is distributed in each set; all structures count, not only those shown.

    :param edges: of the bins, shape (n_bins + 1,).
    :param logarithmic: whether the bins are even in the logarithm.
    :param shares: by set, share of its structures in each bin, shape (n_bins,).
    :param infinite: by set, how many structures are infinitely far (an element that the reference set lacks).
    :param thresholds: by level.
    """

    edges: FloatArray
    logarithmic: bool
    shares: dict[str, FloatArray]
    infinite: dict[str, int]
    thresholds: dict[float, float]


@dataclass(frozen=True, eq=False)
class ScreenDrawing:
    """A screening ready to be drawn.

    :param view: with the structures that are shown.
    :param set_of: set of each structure shown, shape (n_shown,).
    :param position: its position among the scored structures of that set, shape (n_shown,).
    :param maps: by reference and method.
    """

    view: ScreenView
    set_of: IntArray
    position: IntArray
    maps: dict[str, dict[str, DrawnMap]]

    @property
    def colors(self) -> list[str]:
        """A colour for each set."""
        targets = iter(range(len(self.view.sets)))
        return [
            ROLE_COLORS.get(entry.role) or TARGET_COLORS[next(targets) % len(TARGET_COLORS)] for entry in self.view.sets
        ]

    def score(self, reference: str, metric: str, aggregate: str) -> FloatArray:
        """Return a score of each structure shown, shape (n_shown,); NaN where it was not computed."""
        found = [_score(entry, reference, metric, aggregate)[entry.positions] for entry in self.view.sets]
        return np.concatenate(found)

    def quadrant(self, reference: str) -> IntArray:
        """Return the quadrant of each structure shown, a place in :data:`QUADRANT_NAMES`; -1 where it is not known."""
        view = self.view
        found = []
        for entry in view.sets:
            own = np.full(len(entry), -1)
            scores = entry.scores.get(reference)
            names = None if scores is None else quadrants(scores, aggregate=view.aggregate, level=view.level)
            if names is not None:
                own = np.array([QUADRANT_NAMES.index(name) for name in names], dtype=np.int64)
            found.append(own[entry.positions])
        return np.concatenate(found)

    def errors(self) -> dict[str, FloatArray]:
        """Return the true errors of the structures shown, each of shape (n_shown,); NaN without a label."""
        names = dict.fromkeys(name for entry in self.view.sets for name in entry.errors)
        blank = {name: [np.full(len(entry), np.nan) for entry in self.view.sets] for name in names}
        return {
            name: np.concatenate(
                [
                    entry.errors.get(name, missing)[entry.positions]
                    for entry, missing in zip(self.view.sets, blank[name], strict=True)
                ]
            )
            for name in names
        }


def draw_screen(
    view: ScreenView, *, kinds: Sequence[Method] | None = None, max_points: int = 2000, seed: int = 0
) -> ScreenDrawing:
    """Choose the structures to show and lay them out.

    :param kinds: of map; all that can be made here if not given.
    :param max_points: structures to show; t-SNE of 2000 takes some seconds.
    :param seed: of the choice and of the maps.
    """
    view = view.sampled(max_points, seed)
    sizes = [len(entry.positions) for entry in view.sets]
    return ScreenDrawing(
        view,
        np.repeat(np.arange(len(sizes)), sizes),
        np.concatenate([entry.positions for entry in view.sets]),
        {name: _draw_maps(view, name, sizes, methods() if kinds is None else kinds, seed) for name in view.references},
    )


def distribution(view: ScreenView, reference: str, metric: str, aggregate: str) -> Distribution:
    """Count the structures of each set by one score."""
    values = {entry.name: scores.of(metric, aggregate) for entry, scores in view.scored(reference)}
    thresholds = {
        level: scores.thresholds.structure(metric, aggregate, level)
        for _, scores in view.scored(reference)
        for level in LEVELS
    }
    finite = {name: own[np.isfinite(own)] for name, own in values.items()}
    everything = np.concatenate([*finite.values(), list(thresholds.values())])
    low, high = float(everything.min()), float(everything.max())
    # Scores of sets that are far out are tens of times larger: even bins would put everything else into the first.
    logarithmic = low > 0.0 and high > 20.0 * low
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.geomspace(low, high, _BINS + 1) if logarithmic else np.linspace(low, high, _BINS + 1)
    edges[0], edges[-1] = low, high  # rounding must not lose the smallest and the largest
    return Distribution(
        edges,
        logarithmic,
        {name: np.histogram(own, edges)[0] / max(len(values[name]), 1) for name, own in finite.items()},
        {name: int(len(values[name]) - len(own)) for name, own in finite.items()},
        thresholds,
    )


def rank_correlation(view: ScreenView, error: str, reference: str, metric: str, aggregate: str) -> dict[str, float]:
    """Return Spearman's rho of a score and the true error over all labelled structures of each set, and of all targets.

    :return: by name of the set; ``all targets`` together where there is more than one; sets with fewer than five labels
        are left out.
    """
    pairs = {
        entry.name: (scores.of(metric, aggregate), entry.errors[error])
        for entry, scores in view.scored(reference)
        if error in entry.errors
    }
    own = [pairs[entry.name] for entry in view.targets if entry.name in pairs]
    if len(own) > 1:
        pairs['all targets'] = (np.concatenate([a for a, _ in own]), np.concatenate([b for _, b in own]))
    found = {}
    for name, (score, truth) in pairs.items():
        labelled = np.isfinite(truth)
        if np.count_nonzero(labelled) >= 5 and np.ptp(truth[labelled]) > 0.0 and len(np.unique(score[labelled])) > 1:
            found[name] = float(spearmanr(score[labelled], truth[labelled]).statistic)
    return found


def aggregates(view: ScreenView, reference: str, metric: str) -> tuple[str, ...]:
    """Return the ways from atoms to structures that a score has, the one of the view first."""
    kinds = next(scores for _, scores in view.scored(reference)).per_structure[metric]
    return tuple(sorted(kinds, key=lambda kind: kind != view.aggregate))


def _draw_maps(
    view: ScreenView, reference: str, sizes: Sequence[int], kinds: Iterable[Method], seed: int
) -> dict[str, DrawnMap]:
    starts = np.cumsum([0, *sizes])
    there = [i for i, entry in enumerate(view.sets) if reference in entry.consensus and sizes[i]]
    if not there or sum(sizes[i] for i in there) < 4:
        return {}
    points = np.concatenate([view.sets[i].consensus[reference] for i in there])
    rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in there])
    owner = np.repeat(there, [sizes[i] for i in there])
    trained = [i for i in there if view.sets[i].role == 'reference' and sizes[i] >= 3]
    inside = owner == trained[0] if trained else np.ones(len(rows), dtype=bool)
    result: dict[str, DrawnMap] = {}
    for kind in kinds:
        latent_map = fit_map(points, kind, seed=seed)
        grid = Grid.around(latent_map.coordinates)
        regions = find_regions(latent_map.coordinates, grid, seed=seed)
        counts = np.zeros((len(regions.centres), len(sizes)), dtype=np.int64)
        np.add.at(counts, (regions.labels, owner), 1)
        density = fit_density(latent_map.coordinates[inside], grid, seed=seed)
        name = view.sets[trained[0]].name if trained else 'all sets'
        result[kind] = DrawnMap(latent_map, rows, density, name, regions, counts)
    return result


def _score(entry: ViewedSet, reference: str, metric: str, aggregate: str) -> FloatArray:
    kinds = entry.scores[reference].per_structure.get(metric, {}) if reference in entry.scores else {}
    return kinds.get(aggregate, np.full(len(entry), np.nan))
