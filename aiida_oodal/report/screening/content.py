"""What a page or a figure of a screening shows, as plain values: scores, structures, labels, nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.analysis.maps import sample_sets
from aiida_oodal.engine.analysis.quadrants import flag_judges
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.looks import EITHER, JUDGES, OVERALL
from aiida_oodal.engine.ood.scores import OodScores
from aiida_oodal.engine.structures import StructureSet

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Role = Literal['target', 'reference', 'heldout']


@dataclass(frozen=True)
class NodeId:
    """Which node something is: ``kind`` is its class, ``pk`` its number in this profile, ``uuid`` its name anywhere."""

    kind: str
    pk: int
    uuid: str

    def __str__(self) -> str:
        return f'{self.kind} {self.pk} ({self.uuid})'


@dataclass(frozen=True, eq=False)
class ViewedSet:
    """One set of structures: a target, or a set that a reference was made from.

    :param name: what to call it.
    :param scores: by name of the reference, of the same structures in the same order.
    :param consensus: by name of the reference, aligned consensus of the structures ``shown``, shape
        (n_shown, n_features).
    :param shown: positions among the scored structures that are drawn one by one, ascending; all if not given.
    :param structures: the set that was evaluated; scored structure ``i`` is its number ``structure_index[i]``.
    :param role: ``target``; ``reference``: the models were trained on it; ``heldout``: it set the thresholds.
    :param nodes: by what each is for: ``structures``, ``scores A``, ...
    :param candidates: position among the scored structures and why it was taken, in the order of preference.
    :param force_errors: length of the error of the mean force of the ensemble, eV/angstrom, shape (n_atoms,); NaN where
        there is no label.
    :param energy_errors: absolute error of its mean energy, eV per atom, shape (n_structures,); NaN without a label.
    :param note: a sentence for the reader, e.g. that only a part of the set was scored.
    """

    name: str
    scores: Mapping[str, OodScores]
    consensus: Mapping[str, FloatArray] = field(default_factory=dict)
    shown: IntArray | None = None
    structures: StructureSet | None = None
    role: Role = 'target'
    nodes: Mapping[str, NodeId] = field(default_factory=dict)
    candidates: Mapping[int, str] = field(default_factory=dict)
    force_errors: FloatArray | None = None
    energy_errors: FloatArray | None = None
    note: str = ''

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if not self.scores:
            raise OodalError(f'{self.name}: scores against one reference at least are needed')
        for name, scores in self.scores.items():
            if not np.array_equal(scores.offsets, self.first.offsets):
                raise OodalError(
                    f'{self.name}: the scores against {name!r} are of other structures than the first ones'
                )
        rows = len(self.positions)
        checks: list[tuple[str, Any, int]] = [(f'consensus {n!r}', x, rows) for n, x in self.consensus.items()]
        checks += [('force_errors', self.force_errors, len(self.first.numbers))]
        checks += [('energy_errors', self.energy_errors, len(self))]
        for name, values, expected in checks:
            if values is not None and len(values) != expected:
                raise OodalError(f'{self.name}: {name} has {len(values)} entries where {expected} are needed')
        last = int(self.first.structure_index.max(initial=-1))
        if self.structures is not None and last >= len(self.structures):
            raise OodalError(f'{self.name}: structure {last} was scored, but the set holds {len(self.structures)}')

    def __len__(self) -> int:
        return len(self.first)

    @property
    def first(self) -> OodScores:
        """The scores against the first reference."""
        return next(iter(self.scores.values()))

    @property
    def positions(self) -> IntArray:
        """Positions among the scored structures that are drawn, shape (n_shown,)."""
        return np.arange(len(self)) if self.shown is None else self.shown

    @cached_property
    def errors(self) -> dict[str, FloatArray]:
        """True error of each structure by what it is, with its unit; NaN where there is no label."""
        found = {}
        if self.force_errors is not None:
            starts, sizes = self.first.offsets[:-1], np.diff(self.first.offsets)
            found['force error [eV/Å]'] = np.sqrt(np.add.reduceat(self.force_errors**2, starts) / sizes)
        if self.energy_errors is not None:
            found['energy error [eV/atom]'] = self.energy_errors
        return {name: values for name, values in found.items() if np.isfinite(values).any()}

    def show(self, positions: IntArray) -> ViewedSet:
        """Draw only some of the structures that are drawn now."""
        rows = np.searchsorted(self.positions, positions)
        return replace(self, shown=positions, consensus={name: x[rows] for name, x in self.consensus.items()})


@dataclass(frozen=True, eq=False)
class ScreenView:
    """A screening: sets, the references they were scored against, and how to judge.

    :param sets: in the order in which they are listed.
    :param title: of the page.
    :param nodes: of the screening itself, as in :class:`ViewedSet`.
    :param notes: by name of the reference, what a user of its thresholds should read.
    :param aggregate: from atoms to structures, for tables and quadrants.
    :param level: share of the held-out structures below the threshold that makes a structure out.
    """

    sets: Sequence[ViewedSet]
    title: str = 'What the models do not know'
    nodes: Mapping[str, NodeId] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aggregate: str = EITHER
    level: float = 0.95

    def __post_init__(self) -> None:
        """Refuse a view of nothing."""
        names = [entry.name for entry in self.sets]
        if not self.targets or len(set(names)) < len(names):
            raise OodalError(f'a screening shows one target or more, all sets with different names; got {names}')

    @property
    def references(self) -> tuple[str, ...]:
        """Names of all references, in the order in which the sets name them."""
        return tuple(dict.fromkeys(name for entry in self.sets for name in entry.scores))

    @property
    def targets(self) -> list[ViewedSet]:
        """The sets that were screened."""
        return [entry for entry in self.sets if entry.role == 'target']

    def metrics(self, reference: str) -> tuple[str, ...]:
        """Names of the scores that every set scored against a reference has; those that decide first."""
        each = [scores.metrics for _, scores in self.scored(reference)]
        there = [name for name in each[0] if all(name in names for names in each)]
        first = [name for name in (OVERALL, *JUDGES) if name in there]
        # The raw variance is known to be flawed: it is the last that one should look at.
        return tuple(first + sorted((name for name in there if name not in first), key=lambda name: name == 'variance'))

    def judged_by(self, reference: str) -> list[str]:
        """Names of the scores that decide whether a structure is out, the verdict first."""
        there = self.metrics(reference)
        return [name for name in (OVERALL, *JUDGES) if name in there] or [there[0]]

    def scored(self, reference: str) -> Iterator[tuple[ViewedSet, OodScores]]:
        """Go through the sets that were scored against a reference."""
        return ((entry, entry.scores[reference]) for entry in self.sets if reference in entry.scores)

    def in_distribution(self, reference: str) -> ViewedSet | None:
        """Return the set that other sets are compared to: the one that was held out."""
        return next((entry for entry, _ in self.scored(reference) if entry.role == 'heldout'), None)

    def is_out(self, entry: ViewedSet, reference: str) -> NDArray[np.bool_]:
        """Say which structures of a set are above the threshold of disagreement or distance, shape (n_structures,)."""
        flags = flag_judges(entry.scores[reference], self.aggregate, self.level)
        if flags:
            return np.asarray(np.any(list(flags.values()), axis=0))
        return entry.scores[reference].flags(*entry.scores[reference].verdict, self.level)

    def aggregate_of(self, entry: ViewedSet, reference: str, metric: str) -> str:
        """Return the way from atoms to structures for a score; some have one only."""
        kinds = entry.scores[reference].per_structure[metric]
        return self.aggregate if self.aggregate in kinds else next(iter(kinds))

    def sampled(self, n: int, seed: int = 0) -> ScreenView:
        """Draw ``n`` structures at most, shared fairly among the sets; candidates come first."""
        sizes = [len(entry.positions) for entry in self.sets]
        if sum(sizes) <= n:
            return self
        keep = [np.flatnonzero(np.isin(entry.positions, list(entry.candidates))) for entry in self.sets]
        chosen = sample_sets(sizes, n, keep=keep, seed=seed)
        drawn = (entry.show(entry.positions[rows]) for entry, rows in zip(self.sets, chosen, strict=True))
        return replace(self, sets=tuple(drawn))
