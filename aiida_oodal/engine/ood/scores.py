"""Scores of a set of structures: per atom, per structure, and above which thresholds. Larger is further out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.calibration import Thresholds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

#: Every score, and what a user should know of it.
METRICS = {
    'variance': (
        'variance over models of the raw latents, mean over latents: the original definition. Known flaw: the latents '
        'of independently trained models have unrelated bases, so it measures the norm of the latents, which is mostly '
        'the element, and can rank sets the wrong way round; use aligned_variance'
    ),
    'aligned_variance': (
        'disagreement over models of whitened and aligned latents: root of the variance, in units of the spread of the '
        'reference set (the default)'
    ),
    'predicted_error': 'aligned_variance turned into a force error by labelled held-out structures, eV/angstrom',
    'mahalanobis': 'distance from the atoms of the same element in the reference set, mean over models',
    'gmm': 'negative log-likelihood of the aligned consensus under a Gaussian mixture of the element, per latent',
    'knn': 'distance of the aligned consensus from the nearest reference atoms of the element',
    'force_std': 'standard deviation over models of a force component, eV/angstrom',
    'energy_std': (
        'standard deviation over models of the energy per atom, eV, without what is constant for a composition; one '
        'number for a structure'
    ),
}
#: How the numbers of the atoms become one of the structure: a global shift, the worst atom, a local event.
AGGREGATES = ('mean', 'max', 'p95')


@dataclass(frozen=True, eq=False)
class OodScores:
    """Scores of a set of structures against one reference set.

    :param labels: models of the ensemble.
    :param numbers: atomic numbers, shape (n_atoms,).
    :param offsets: shape (n_structures + 1,).
    :param structure_index: position of each structure in the set that was evaluated, shape (n_structures,).
    :param per_atom: for each metric but ``energy_std``, shape (n_atoms,).
    :param per_structure: for each metric and each of :data:`AGGREGATES` (``energy_std``: ``mean`` only), shape
        (n_structures,).
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

    def atom_flags(self, metric: str, level: float = 0.95) -> BoolArray:
        """Say which atoms are above the threshold of held-out atoms of their element, shape (n_atoms,)."""
        if metric not in self.per_atom:
            raise OodalError(f'there is no {metric!r} per atom, only {", ".join(self.per_atom)}')
        result: BoolArray = self.per_atom[metric] > self.thresholds.of_atoms(metric, level, self.numbers)
        return result

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
        arrays: dict[str, NDArray[Any]] = {'header': np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
        arrays |= {name: getattr(self, name) for name in ('numbers', 'offsets', 'structure_index')}
        arrays |= {f'atoms__{name}': values for name, values in self.per_atom.items()}
        for name, kinds in self.per_structure.items():
            arrays |= {f'structures__{name}__{kind}': values for kind, values in kinds.items()}
        return arrays | {f'thresholds__{name}': values for name, values in self.thresholds.to_arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> OodScores:
        """Build scores from what :meth:`to_arrays` gave.

        :raises OodalError: if something is missing.
        """
        try:
            header = json.loads(np.asarray(arrays['header']).tobytes())
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
                thresholds=Thresholds.from_arrays(_strip(arrays, 'thresholds__')),
            )
        except (KeyError, ValueError) as error:
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


def _strip(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
