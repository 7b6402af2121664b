"""Latents of one set of structures under every model of an ensemble, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import (
    FINGERPRINTS_FILE,
    ISOLATED_FILE,
    NUMBERS_FILE,
    OFFSETS_FILE,
    STRUCTURE_INDEX_FILE,
)

from .rows import NpyRows, Rows, RunRows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

LATENTS_PREFIX, ENERGIES_PREFIX, FORCES_PREFIX = 'latents_', 'energies_', 'forces_'
#: Atoms of a chunk: with 4 models of 128 latents one in double precision has 8 MB; more is slower, it leaves the cache.
CHUNK_ATOMS = 2048


class Chunk(NamedTuple):
    """Some whole structures of an ensemble's latents.

    :param atoms: which atoms of the set.
    :param structures: which structures of the set.
    :param numbers: atomic numbers, shape (n,).
    :param latents: shape (n_models, n, n_features), double precision, finite.
    :param forces: shape (n_models, n, 3), eV/angstrom.
    """

    atoms: slice
    structures: slice
    numbers: IntArray
    latents: FloatArray
    forces: FloatArray | None


@dataclass(frozen=True, eq=False)
class EnsembleLatents:
    """What an ensemble computes for a set of structures; structure ``i`` owns atoms ``offsets[i]:offsets[i + 1]``.

    :param labels: of the models, e.g. ``('w1', 'w2', 'w3', 'w4')``; one alone has no scores of disagreement.
    :param numbers: atomic numbers, shape (n_atoms,).
    :param offsets: shape (n_structures + 1,), from 0 to n_atoms.
    :param structure_index: position of each structure in the set that was evaluated, shape (n_structures,).
    :param latents: for each model, rows of shape (n_atoms, n_features); read in chunks only.
    :param energies: shape (n_models, n_structures), eV.
    :param forces: for each model, rows of shape (n_atoms, 3), eV/angstrom.
    :param fingerprints: of the structures (:mod:`aiida_oodal.engine.fingerprint`), shape (n_structures, 6); None in
        latents that were made before there were any.
    :param isolated: structures that are one atom without neighbours, shape (n_structures,); None if not known.
    """

    labels: tuple[str, ...]
    numbers: IntArray
    offsets: IntArray
    structure_index: IntArray
    latents: tuple[Rows, ...]
    energies: FloatArray | None = None
    forces: tuple[Rows, ...] | None = None
    fingerprints: FloatArray | None = None
    isolated: BoolArray | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        n_models, n_atoms = len(self.labels), len(self.numbers)
        if not n_models or len(set(self.labels)) < n_models:
            raise OodalError(f'an ensemble needs one model or more, with different labels; got {list(self.labels)}')
        sizes = np.diff(self.offsets)
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != n_atoms or np.any(sizes <= 0):
            raise OodalError(f'offsets must rise from 0 to the number of atoms ({n_atoms}): the latents are damaged')
        for name in ('structure_index', 'fingerprints', 'isolated'):
            values = getattr(self, name)
            if values is not None and len(values) != len(self):
                raise OodalError(f'{len(values)} entries in {name} for {len(self)} structures')
        widths = {label: tuple(rows.shape) for label, rows in zip(self.labels, self.latents, strict=True)}
        if len({shape[1:] for shape in widths.values()}) != 1 or any(len(shape) != 2 for shape in widths.values()):
            raise OodalError(
                f'the latents of the models have shapes {widths}: models of one ensemble differ in their seed only; '
                'compute all latents with the same choice of layers'
            )
        for label, shape in widths.items():
            if shape[0] != n_atoms:
                raise OodalError(f'model {label}: latents of {shape[0]} atoms where the set has {n_atoms}')
        if self.energies is not None and self.energies.shape != (n_models, len(self)):
            raise OodalError(f'energies have shape {self.energies.shape}, not {(n_models, len(self))}')
        if self.forces is not None and any(tuple(rows.shape) != (n_atoms, 3) for rows in self.forces):
            raise OodalError(f'forces have shapes {[tuple(rows.shape) for rows in self.forces]}, not {(n_atoms, 3)}')

    @classmethod
    def from_arrays(
        cls,
        labels: Sequence[str],
        numbers: ArrayLike,
        offsets: ArrayLike,
        latents: Sequence[Rows],
        *,
        structure_index: ArrayLike | None = None,
        energies: ArrayLike | None = None,
        forces: Sequence[Rows] | None = None,
        fingerprints: FloatArray | None = None,
        isolated: BoolArray | None = None,
    ) -> EnsembleLatents:
        """Put arrays together; the parameters are those of the class, structures are numbered from 0 by default.

        :raises OodalError: if they contradict each other.
        """
        bounds = np.asarray(offsets, dtype=np.int64)
        if len(latents) != len(labels) or (forces is not None and len(forces) != len(labels)):
            raise OodalError(f'{len(labels)} labels {list(labels)} for {len(latents)} models')
        return cls(
            labels=tuple(labels),
            numbers=np.asarray(numbers, dtype=np.int64),
            offsets=bounds,
            structure_index=(
                np.arange(len(bounds) - 1) if structure_index is None else np.asarray(structure_index, dtype=np.int64)
            ),
            latents=tuple(latents),
            energies=None if energies is None else np.asarray(energies, dtype=np.float64),
            forces=None if forces is None else tuple(forces),
            fingerprints=fingerprints,
            isolated=isolated,
        )

    @classmethod
    def open(cls, folder: Path | str, labels: Sequence[str] | None = None) -> EnsembleLatents:
        """Open the folder of a ``latents`` job; nothing but offsets, numbers and energies is read yet.

        :param labels: which models, in which order; all, by name, if not given.
        :raises OodalError: if a file is missing, cut or not numeric.
        """
        folder = Path(folder)
        names = tuple(labels or sorted(p.stem.removeprefix(LATENTS_PREFIX) for p in folder.glob('latents_*.npy')))
        energies = [folder / f'{ENERGIES_PREFIX}{label}.npy' for label in names]
        forces = [folder / f'{FORCES_PREFIX}{label}.npy' for label in names]
        if not names:
            raise OodalError(f'{folder} holds no latents')
        fingerprints, isolated = folder / FINGERPRINTS_FILE, folder / ISOLATED_FILE
        return cls.from_arrays(
            names,
            NpyRows(folder / NUMBERS_FILE).read(),
            NpyRows(folder / OFFSETS_FILE).read(),
            [NpyRows(folder / f'{LATENTS_PREFIX}{label}.npy') for label in names],
            structure_index=NpyRows(folder / STRUCTURE_INDEX_FILE).read(),
            energies=np.stack([NpyRows(p).read() for p in energies]) if all(p.exists() for p in energies) else None,
            forces=[NpyRows(path) for path in forces] if all(path.exists() for path in forces) else None,
            fingerprints=NpyRows(fingerprints).read() if fingerprints.exists() else None,
            isolated=NpyRows(isolated).read() if isolated.exists() else None,
        )

    @classmethod
    def concatenate(cls, shards: Sequence[EnsembleLatents]) -> EnsembleLatents:
        """Join shards of one set, or several sets, without copying rows; ``structure_index`` is kept as it is.

        :raises OodalError: if the models differ, or only some shards have energies or forces.
        """
        if not shards:
            raise OodalError('there are no latents to join')
        first = shards[0]
        for what, differs in (
            ('models', any(shard.labels != first.labels for shard in shards)),
            ('energies', any((shard.energies is None) != (first.energies is None) for shard in shards)),
            ('forces', any((shard.forces is None) != (first.forces is None) for shard in shards)),
        ):
            if differs:
                raise OodalError(f'shards of latents differ in their {what}: compute all with the same settings')
        starts = np.cumsum([0, *(shard.n_atoms for shard in shards)])
        models = range(first.n_models)
        return cls(
            labels=first.labels,
            numbers=np.concatenate([shard.numbers for shard in shards]),
            offsets=np.concatenate(
                [[0], *(shard.offsets[1:] + start for shard, start in zip(shards, starts[:-1], strict=True))]
            ).astype(np.int64),
            structure_index=np.concatenate([shard.structure_index for shard in shards]),
            latents=tuple(RunRows([(shard.latents[k], 0, shard.n_atoms) for shard in shards]) for k in models),
            energies=(
                None
                if first.energies is None
                else np.concatenate([s.energies for s in shards if s.energies is not None], axis=1)
            ),
            forces=(
                None
                if first.forces is None
                else tuple(RunRows([(s.forces[k], 0, s.n_atoms) for s in shards if s.forces]) for k in models)
            ),
            fingerprints=_join([shard.fingerprints for shard in shards]),
            isolated=_join([shard.isolated for shard in shards]),
        )

    def select(self, structures: ArrayLike) -> EnsembleLatents:
        """Take some structures without copying rows.

        :param structures: positions in this set, ascending and without repetition.
        :raises OodalError: if they are none, not ascending or out of range.
        """
        chosen = np.asarray(structures, dtype=np.int64)
        if not len(chosen) or np.any(np.diff(chosen) <= 0) or chosen[0] < 0 or chosen[-1] >= len(self):
            raise OodalError(f'structures to take must be ascending positions in a set of {len(self)}')
        # Neighbours in the file are one run.
        breaks = np.flatnonzero(np.diff(chosen) > 1) + 1
        groups = np.split(chosen, breaks)
        runs = [(int(self.offsets[group[0]]), int(self.offsets[group[-1] + 1])) for group in groups]

        def take(rows: Rows) -> Rows:
            return RunRows([(rows, start, stop) for start, stop in runs])

        return EnsembleLatents(
            labels=self.labels,
            numbers=np.concatenate([self.numbers[start:stop] for start, stop in runs]),
            offsets=np.concatenate([[0], np.cumsum(np.diff(self.offsets)[chosen])]).astype(np.int64),
            structure_index=self.structure_index[chosen],
            latents=tuple(take(rows) for rows in self.latents),
            energies=None if self.energies is None else self.energies[:, chosen],
            forces=None if self.forces is None else tuple(take(rows) for rows in self.forces),
            fingerprints=None if self.fingerprints is None else self.fingerprints[chosen],
            isolated=None if self.isolated is None else self.isolated[chosen],
        )

    def keep_atoms(self, mask: ArrayLike) -> EnsembleLatents:
        """Take some atoms of every structure, into memory; structures that keep none are left out.

        :param mask: which atoms to keep, shape (n_atoms,).
        :raises OodalError: if it is of another number of atoms, or keeps none.
        """
        kept = np.asarray(mask, dtype=bool)
        if kept.shape != (self.n_atoms,) or not kept.any():
            raise OodalError(f'a mask of {kept.size} atoms keeps {np.count_nonzero(kept)}; the set has {self.n_atoms}')
        sizes = np.add.reduceat(kept.astype(np.int64), self.offsets[:-1])
        chosen = np.flatnonzero(sizes)

        def take(rows: Rows) -> Rows:
            found: FloatArray = np.asarray(rows[0 : self.n_atoms])[kept]
            return found

        return EnsembleLatents(
            labels=self.labels,
            numbers=self.numbers[kept],
            offsets=np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int64),
            structure_index=self.structure_index[chosen],
            latents=tuple(take(rows) for rows in self.latents),
            energies=None if self.energies is None else self.energies[:, chosen],
            forces=None if self.forces is None else tuple(take(rows) for rows in self.forces),
            fingerprints=None if self.fingerprints is None else self.fingerprints[chosen],
            isolated=None if self.isolated is None else self.isolated[chosen],
        )

    @property
    def n_models(self) -> int:
        """Models of the ensemble."""
        return len(self.labels)

    @property
    def n_features(self) -> int:
        """Latents of one atom under one model."""
        return int(self.latents[0].shape[1])

    @property
    def n_atoms(self) -> int:
        """Atoms in all structures together."""
        return len(self.numbers)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def chunks(self, n_atoms: int = CHUNK_ATOMS) -> Iterator[Chunk]:
        """Go through the set once, some whole structures at a time.

        :param n_atoms: atoms of a chunk at most, but never less than one structure.
        :raises OodalError: if latents or forces are not finite, naming model and structure.
        """
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.offsets, self.offsets[first] + n_atoms, side='right')) - 1
            last = max(last, first + 1)
            atoms = slice(int(self.offsets[first]), int(self.offsets[last]))
            yield Chunk(
                atoms,
                slice(first, last),
                self.numbers[atoms],
                self._read(self.latents, atoms, 'latents'),
                None if self.forces is None else self._read(self.forces, atoms, 'forces'),
            )
            first = last

    def _read(self, rows: Sequence[Rows], atoms: slice, name: str) -> FloatArray:
        """Read the same rows of every model, shape (n_models, n, width)."""
        values = np.empty((len(rows), atoms.stop - atoms.start, rows[0].shape[1]))
        for k, source in enumerate(rows):
            values[k] = source[atoms]
            # One sum is the cheapest look at every number; which one is at fault is asked only when one is.
            if not np.isfinite(values[k].sum()):
                self._refuse(values[k], k, atoms.start, name)
        return values

    def _refuse(self, values: NDArray[Any], model: int, start: int, name: str) -> None:
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if not len(wrong):  # a finite sum overflowed
            raise OodalError(f'{name} of model {self.labels[model]} are too large to be added up')
        atom = start + int(wrong[0])
        structure = int(np.searchsorted(self.offsets, atom, side='right')) - 1
        raise OodalError(
            f'{name} of model {self.labels[model]} are not finite in structure {self.structure_index[structure]} '
            f'(its atom {atom - self.offsets[structure]}): leave that structure out'
        )


def _join(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Join arrays of shards; None if one of them has none."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None
