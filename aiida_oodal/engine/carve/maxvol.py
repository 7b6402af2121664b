"""D-optimal choice: the candidates that enlarge the volume spanned by an active set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.carve.geometry import FloatArray
from aiida_oodal.engine.errors import OodalError

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
    if not tol >= 1.0:
        raise OodalError(f'tol is {tol}; a swap below 1 would shrink the volume')
    m = len(rows)
    cap = m if max_select is None else max_select
    # Coefficients of every row in terms of the rows of the set; the set's own are the unit vectors.
    tableau = np.vstack([rows @ active_inverse, np.eye(n)])
    gamma_before = np.abs(tableau[:m]).max(axis=1, initial=0.0)
    owner = np.arange(m, m + n)  # the row in each place of the set
    entered: dict[int, float] = {}
    for _ in range(10 * (m + n) if max_swaps is None else max_swaps):
        size = np.abs(tableau)
        if len(entered) >= cap:
            size[:m, _not_in(owner, m)] = 0.0
        row, place = divmod(int(np.argmax(size)), n)
        if size[row, place] <= tol:
            break
        entered.pop(int(owner[place]), None)
        if row < m:
            entered[row] = float(size[row, place])
        owner[place] = row
        pivot = tableau[row, place]
        change = tableau[row].copy()
        change[place] -= 1.0
        tableau -= np.outer(tableau[:, place] / pivot, change)
    return MaxvolChoice(
        indices=tuple(entered),
        gamma=np.array(list(entered.values())),
        gamma_before=gamma_before,
        gamma_after=np.abs(tableau[:m]).max(axis=1, initial=0.0),
    )


def _not_in(owner: NDArray[np.int64], m: int) -> NDArray[np.bool_]:
    """Tell which places of the set are held by original rows."""
    return owner >= m
