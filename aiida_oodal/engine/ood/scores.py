"""Scores of a set of structures: per atom, per structure, and above which thresholds. Larger is further out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.arrays import read_header, take_prefix, write_header
from aiida_oodal.engine.errors import OodalError

from .calibration import FORMAT, Thresholds
from .looks import EITHER, OVERALL

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

#: How the numbers of the atoms become one of the structure: a global shift, the worst atom, a local event.
AGGREGATES = ('mean', 'max', 'p95')
#: How messages call the looks that a verdict is made of.
LOOK_NAMES = {'mean': 'by the mean over its atoms', 'max': 'by its worst atom'}


@dataclass(frozen=True)
class Look:
    """One number of a structure that is above its limit.

    :param metric: name of the score.
    :param aggregate: from atoms to the structure: one of ``LOOKS``.
    :param value: in the unit of the score.
    :param limit: what it is above.
    """

    metric: str
    aggregate: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f'{self.metric} {self.value:.3g} {LOOK_NAMES[self.aggregate]} (limit {self.limit:.3g})'


@dataclass(frozen=True, eq=False)
class OodScores:
    """Scores of a set of structures against one reference set.

    :param labels: models of the ensemble.
    :param numbers: atomic numbers, shape (n_atoms,).
    :param offsets: shape (n_structures + 1,).
    :param structure_index: position of each structure in the set that was evaluated, shape (n_structures,).
    :param per_atom: for each metric but ``energy_std``, shape (n_atoms,).
    :param per_structure: for each metric, each of :data:`AGGREGATES` (``energy_std``: ``mean`` only) and ``either``,
        shape (n_structures,); for ``overall``, ``either`` alone. See :class:`.Looks` for the last two.
    :param thresholds: of the reference set's held-out structures.
    """

    labels: tuple[str, ...]
    numbers: IntArray
    offsets: IntArray
    structure_index: IntArray
    per_atom: Mapping[str, FloatArray]
    per_structure: Mapping[str, Mapping[str, FloatArray]]
    thresholds: Thresholds

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that are there."""
        return tuple(self.per_structure)

    def of(self, metric: str, aggregate: str = 'mean') -> FloatArray:
        """Return one number a structure, shape (n_structures,).

        :raises OodalError: if the metric was not computed or has no such aggregate.
        """
        values = self.per_structure.get(metric, {})
        if aggregate not in values:
            there = ', '.join(f'{name} ({"/".join(kinds)})' for name, kinds in self.per_structure.items())
            raise OodalError(f'there is no {metric!r} by {aggregate!r} among the scores: {there}')
        return values[aggregate]

    def flags(self, metric: str, aggregate: str = 'mean', level: float = 0.95) -> BoolArray:
        """Say which structures are above the threshold of the held-out structures, shape (n_structures,)."""
        result: BoolArray = self.of(metric, aggregate) > self.thresholds.structure(metric, aggregate, level)
        return result

    @property
    def verdict(self) -> tuple[str, str]:
        """The score and the aggregate by which a structure is called out."""
        if OVERALL in self.per_structure:
            return OVERALL, EITHER
        judges = [name for name, _ in self.thresholds.pairs(OVERALL) if name in self.per_structure]
        metric = (judges or list(self.per_structure))[0]
        return metric, EITHER if EITHER in self.per_structure[metric] else 'mean'

    def looks_above(self, metric: str = OVERALL, level: float = 0.95) -> list[list[Look]]:
        """Say for each structure which scores, by the mean or by the worst atom, are above their limits.

        :param metric: a score for its own two looks, or ``overall`` for those of disagreement and distance together.
        :return: n_structures lists, the look that is furthest above its limit first; empty for one that is not out.
        """
        thresholds, looks = self.thresholds, self.thresholds.looks
        found: list[list[tuple[float, Look]]] = [[] for _ in range(len(self))]
        for name, kind in thresholds.pairs(metric):
            values = self.per_structure.get(name, {}).get(kind, np.empty(0))
            limit = thresholds.limit(name, kind, level, metric)
            excess = values if looks is None else looks.excess(name, kind, values)
            for i in np.flatnonzero(values > limit):
                found[i].append((float(excess[i]), Look(name, kind, float(values[i]), limit)))
        return [[look for _, look in sorted(own, key=lambda pair: -pair[0])] for own in found]

    def count_flagged(self, metrics: Sequence[str], level: float = 0.95) -> dict[str, int]:
        """Count the structures above the threshold of each score, by either look, as far as the scores are there."""
        there = [name for name in metrics if name in self.per_structure]
        kinds = {name: EITHER if EITHER in self.per_structure[name] else 'mean' for name in there}
        return {name: int(np.count_nonzero(self.flags(name, kind, level))) for name, kind in kinds.items()}

    def take(self, positions: IntArray) -> OodScores:
        """Return the scores of some structures.

        :param positions: among the scored structures, in the order wanted.
        """
        chosen = np.asarray(positions, dtype=np.int64)
        atoms = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(*self.offsets[i : i + 2]) for i in chosen)])
        return replace(
            self,
            numbers=self.numbers[atoms],
            offsets=np.concatenate([[0], np.cumsum(np.diff(self.offsets)[chosen])]).astype(np.int64),
            structure_index=self.structure_index[chosen],
            per_atom={name: values[atoms] for name, values in self.per_atom.items()},
            per_structure={
                name: {kind: values[chosen] for kind, values in kinds.items()}
                for name, kinds in self.per_structure.items()
            },
        )

    @classmethod
    def concatenate(cls, shards: Sequence[OodScores]) -> OodScores:
        """Join the scores of shards of one set that were scored against one reference.

        :raises OodalError: if the metrics differ.
        """
        first = shards[0]
        if any(shard.metrics != first.metrics or shard.labels != first.labels for shard in shards):
            raise OodalError('shards of scores differ in their models or metrics: score all with the same settings')
        starts = np.cumsum([0, *(len(shard.numbers) for shard in shards)])
        return cls(
            labels=first.labels,
            numbers=np.concatenate([shard.numbers for shard in shards]),
            offsets=np.concatenate(
                [[0], *(shard.offsets[1:] + start for shard, start in zip(shards, starts[:-1], strict=True))]
            ).astype(np.int64),
            structure_index=np.concatenate([shard.structure_index for shard in shards]),
            per_atom={name: np.concatenate([shard.per_atom[name] for shard in shards]) for name in first.per_atom},
            per_structure={
                name: {kind: np.concatenate([shard.per_structure[name][kind] for shard in shards]) for kind in kinds}
                for name, kinds in first.per_structure.items()
            },
            thresholds=first.thresholds,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all as plain arrays, as :meth:`from_arrays` takes them; ``header`` is JSON as bytes."""
        header = {'labels': self.labels, 'metrics': {name: list(kinds) for name, kinds in self.per_structure.items()}}
        arrays: dict[str, NDArray[Any]] = {'header': write_header(FORMAT, header)}
        arrays |= {name: getattr(self, name) for name in ('numbers', 'offsets', 'structure_index')}
        arrays |= {f'atoms__{name}': values for name, values in self.per_atom.items()}
        for name, kinds in self.per_structure.items():
            arrays |= {f'structures__{name}__{kind}': values for kind, values in kinds.items()}
        return arrays | {f'thresholds__{name}': values for name, values in self.thresholds.to_arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> OodScores:
        """Build scores from what :meth:`to_arrays` gave.

        :raises OodalError: if something is missing, or a newer version wrote it.
        """
        header = read_header(arrays, 'the set of scores', FORMAT)
        try:
            return cls(
                labels=tuple(header['labels']),
                numbers=arrays['numbers'],
                offsets=arrays['offsets'],
                structure_index=arrays['structure_index'],
                per_atom={name: arrays[f'atoms__{name}'] for name in header['metrics'] if f'atoms__{name}' in arrays},
                per_structure={
                    name: {kind: arrays[f'structures__{name}__{kind}'] for kind in kinds}
                    for name, kinds in header['metrics'].items()
                },
                thresholds=Thresholds.from_arrays(take_prefix(arrays, 'thresholds__')),
            )
        except (KeyError, TypeError) as error:
            raise OodalError(f'the scores are damaged or of another kind ({error!r})') from error


def aggregate(values: FloatArray, offsets: IntArray) -> dict[str, FloatArray]:
    """Turn numbers of atoms into numbers of structures.

    :param values: shape (n_atoms,); infinite ones are allowed.
    :param offsets: shape (n_structures + 1,).
    :return: mean, largest and 95th percentile, each of shape (n_structures,).
    """
    if len(offsets) < 2:
        return {name: np.empty(0) for name in AGGREGATES}
    sizes, starts = np.diff(offsets), offsets[:-1]
    ordered = values[np.lexsort((values, np.repeat(np.arange(len(sizes)), sizes)))]
    position = 0.95 * (sizes - 1)
    below = np.floor(position).astype(np.int64)
    low, high = ordered[starts + below], ordered[starts + np.minimum(below + 1, sizes - 1)]
    share = position - below
    # Not low + share * (high - low): the difference of two infinite numbers is none.
    with np.errstate(invalid='ignore'):
        p95 = np.where((share == 0.0) | (low == high), low, (1.0 - share) * low + share * high)
    return {'mean': np.add.reduceat(values, starts) / sizes, 'max': np.maximum.reduceat(values, starts), 'p95': p95}
