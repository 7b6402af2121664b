"""Where to cut: the worst atoms of a snapshot, at a distance from each other."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import Lattice, Region, images_inside


def worst_centres(
    snapshot: Atoms,
    gamma: ArrayLike | None = None,
    *,
    gamma_min: float,
    max_centres: int,
    min_separation: float,
    gamma_ceiling: float = np.inf,
) -> list[int]:
    """Choose the atoms with the largest gamma, none closer to another than a given distance.

    Greedy: the worst atom first, then the worst one outside the neighbourhoods of those taken. Distances are to the
    nearest periodic image. Atoms with the same gamma are taken in the order of the snapshot.

    :param snapshot: any cell, any mix of periodic axes.
    :param gamma: grade or score of each atom, shape (n_atoms,), larger is worse; ``snapshot.arrays['gamma']`` when
        not given.
    :param gamma_min: atoms at or below it are no centres.
    :param max_centres: take at most so many.
    :param min_separation: angstrom; twice the core radius keeps cores from overlapping, 0 allows all.
    :param gamma_ceiling: atoms above it are no centres: a grade that large says that the frame is not physical there.
    :return: indices, worst first.
    :raises OodalError: when there is no gamma, or it has the wrong shape or is not a number for some atom.
    """
    grade = _gamma_of(snapshot, gamma)
    if max_centres < 1:
        raise OodalError(f'max_centres is {max_centres}; it must be at least 1')
    if not min_separation >= 0:
        raise OodalError(f'min_separation is {min_separation} angstrom; it must be at least 0')
    lattice = Lattice.of(snapshot)
    candidates = np.flatnonzero((grade > gamma_min) & (grade <= gamma_ceiling))
    candidates = candidates[np.argsort(-grade[candidates], kind='stable')]
    # Ascending indices are not needed by the search: it returns rows of what it is given.
    positions = np.asarray(snapshot.positions[candidates], dtype=np.float64)
    free = np.ones(len(candidates), dtype=bool)
    chosen: list[int] = []
    for row, atom in enumerate(candidates.tolist()):
        if len(chosen) == max_centres:
            break
        if free[row]:
            chosen.append(atom)
            near, _ = images_inside(positions, lattice, positions[row], Region('sphere', min_separation))
            free[near] = False
    return chosen


def _gamma_of(snapshot: Atoms, gamma: ArrayLike | None) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if gamma is None:
        if 'gamma' not in snapshot.arrays:
            raise OodalError(
                f"the snapshot has no per-atom array 'gamma' (it has {sorted(snapshot.arrays)}); pass the grades or "
                'run MD with a potential that reports them'
            )
        gamma = snapshot.arrays['gamma']
    grade = np.asarray(gamma, dtype=np.float64)
    if grade.shape not in ((len(snapshot),), (len(snapshot), 1)):
        raise OodalError(
            f'gamma has shape {grade.shape} for a snapshot of {len(snapshot)} atoms; one number per atom is needed'
        )
    grade = grade.reshape(len(snapshot))
    if np.isnan(grade).any():
        raise OodalError(f'gamma of atom {int(np.flatnonzero(np.isnan(grade))[0])} is not a number')
    return grade
