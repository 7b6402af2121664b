"""How close atoms are to each other on average: what tells condensed matter from vapour, in any cell."""

from __future__ import annotations

import numpy as np

from .geometry import FloatArray, IntArray


def measure_crowding(centres: IntArray, distances: FloatArray, n_atoms: int, cutoff: float) -> tuple[IntArray, float]:
    """Count neighbours, and find out how crowded a structure is.

    A plain number of neighbours is no density: a crystal that expands loses whole shells of them at once at the cutoff.
    Therefore a neighbour at distance r counts by (1 - (r / cutoff)^2)^2 in the mean.

    :param centres: atom that each pair belongs to, shape (n_pairs,); each pair is there from both sides.
    :param distances: shape (n_pairs,), angstrom, not above the cutoff.
    :return: neighbours of each atom, shape (n_atoms,), and the weighted mean number per atom.
    """
    weights = (1.0 - (distances / cutoff) ** 2) ** 2
    return np.bincount(centres, minlength=n_atoms), float(weights.sum() / n_atoms)
