"""The active set of an element: the environments with respect to which gamma of all others is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiida_oodal.engine.choose.maxvol import DEFAULT_TOLERANCE, maxvol_rows, pivot_rows
from aiida_oodal.engine.errors import OodalError

from .basis import FloatArray

#: Where the training data do not reach: this share of the typical size of the functions there has gamma = 1. With it
#: two elements that meet for the first time have a gamma of about 5 well before they touch and about 30 when they do.
UNSEEN_SHARE = 0.03


@dataclass(frozen=True)
class ActiveSet:
    """An active set, ready to grade.

    :param inverse: gamma of a row ``b`` of projections is ``abs(b @ inverse).max()``; shape
        ``(n_functions, n_functions)``.
    :param rank: how many independent directions the environments span.
    :param n_environments: how many it was chosen from.
    """

    inverse: FloatArray
    rank: int
    n_environments: int


def choose_active_set(
    projections: FloatArray,
    *,
    tol: float = DEFAULT_TOLERANCE,
    max_swaps: int | None = None,
    rank_tolerance: float = 1e-12,
) -> ActiveSet:
    """Choose an active set by MaxVol among the directions that the environments span.

    Columns are first divided by their root mean square, and the environments are written in an orthonormal basis of the
    directions in which they spread. MaxVol chooses as many rows as there are such directions (gamma does not depend on
    the basis, its accuracy does). Each of the directions that are left out has a column of its own in the inverse, so
    that gamma is not blind there: it is 1 where a function is :data:`UNSEEN_SHARE` of its root mean square off; of
    functions that are 0 everywhere the typical one of all functions is taken.

    :param projections: shape ``(n_environments, n_functions)``.
    :param tol: no environment has a larger gamma.
    :param max_swaps: bound on the work.
    :param rank_tolerance: directions in which the environments spread less, relative to the largest, are left out.
    :raises OodalError: if there is no environment at all, or none that differs from an isolated atom.
    """
    n_environments, n_functions = projections.shape
    size = np.sqrt(np.mean(projections**2, axis=0)) if n_environments else np.zeros(n_functions)
    if not size.any():
        raise OodalError(
            f'none of {n_environments} environments has a neighbour within the cutoff: there is nothing to choose an '
            'active set from; add structures, check their cells, or use a larger cutoff'
        )
    size = np.where(size > 0.0, size, np.median(size[size > 0.0]))
    # All directions are needed, those that are not spanned, too; few environments are filled up with zeros for that.
    filled = np.zeros((max(n_environments, n_functions), n_functions))
    np.divide(projections, size, out=filled[:n_environments])
    orthonormal, triangle = np.linalg.qr(filled)
    left, spread, right = np.linalg.svd(triangle)
    rank = int(np.count_nonzero(spread > rank_tolerance * spread[0]))
    coordinates = orthonormal[:n_environments] @ left[:, :rank]
    start = pivot_rows(projections) if rank == n_functions else None
    rows = maxvol_rows(coordinates, tol=tol, max_swaps=max_swaps, start=start)
    spanned = (right[:rank].T / spread[:rank]) @ np.linalg.inv(coordinates[rows])
    unseen = right[rank:].T / UNSEEN_SHARE
    return ActiveSet(np.ascontiguousarray(np.hstack([spanned, unseen]) / size[:, np.newaxis]), rank, n_environments)
