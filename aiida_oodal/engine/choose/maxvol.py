"""D-optimal choice: the rows of a matrix that span the largest volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import FloatArray, IntArray

#: A swap must enlarge the volume by more than this factor. The same as pyace uses for active sets.
DEFAULT_TOLERANCE = 1.001


@dataclass(frozen=True)
class MaxvolChoice:
    """What MaxVol made of the candidates.

    :param indices: candidates in the new active set, in the order in which they entered it.
    :param gamma: of each when it entered, against the set of that moment, shape (n_chosen,).
    :param gamma_before: of every candidate against the given active set, shape (n_candidates,).
    :param gamma_after: of every candidate against the new one, shape (n_candidates,). At most the tolerance, unless a
        cap or the limit of swaps stopped the search; 1 for those chosen.
    """

    indices: tuple[int, ...]
    gamma: FloatArray
    gamma_before: FloatArray
    gamma_after: FloatArray


def pivot_rows(matrix: FloatArray) -> IntArray | None:
    """Return as many linearly independent rows as there are columns: the pivots of an LU factorisation.

    :param matrix: shape (m, n) with m >= n.
    :return: row numbers in the order of the columns, shape (n,); None if the columns are linearly dependent.
    """
    m, n = matrix.shape
    if n == 0:
        return np.empty(0, dtype=np.int64)
    _, pivots, info = lapack.dgetrf(matrix)
    order = np.arange(m)
    for place, pivot in enumerate(pivots):
        order[[place, pivot]] = order[[pivot, place]]
    return None if info else order[:n]


def maxvol_rows(
    matrix: FloatArray,
    *,
    tol: float = DEFAULT_TOLERANCE,
    max_swaps: int | None = None,
    start: IntArray | None = None,
) -> IntArray:
    """Choose as many rows as there are columns, such that no row has a coefficient above ``tol`` in terms of them.

    The search swaps as :func:`maxvol_select` does (Goreinov et al., 2010).

    :param matrix: of full column rank, shape (m, n) with m >= n. The coefficients do not depend on the basis of the
        columns, their accuracy does: orthonormal columns are best.
    :param tol: at least 1, dimensionless.
    :param max_swaps: bound on the work; 10 times the number of rows when not given.
    :param start: rows to begin with, shape (n,); :func:`pivot_rows` when not given.
    :return: row numbers, ascending, shape (n,).
    :raises OodalError: on wrong shapes, numbers that are not finite, or linearly dependent columns.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < rows.shape[1]:
        raise OodalError(f'MaxVol needs at least as many rows as columns, got the shape {rows.shape}')
    if not np.isfinite(rows).all():
        raise OodalError('the rows hold numbers that are not finite')
    owner = pivot_rows(rows) if start is None else start.copy()
    if owner is None:
        raise OodalError('the columns are linearly dependent: project out what they do not span first')
    tableau = np.ascontiguousarray(np.linalg.solve(rows[owner].T, rows.T).T)
    _exchange(tableau, owner, tol, 10 * len(rows) if max_swaps is None else max_swaps)
    return np.sort(owner)


def maxvol_select(
    active_inverse: FloatArray,
    candidates: FloatArray,
    *,
    tol: float = DEFAULT_TOLERANCE,
    max_select: int | None = None,
    max_swaps: int | None = None,
) -> MaxvolChoice:
    """Choose the candidates that belong into the active set.

    MaxVol (Goreinov et al., 2010; for active sets Podryabinkin and Shapeev, Comput. Mater. Sci. 140, 171 (2017)) on
    the rows of the active set and the candidates together, starting from the active set: the row with the largest
    gamma replaces the row of the set for which it stands in, as long as gamma, the factor by which that enlarges the
    volume, is above ``tol``. A candidate that a later one makes needless leaves again, and rows of the original set
    may come back.

    With ``max_select`` the number of candidates in the set never exceeds it: once it is reached, a candidate can only
    take the place of another one. The tableau of coefficients is updated in place, at the price of one outer product
    a swap.

    :param active_inverse: inverse of the active set, as in an ``.asi`` file, shape (n_functions, n_functions).
    :param candidates: projections, shape (n_candidates, n_functions).
    :param tol: at least 1, dimensionless.
    :param max_select: cap on the number chosen.
    :param max_swaps: bound on the work; 10 times the number of functions and candidates when not given.
    :raises OodalError: on wrong shapes, or numbers that are not finite.
    """
    n = len(active_inverse)
    rows = np.asarray(candidates, dtype=np.float64)
    if np.shape(active_inverse) != (n, n) or rows.ndim != 2 or rows.shape[1] != n:
        raise OodalError(
            f'the inverse active set has shape {np.shape(active_inverse)} and the candidates {rows.shape}; '
            '(n, n) and (m, n) are needed: are they of the same potential and element?'
        )
    if not (np.isfinite(rows).all() and np.isfinite(active_inverse).all()):
        raise OodalError('the projections or the inverse active set hold numbers that are not finite')
    m = len(rows)
    cap = m if max_select is None else max_select
    # Coefficients of every row in terms of the rows of the set; the set's own are the unit vectors.
    tableau = np.vstack([rows @ active_inverse, np.eye(n)])
    gamma_before = np.abs(tableau[:m]).max(axis=1, initial=0.0)
    owner = np.arange(m, m + n)  # the row in each place of the set
    entered: dict[int, float] = {}

    def keep_count(row: int, replaced: int, gamma: float) -> None:
        entered.pop(replaced, None)
        if row < m:
            entered[row] = gamma

    def forbid(size: FloatArray) -> None:
        if len(entered) >= cap:
            size[:m, owner >= m] = 0.0

    _exchange(tableau, owner, tol, 10 * (m + n) if max_swaps is None else max_swaps, forbid, keep_count)
    return MaxvolChoice(
        indices=tuple(entered),
        gamma=np.array(list(entered.values())),
        gamma_before=gamma_before,
        gamma_after=np.abs(tableau[:m]).max(axis=1, initial=0.0),
    )


def _exchange(
    tableau: FloatArray,
    owner: NDArray[np.int64],
    tol: float,
    max_swaps: int,
    forbid: Callable[[FloatArray], None] = lambda _: None,
    swapped: Callable[[int, int, float], None] = lambda *_: None,
) -> None:
    """Swap rows into the set while one has a coefficient above ``tol``; change tableau and owner in place.

    :param tableau: coefficients of every row in terms of the rows of the set, shape (m, n).
    :param owner: the row in each place of the set, shape (n,).
    :param forbid: may zero the sizes of swaps that are not allowed.
    :param swapped: told of each swap: the row that enters, the row that leaves, and gamma.
    """
    if not tol >= 1.0:
        raise OodalError(f'tol is {tol}; a swap below 1 would shrink the volume')
    n = tableau.shape[1]
    size = np.empty_like(tableau)
    for _ in range(max_swaps):
        np.abs(tableau, out=size)
        forbid(size)
        row, place = divmod(int(np.argmax(size)), n)
        if size[row, place] <= tol:
            break
        swapped(row, int(owner[place]), float(size[row, place]))
        owner[place] = row
        pivot = tableau[row, place]
        change = tableau[row].copy()
        change[place] -= 1.0
        tableau -= np.outer(tableau[:, place] / pivot, change)
