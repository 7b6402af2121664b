"""What all ways to choose among graded candidates share: refusals with their reasons, duplicates, spread."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import FloatArray

from .spread import deduplicate, farthest_points, kmeans_points

__all__ = ['Pool', 'Spread']

#: Ways to choose by the distance between descriptors.
Spread = Literal['farthest', 'kmeans']


@dataclass
class Pool:
    """Graded candidates that are refused one after another, each with its reason, until a choice is made.

    :param grade: of each candidate, larger is more wanted, shape (n,).
    :param noun: what messages call a candidate.
    :param reasons: of the candidates that were refused so far.
    :raises OodalError: if a grade is not a number.
    """

    grade: FloatArray
    noun: str = 'candidate'
    reasons: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.ndim(self.grade) != 1 or np.isnan(self.grade).any():
            raise OodalError(
                f'grades have shape {np.shape(self.grade)} or are not numbers; one number a {self.noun} is needed'
            )

    @property
    def members(self) -> list[int]:
        """The candidates that are left, the most wanted first."""
        return [int(i) for i in np.argsort(-self.grade, kind='stable') if int(i) not in self.reasons]

    def refuse(self, which: NDArray[np.bool_] | Mapping[int, Any], reason: str | None = None) -> None:
        """Refuse candidates; of one that is refused already the first reason stays.

        :param which: shape (n,), with one ``reason`` for all, or a reason for each index.
        """
        found = which if isinstance(which, Mapping) else dict.fromkeys(np.flatnonzero(which).tolist(), reason)
        for index, why in found.items():
            self.reasons.setdefault(int(index), str(why))

    def refuse_duplicates(
        self,
        points: FloatArray | Mapping[int, FloatArray],
        tolerance: float,
        *,
        known: FloatArray | None = None,
        relative: bool = False,
        among: Collection[int] | None = None,
    ) -> None:
        """Refuse what is near something that is known, or near a candidate that is more wanted.

        :param points: descriptor of each candidate, shape (n, n_features), or by index.
        :param tolerance: largest distance between duplicates; 0 for equal descriptors only.
        :param known: descriptors of what is known, shape (n_known, n_features).
        :param relative: measure the distance in units of the longer vector.
        :param among: only these are compared, with each other; all if not given.
        """
        members = [i for i in self.members if among is None or i in among]
        if not members:
            return
        found = deduplicate(np.array([points[i] for i in members]), known, tolerance=tolerance, relative=relative)
        for index, duplicate in zip(members, found, strict=True):
            if duplicate is not None:
                known_one = f'known structure {duplicate.of}'
                other = known_one if duplicate.known else f'{self.noun} {members[duplicate.of]}'
                self.reasons[index] = f'within {duplicate.distance:.3g} of {other} (tolerance {tolerance:g})'

    def spread(
        self, points: FloatArray, n: int, method: Spread, *, known: FloatArray | None = None, seed: int = 0
    ) -> dict[int, float]:
        """Choose some of the candidates that are left by the distance between their descriptors.

        :param points: descriptor of each candidate, shape (n_candidates, n_features).
        :param n: how many at most.
        :param method: ``farthest``: one by one, each the farthest from those that are known or chosen; ``kmeans``: the
            middle of each of ``n`` groups.
        :param seed: of K-means.
        :return: index -> distance: from the nearest one before it, or from the centre of its group; ``farthest`` in the
            order in which they were chosen, ``kmeans`` the most wanted first.
        """
        members = self.members
        if not members:
            return {}
        rows = np.asarray(points)[members]
        chosen = farthest_points(rows, n, known) if method == 'farthest' else kmeans_points(rows, n, seed=seed)
        return {members[row]: distance for row, distance in chosen}
