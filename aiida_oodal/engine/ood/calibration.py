"""Thresholds of scores, and the force errors that go with them, from held-out structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.arrays import read_header, write_header
from aiida_oodal.engine.errors import OodalError

from .looks import EITHER, JUDGES, OVERALL, Looks, quantiles

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Shares of the held-out structures that are below a threshold.
LEVELS = (0.90, 0.95, 0.99)
#: Of the stored arrays; 1 had neither ``either`` nor ``overall``.
FORMAT = 2
#: Arrays of :class:`.Looks`, as they are stored.
_SCALE = ('medians', 'widths', 'shifts', 'units')


def check_level(level: float) -> str | None:
    """Say what is wrong with a level, or return None."""
    known = ', '.join(map(str, LEVELS))
    return None if level in LEVELS else f'level = {level:g}: there are thresholds for {known}'


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Quantiles of the scores of held-out structures.

    A new structure from the same distribution is above the quantile q with probability 1 - q, whatever the distribution
    is, as long as q <= n / (n + 1) for n held-out structures; above that the threshold is their largest score.

    :param metrics: names of the scores.
    :param aggregates: names of the ways from atoms to structures.
    :param elements: atomic numbers, ascending, shape (n_elements,).
    :param of_structures: shape (n_metrics, n_aggregates, n_levels); NaN where a score has no such aggregate.
    :param of_elements: for the atoms of each element, shape (n_metrics, n_elements, n_levels); NaN for scores that
        atoms do not have. Elements that no held-out structure contains have the threshold of all atoms together.
    :param n_structures: held-out structures.
    :param n_atoms: held-out atoms of each element, shape (n_elements,).
    :param looks: how several looks at a structure become one; None in thresholds that were stored before there was
        ``either``.
    """

    metrics: tuple[str, ...]
    aggregates: tuple[str, ...]
    elements: IntArray
    of_structures: FloatArray
    of_elements: FloatArray
    n_structures: int
    n_atoms: IntArray
    looks: Looks | None = None

    @classmethod
    def fit(
        cls,
        numbers: IntArray,
        per_atom: Mapping[str, FloatArray],
        per_structure: Mapping[str, Mapping[str, FloatArray]],
        aggregates: Sequence[str],
        elements: IntArray,
    ) -> Thresholds:
        """Take the quantiles of the scores of the held-out structures; the parameters are those of the scores.

        :param per_structure: as computed, without ``either`` and :data:`OVERALL`.
        """
        n_structures = len(next(iter(next(iter(per_structure.values())).values())))
        n_atoms = np.array([np.count_nonzero(numbers == z) for z in elements], dtype=np.int64)
        looks = Looks.fit(per_structure)
        combined = looks.combine(per_structure)
        names = tuple(combined), (*aggregates, EITHER)
        of_structures = np.full((len(names[0]), len(names[1]), len(LEVELS)), np.nan)
        of_elements = np.full((len(names[0]), len(elements), len(LEVELS)), np.nan)
        for m, (metric, kinds) in enumerate(combined.items()):
            for kind, values in kinds.items():
                of_structures[m, names[1].index(kind)] = quantiles(values, LEVELS)
            if metric in per_atom:
                atoms = per_atom[metric]
                for e, z in enumerate(elements):
                    own = atoms[numbers == z]
                    of_elements[m, e] = quantiles(own if len(own) else atoms, LEVELS)
        return cls(*names, elements, of_structures, of_elements, n_structures, n_atoms, looks)

    def combine(self, per_structure: Mapping[str, Mapping[str, FloatArray]]) -> Mapping[str, Mapping[str, FloatArray]]:
        """Add ``either`` to each score, and ``overall``, see :class:`.Looks`."""
        return per_structure if self.looks is None else self.looks.combine(per_structure)

    def pairs(self, metric: str) -> tuple[tuple[str, str], ...]:
        """Return the scores and aggregates of which the verdict by a score is made."""
        if self.looks is not None:
            return self.looks.pairs(metric)
        there = [name for name in JUDGES if name in self.metrics] or self.metrics[:1]
        return tuple((name, 'mean') for name in (there if metric == OVERALL else [metric]))

    def structure(self, metric: str, aggregate: str = 'mean', level: float = 0.95) -> float:
        """Return the threshold of a score of structures.

        :raises OodalError: if there is none.
        """
        return float(self.of_structures[(*self._pair(metric, aggregate), self._level(level))])

    def limit(self, metric: str, look: str, level: float, by: str) -> float:
        """Return the threshold of one look in the unit of its score, corrected for the number of looks.

        :param look: an aggregate of ``LOOKS``.
        :param by: the score by which the verdict is made: ``metric`` itself or ``overall``.
        """
        if self.looks is None:
            return self.structure(metric, look, level)
        return self.looks.limit(metric, look, self.structure(by, EITHER, level), by)

    def of_atoms(self, metric: str, level: float, numbers: IntArray) -> FloatArray:
        """Return the threshold that holds for each atom, shape (n,); 0 for elements that the reference set lacks.

        :raises OodalError: if there is none.
        """
        table = np.zeros(max(int(self.elements.max()), int(numbers.max(initial=0))) + 1)
        table[self.elements] = self.of_elements[self._metric(metric), :, self._level(level)]
        result: FloatArray = table[numbers]
        return result

    def resolves(self, level: float) -> bool:
        """Say whether there are enough held-out structures for a level."""
        return level <= self.n_structures / (self.n_structures + 1)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all as plain arrays; ``header`` is JSON as bytes."""
        header = {'metrics': self.metrics, 'aggregates': self.aggregates, 'n_structures': self.n_structures}
        arrays = {name: getattr(self, name) for name in ('elements', 'of_structures', 'of_elements', 'n_atoms')}
        if self.looks is not None:
            header['looks'] = self.looks.metrics
            arrays |= {name: getattr(self.looks, name) for name in _SCALE}
        return {'header': write_header(FORMAT, header), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Thresholds:
        """Build thresholds from what :meth:`to_arrays` gave."""
        header = read_header(arrays, 'the set of thresholds', FORMAT)
        names = tuple(header['metrics']), tuple(header['aggregates'])
        parts = arrays['elements'], arrays['of_structures'], arrays['of_elements']
        looks = Looks(tuple(header['looks']), *(arrays[name] for name in _SCALE)) if 'looks' in header else None
        return cls(*names, *parts, int(header['n_structures']), arrays['n_atoms'], looks)

    def _pair(self, metric: str, aggregate: str) -> tuple[int, int]:
        return self._metric(metric), self._index(self.aggregates, aggregate, 'aggregate')

    def _metric(self, metric: str) -> int:
        return self._index(self.metrics, metric, 'score')

    def _level(self, level: float) -> int:
        return self._index(LEVELS, level, 'level')

    @staticmethod
    def _index(names: Sequence[Any], name: Any, what: str) -> int:
        if name not in names:
            raise OodalError(f'{what} {name!r} has no threshold; there are {", ".join(map(str, names))}')
        return names.index(name)


@dataclass(frozen=True, eq=False)
class ErrorScale:
    """Force error that goes with a disagreement.

    :param elements: atomic numbers, ascending, shape (n_elements,).
    :param scales: rms(error) / rms(disagreement) over the held-out atoms of each element, eV/angstrom, shape
        (n_elements,); of all atoms together for elements without a label.
    :param level: share of the errors that ``factor`` times the predicted error is to cover.
    :param factor: conformal: that share of the held-out atoms has an error below ``factor`` times the predicted one.
    :param covered: share of the held-out atoms whose error is below the predicted one, so without ``factor``.
    """

    elements: IntArray
    scales: FloatArray
    level: float
    factor: float
    covered: float

    @classmethod
    def fit(
        cls, numbers: IntArray, disagreement: FloatArray, errors: FloatArray, elements: IntArray, level: float
    ) -> ErrorScale:
        """Fit to labelled atoms that were held out.

        :param numbers: shape (n,).
        :param disagreement: shape (n,).
        :param errors: length of the difference between predicted force and label, eV/angstrom, shape (n,); NaN where
            there is no label.
        :raises OodalError: if no atom has a label, or the models do not disagree about any.
        """
        labelled = np.isfinite(errors)
        if not np.any(disagreement[labelled] > 0.0):
            raise OodalError(
                'no held-out atom has both a reference force and models that disagree: leave reference_forces out'
            )
        scales = np.empty(len(elements))
        for e, z in enumerate(elements):
            atoms = labelled & (numbers == z)
            if not np.any(disagreement[atoms] > 0.0):
                atoms = labelled
            scales[e] = np.sqrt(np.mean(errors[atoms] ** 2) / np.mean(disagreement[atoms] ** 2))
        scale = cls(elements, scales, level, 1.0, 1.0)
        ratio = errors[labelled] / scale(numbers[labelled], disagreement[labelled])
        factor = float(quantiles(ratio, (level,))[0])
        return cls(elements, scales, level, factor, float(np.mean(ratio <= 1.0)))

    def __call__(self, numbers: IntArray, disagreement: FloatArray) -> FloatArray:
        """Return the predicted force error, eV/angstrom, shape (n,); infinite for elements without a scale."""
        table = np.full(max(int(self.elements.max()), int(numbers.max(initial=0))) + 1, np.inf)
        table[self.elements] = self.scales
        scale = table[numbers]
        result: FloatArray = np.where(np.isfinite(scale), disagreement, 1.0) * scale
        return result
