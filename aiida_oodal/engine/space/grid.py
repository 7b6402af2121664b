"""Regions around many centres at once, at close to the price of one pass over the positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat

import numpy as np

from .geometry import (
    CHUNK,
    FloatArray,
    IntArray,
    Lattice,
    Region,
    images_inside,
    images_of,
)

_MAX_BINS_PER_AXIS = 96
#: Centres whose surroundings are looked at in one go: calls of numpy cost more than the few hundred atoms near each.
_TOGETHER = 64
#: So few positions are all near: a grid costs more than it leaves out.
_FEW = 300


def images_inside_each(
    positions: FloatArray, lattice: Lattice, centres: FloatArray, region: Region
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Do :func:`images_inside` for many centres at close to the price of one pass over the positions.

    :param positions: shape (n_atoms, 3) in angstrom.
    :param lattice: the periodicity of the positions.
    :param centres: shape (n_centres, 3) in angstrom.
    :param region: what to look into around each centre.
    :return: for each centre in turn what :func:`images_inside` returns.
    """
    if len(centres) <= 1:  # no grid needed
        yield from (images_inside(positions, lattice, centre, region) for centre in centres)
        return
    near, first = _near_each(positions, lattice, centres, region), 0
    if len(positions) <= _FEW:
        near = repeat(np.arange(len(positions)), len(centres))
    while group := list(islice(near, _TOGETHER)):
        owner = np.repeat(np.arange(len(group)), [len(part) for part in group])
        index = np.concatenate(group)
        origin, displacements = images_of(positions[index] - centres[first + owner], lattice, region)
        ends = np.cumsum(np.bincount(owner[origin], minlength=len(group)))[:-1]
        yield from zip(np.split(index[origin], ends), np.split(displacements, ends), strict=True)
        first += len(group)


def _near_each(positions: FloatArray, lattice: Lattice, centres: FloatArray, region: Region) -> Iterator[IntArray]:
    """Find for each centre the atoms that may be near, by a grid in which only the bins around centres are marked."""
    bounds = region.bounds(lattice.functionals)
    grid, bins_of_each = _Grid.around(centres, bounds, lattice)
    marked = np.zeros(grid.n_flat, dtype=bool)
    for bins in bins_of_each:
        marked[bins] = True
    found, found_bin = [], []
    for start in range(0, len(positions), CHUNK):
        flat = grid.bins_of(positions[start : start + CHUNK])
        kept = np.flatnonzero(marked[flat])
        found.append(kept + start)
        found_bin.append(flat[kept])
    index, bin_of = np.concatenate(found), np.concatenate(found_bin)
    order = np.argsort(bin_of, kind='stable')
    index, bin_of = index[order], bin_of[order]
    # Where the atoms of each bin begin in the sorted list.
    begin = np.concatenate([[0], np.cumsum(np.bincount(bin_of, minlength=grid.n_flat))])
    for bins in bins_of_each:
        first, last = begin[bins], begin[bins + 1]
        counts = last - first
        ends = np.cumsum(counts)
        yield np.sort(index[np.arange(ends[-1]) + np.repeat(first - ends + counts, counts)])


@dataclass(frozen=True)
class _Grid:
    """Bins over the three coordinates of a lattice, each from 0 to 1; one bin more takes what lies outside.

    :param functionals: the coordinates, one a row, shape (3, 3).
    :param lower: coordinate where the grid begins, shape (3,); 0 along periodic ones.
    :param n_bins: along each coordinate, shape (3,).
    :param n_periodic: the first so many coordinates have the period 1.
    """

    functionals: FloatArray
    lower: FloatArray
    n_bins: IntArray
    n_periodic: int

    @classmethod
    def around(cls, centres: FloatArray, bounds: FloatArray, lattice: Lattice) -> tuple[_Grid, list[IntArray]]:
        """Lay a grid over one period, and along other directions over the centres and their surroundings.

        :param centres: shape (n_centres, 3) in angstrom.
        :param bounds: reach of the region along each functional of the lattice, shape (3,).
        :return: the grid, and the numbers of the bins that the region around each centre touches.
        """
        k = lattice.n_periodic
        at = centres @ lattice.functionals
        at[:, :k] -= np.floor(at[:, :k])
        lower, length = np.zeros(3), np.ones(3)
        lower[k:] = at[:, k:].min(axis=0) - bounds[k:]
        length[k:] = at[:, k:].max(axis=0) + bounds[k:] - lower[k:]
        n_bins = np.clip(1.5 * length / bounds, 1, _MAX_BINS_PER_AXIS).astype(np.int64)
        grid = cls(np.ascontiguousarray((lattice.functionals / length).T), lower / length, n_bins, k)
        return grid, [grid._bins_near(row, bounds / length) for row in at / length - grid.lower]

    @property
    def n_flat(self) -> int:
        """Return the number of bins, the one for outside included."""
        return int(np.prod(self.n_bins)) + 1

    @property
    def _per_unit(self) -> FloatArray:
        """Return the number of bins per unit of each coordinate, a hair less so that 1 falls into the last bin."""
        return np.asarray(self.n_bins * (1.0 - 1e-9))

    def bins_of(self, positions: FloatArray) -> IntArray:
        """Return the flat number of the bin of each position, shape (n,)."""
        k = self.n_periodic
        at = self.functionals @ positions.T
        at[:k] -= np.floor(at[:k])
        outside = None
        if k < 3:
            at[k:] -= self.lower[k:, None]
            outside = np.any((at[k:] < 0) | (at[k:] > 1), axis=0)
        at *= self._per_unit[:, None]
        np.floor(at, out=at)
        strides = np.array([self.n_bins[1] * self.n_bins[2], self.n_bins[2], 1.0])
        flat = strides @ at  # whole numbers, exact
        if outside is not None:
            flat[outside] = self.n_flat - 1
        return flat.astype(np.int64)

    def _bins_near(self, at: FloatArray, bounds: FloatArray) -> IntArray:
        """Return the flat numbers of the bins within reach of one point, both in coordinates of the grid."""
        axes = []
        first = np.floor((at - bounds) * self._per_unit).astype(int).tolist()
        last = np.floor((at + bounds) * self._per_unit).astype(int).tolist()
        for axis, n in enumerate(self.n_bins.tolist()):
            if axis < self.n_periodic:
                axes.append(np.arange(first[axis], min(last[axis], first[axis] + n - 1) + 1) % n)
            else:
                axes.append(np.arange(max(first[axis], 0), min(last[axis], n - 1) + 1))
        x, y, z = np.ix_(*axes)
        return np.asarray((x * self.n_bins[1] + y) * self.n_bins[2] + z).ravel()
