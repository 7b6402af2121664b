"""Which atoms, and which periodic images of them, lie around a point.

Everything here works for any cell: triclinic, periodic along any subset of its axes, and smaller than the region
asked for, in which case several images of one atom are several members. A region is a sphere or an axis-parallel cube
around a centre.

The search never builds a neighbour list. A region is bounded by three linear functionals of the position: the
fractional coordinate along each periodic vector and the Cartesian coordinate along each direction that is not
periodic. One functional over all positions leaves few atoms, and only those are looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

Shape = Literal['sphere', 'cube']
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Angstrom. An atom this close to the surface of a region counts as outside (in a cube: inside at the lower face,
#: outside at the upper one), so that rounding never decides about atoms that lie exactly on it, as they do in every
#: ideal crystal.
SURFACE_TOLERANCE = 1e-8
#: Slack of the coarse filters, far above rounding and far below what would cost time.
_SLACK = 1e-6
#: Positions looked at together: few enough to stay in the cache, and memory stays bounded.
CHUNK = 1 << 14


@dataclass(frozen=True)
class Region:
    """A sphere or a cube around a centre.

    :param shape: ``sphere`` or ``cube`` (edges along x, y and z).
    :param extent: radius of the sphere or half the edge of the cube, in angstrom.
    """

    shape: Shape
    extent: float

    def contains(self, displacements: FloatArray) -> NDArray[np.bool_]:
        """Tell which displacements from the centre, shape (n, 3) in angstrom, lie inside.

        The cube is half open, so that two opposite faces never both hold the same atom.
        """
        if self.shape == 'sphere':
            limit = max(self.extent - SURFACE_TOLERANCE, 0.0)
            return np.asarray(np.linalg.norm(displacements, axis=1) < limit)
        lower, upper = -self.extent - SURFACE_TOLERANCE, self.extent - SURFACE_TOLERANCE
        return np.asarray(np.all((displacements >= lower) & (displacements < upper), axis=1))

    def bounds(self, functionals: FloatArray) -> FloatArray:
        """Return the largest value of each linear functional inside the region.

        :param functionals: shape (3, m), one functional a column.
        :return: shape (m,), in angstrom times the unit of the functional.
        """
        norm = np.linalg.norm(functionals, axis=0) if self.shape == 'sphere' else np.abs(functionals).sum(axis=0)
        return np.asarray((self.extent + _SLACK) * norm + _SLACK)


@dataclass(frozen=True)
class Lattice:
    """The periodic part of a cell, and the coordinates in which it is simple.

    :param vectors: the periodic cell vectors, shape (k, 3) in angstrom, k = 0..3.
    :param functionals: shape (3, 3), one a column: k dual vectors (fractional coordinates, 1/angstrom), then an
        orthonormal basis of the directions that are not periodic (dimensionless).
    """

    vectors: FloatArray
    functionals: FloatArray

    @property
    def n_periodic(self) -> int:
        """Return the number of periodic axes."""
        return len(self.vectors)

    @classmethod
    def of(cls, atoms: Atoms) -> Lattice:
        """Read the lattice of a structure.

        Cell vectors along axes that are not periodic are ignored: they may be zero.

        :raises OodalError: when a periodic cell vector is not finite, zero, or in the plane of the others.
        """
        vectors = np.asarray(atoms.cell.array, dtype=np.float64)[np.asarray(atoms.pbc, dtype=bool)]
        k = len(vectors)
        if k == 0:
            return cls(vectors, np.eye(3))
        if not np.isfinite(vectors).all():
            raise OodalError(f'the cell {atoms.cell.tolist()} is not finite')
        _, singular, directions = np.linalg.svd(vectors, full_matrices=True)
        if singular[-1] <= 1e-8 * max(singular[0], 1.0):
            raise OodalError(
                f'the cell {atoms.cell.tolist()} has zero volume along its periodic axes (pbc {atoms.pbc.tolist()}); '
                'give linearly independent cell vectors or set pbc to False along the axis that has none'
            )
        return cls(vectors, np.hstack([np.linalg.pinv(vectors), directions[k:].T]))


def images_inside(
    positions: FloatArray, lattice: Lattice, centre: FloatArray, region: Region
) -> tuple[IntArray, FloatArray]:
    """Find all atoms and periodic images inside a region around a point.

    :param positions: shape (n_atoms, 3) in angstrom, wrapped or not.
    :param lattice: the periodicity of the positions.
    :param centre: shape (3,) in angstrom.
    :param region: what to look into.
    :return: indices of the atoms, shape (m,), ascending, and their displacements from the centre, shape (m, 3) in
        angstrom. An atom with several images inside is there several times.
    """
    index = _coarse_filter(positions, lattice, centre, region.bounds(lattice.functionals))
    origin, displacements = images_of(positions[index] - centre, lattice, region)
    return index[origin], displacements


def images_of(displacements: FloatArray, lattice: Lattice, region: Region) -> tuple[IntArray, FloatArray]:
    """Find the periodic images of given displacements that lie inside a region.

    :param displacements: from the centre of the region, each its own, shape (n, 3) in angstrom.
    :param lattice: the periodicity.
    :param region: what to look into.
    :return: row numbers of ``displacements``, shape (m,), ascending, and the displacements of the images, shape (m, 3)
        in angstrom.
    """
    origin = np.arange(len(displacements))
    k = lattice.n_periodic
    if k:
        functionals = lattice.functionals[:, :k]
        origin, shifts = _shifts_within(displacements @ functionals, region.bounds(functionals))
        displacements = displacements[origin] + shifts @ lattice.vectors
    inside = region.contains(displacements)
    return origin[inside], displacements[inside]


def _coarse_filter(positions: FloatArray, lattice: Lattice, centre: FloatArray, bounds: FloatArray) -> IntArray:
    """Return the rows of which some image may be inside, by one functional after the other."""
    periodic = np.arange(3) < lattice.n_periodic
    # Half a period to both sides is the whole axis: nothing to filter. The narrowest axis first leaves fewest atoms.
    useful = [int(axis) for axis in np.argsort(bounds) if not periodic[axis] or bounds[axis] < 0.5]
    found = []
    for start in range(0, len(positions), CHUNK):
        index: IntArray | None = None
        chunk = positions[start : start + CHUNK]
        for axis in useful:
            functional = lattice.functionals[:, axis]
            value = (chunk if index is None else chunk[index]) @ functional
            value -= centre @ functional
            if periodic[axis]:
                value -= np.rint(value)
            near = np.flatnonzero(np.abs(value, out=value) <= bounds[axis])
            index = near if index is None else index[near]
        found.append(start + (np.arange(len(chunk)) if index is None else index))
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _shifts_within(fractional: FloatArray, bounds: FloatArray) -> tuple[IntArray, FloatArray]:
    """Enumerate the lattice shifts that bring each fractional coordinate within its bounds.

    :param fractional: shape (n, k), relative to the centre.
    :param bounds: shape (k,).
    :return: row numbers of ``fractional``, shape (m,), and shifts, shape (m, k), whole numbers as floats.
    """
    shifts = -np.rint(fractional)
    reach = np.floor(bounds + 0.5).astype(int)
    near = np.all((np.abs(fractional + shifts) <= bounds) | (reach > 0), axis=1)
    origin, shifts = np.flatnonzero(near), shifts[near]
    for axis in np.flatnonzero(reach):  # where one image is not all
        steps = np.arange(-reach[axis], reach[axis] + 1)
        origin, shifts = np.repeat(origin, len(steps)), np.repeat(shifts, len(steps), axis=0)
        shifts[:, axis] += np.tile(steps, len(shifts) // len(steps))
        near = np.abs(fractional[origin, axis] + shifts[:, axis]) <= bounds[axis]
        origin, shifts = origin[near], shifts[near]
    return origin, shifts
