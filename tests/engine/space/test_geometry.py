"""The search for atoms around a point, against brute force over every image in a block of cells."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.space.geometry import Lattice, Region, images_inside
from aiida_oodal.engine.space.grid import images_inside_each

SURFACE_MARGIN = 1e-6


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Return the matrix, for row vectors, of three turns about x, y and z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = np.sin(angle), -np.sin(angle)
        matrix = matrix @ turn
    return matrix


@st.composite
def snapshots(draw: st.DrawFn) -> Atoms:
    """Draw a small structure in any triclinic cell, periodic along any axes, its atoms anywhere, wrapped or not."""
    numbers = st.floats(-1.0, 1.0, allow_nan=False)
    n_atoms = draw(st.integers(1, 6))
    lengths = [draw(st.floats(1.5, 9.0)) for _ in range(3)]
    cell = np.diag(lengths)
    cell[1, 0], cell[2, 0], cell[2, 1] = (
        0.8 * draw(numbers) * length for length in (lengths[0], lengths[0], lengths[1])
    )
    cell = cell @ rotation(tuple(np.pi * draw(numbers) for _ in range(3)))
    pbc = [draw(st.booleans()) for _ in range(3)]
    if draw(st.booleans()):
        cell[~np.array(pbc)] = 0.0  # a cell vector along an axis that is not periodic means nothing
    positions = np.array([[12.0 * draw(numbers) for _ in range(3)] for _ in range(n_atoms)])
    return Atoms(numbers=range(1, n_atoms + 1), positions=positions, cell=cell, pbc=pbc)


regions = st.builds(Region, st.sampled_from(['sphere', 'cube']), st.floats(0.5, 6.0))


def brute_force(atoms: Atoms, center: int, region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and displacements of every image inside."""
    cell, pbc = np.array(atoms.cell), np.array(atoms.pbc)
    offsets = atoms.positions - atoms.positions[center]
    reach = np.sqrt(3.0) * region.extent + np.linalg.norm(offsets, axis=1).max()
    counts = []
    for axis in range(3):
        others = [cell[k] for k in range(3) if pbc[k] and k != axis]
        height = np.array(cell[axis])
        if others:  # of the periodic cell over its other periodic vectors
            plane, _ = np.linalg.qr(np.array(others).T)
            height -= plane @ (plane.T @ height)
        counts.append(int(np.ceil(reach / np.linalg.norm(height))) if pbc[axis] else 0)
    shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in counts)))) @ cell
    index = np.repeat(np.arange(len(atoms)), len(shifts))
    vectors = (offsets[:, None] + shifts[None]).reshape(-1, 3)
    size = np.linalg.norm(vectors, axis=1) if region.shape == 'sphere' else np.abs(vectors).max(axis=1)
    # On the surface rounding decides, in the brute force as well: leave such cases to the tests of ideal crystals.
    assume(np.abs(size - region.extent).min() > SURFACE_MARGIN)
    return index[size < region.extent], vectors[size < region.extent]


def search(atoms: Atoms, center: int, region: Region) -> tuple[np.ndarray, np.ndarray]:
    return images_inside(atoms.positions, Lattice.of(atoms), atoms.positions[center], region)


def assert_same(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> None:
    """Compare two sets of images regardless of their order."""
    assert len(one[0]) == len(other[0])
    assert sorted(one[0]) == sorted(other[0])
    for atom in set(one[0].tolist()):
        mine, theirs = one[1][one[0] == atom], other[1][other[0] == atom]
        apart = np.linalg.norm(mine[:, None] - theirs[None], axis=2)
        assert apart.min(axis=1).max() < 1e-9
        assert len(set(apart.argmin(axis=1).tolist())) == len(mine)


@settings(deadline=None, max_examples=150)
@given(snapshots(), regions, st.data())
def test_finds_what_brute_force_finds(atoms: Atoms, region: Region, data: st.DataObject) -> None:
    center = data.draw(st.integers(0, len(atoms) - 1))
    expected = brute_force(atoms, center, region)
    found = search(atoms, center, region)
    assert_same(found, expected)
    assert np.all(np.diff(found[0]) >= 0)
    distances = np.sort(np.linalg.norm(found[1], axis=1))
    np.testing.assert_allclose(distances, np.sort(np.linalg.norm(expected[1], axis=1)), rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(snapshots(), regions)
def test_many_centres_at_once_find_what_each_finds(atoms: Atoms, region: Region) -> None:
    centres = [*range(len(atoms)), 0]
    together = images_inside_each(atoms.positions, Lattice.of(atoms), atoms.positions[centres], region)
    for center, found in zip(centres, together, strict=True):
        alone = search(atoms, center, region)
        np.testing.assert_array_equal(found[0], alone[0])
        np.testing.assert_array_equal(found[1], alone[1])


@settings(deadline=None, max_examples=80)
@given(snapshots(), regions, st.data())
def test_invariant_under_translation_wrapping_and_permutation(
    atoms: Atoms, region: Region, data: st.DataObject
) -> None:
    center = data.draw(st.integers(0, len(atoms) - 1))
    brute_force(atoms, center, region)
    found = search(atoms, center, region)
    moved = atoms.copy()
    moved.positions += data.draw(st.tuples(*[st.floats(-30, 30)] * 3))
    assert_same(search(moved, center, region), found)
    # every atom in a cell of its own choice
    steps = np.array(
        data.draw(st.lists(st.tuples(*[st.integers(-4, 4)] * 3), min_size=len(atoms), max_size=len(atoms)))
    )
    moved.positions += (steps * atoms.pbc) @ np.array(atoms.cell)
    assert_same(search(moved, center, region), found)
    order = np.array(data.draw(st.permutations(range(len(atoms)))))
    index, vectors = search(moved[order], int(np.flatnonzero(order == center)[0]), region)
    assert_same((order[index], vectors), found)


@settings(deadline=None, max_examples=80)
@given(snapshots(), st.floats(0.5, 6.0), st.tuples(*[st.floats(-3.2, 3.2)] * 3))
def test_a_sphere_turns_with_the_cell(atoms: Atoms, radius: float, angles: tuple[float, float, float]) -> None:
    region = Region('sphere', radius)
    brute_force(atoms, 0, region)
    index, vectors = search(atoms, 0, region)
    turned = atoms.copy()
    matrix = rotation(angles)
    turned.set_cell(np.array(atoms.cell) @ matrix)
    turned.positions = atoms.positions @ matrix
    assert_same(search(turned, 0, region), (index, vectors @ matrix))


@settings(deadline=None, max_examples=80)
@given(snapshots(), regions, st.permutations(range(3)), st.tuples(*[st.integers(-3, 3)] * 3))
def test_any_basis_of_the_lattice_gives_the_same(
    atoms: Atoms, region: Region, order: list[int], shear: tuple[int, int, int]
) -> None:
    brute_force(atoms, 0, region)
    found = search(atoms, 0, region)
    a, b, c = shear
    basis = np.array([[1, a, b], [0, 1, c], [0, 0, 1]])
    basis = np.where(np.outer(atoms.pbc, atoms.pbc), basis, np.eye(3, dtype=int))
    other = atoms.copy()
    other.set_cell((basis @ np.array(atoms.cell))[order])
    other.pbc = atoms.pbc[order]
    assert_same(search(other, 0, region), found)


@pytest.mark.parametrize('shift', [0.0, 0.1, 1 / 3, 12345.678])
def test_atoms_on_the_surface_are_not_left_to_rounding(shift: float) -> None:
    crystal = bulk('Po', 'sc', a=2.0, cubic=True) * (5, 5, 5)
    crystal.positions = crystal.positions + shift
    for center in range(0, 125, 31):
        # two opposite faces hold the same atoms: the cube must have one of them
        assert len(search(crystal, center, Region('cube', 4.0))[0]) == 4**3
        # the six nearest neighbours are at 2 angstrom exactly, that is not closer
        assert len(search(crystal, center, Region('sphere', 2.0))[0]) == 1
        assert len(search(crystal, center, Region('sphere', 2.0 + 1e-6))[0]) == 7


def test_one_atom_in_a_tiny_cell_stands_for_a_crystal() -> None:
    primitive, large = bulk('Al', a=4.05), bulk('Al', a=4.05, cubic=True) * (6, 6, 6)
    index, vectors = search(primitive, 0, Region('sphere', 9.0))
    inside = search(large, 430, Region('sphere', 9.0))
    assert set(index.tolist()) == {0}
    assert len(set(inside[0].tolist())) == len(inside[0]) == len(index) == 177
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(vectors, axis=1)), np.sort(np.linalg.norm(inside[1], axis=1)), atol=1e-9
    )


def test_more_positions_than_one_chunk() -> None:
    large = bulk('Al', a=4.05, cubic=True) * (17, 17, 17)
    large.rattle(0.1, seed=3)
    assert len(large) > 1 << 14
    region = Region('sphere', 6.0)
    for center in (0, 12000, len(large) - 1):
        vectors = large.get_distances(center, range(len(large)), mic=True)
        np.testing.assert_array_equal(search(large, center, region)[0], np.flatnonzero(vectors < 6.0))
    centres = [0, 5, 12000, len(large) - 1]
    for center, found in zip(
        centres, images_inside_each(large.positions, Lattice.of(large), large.positions[centres], region), strict=True
    ):
        np.testing.assert_array_equal(found[0], search(large, center, region)[0])


@pytest.mark.parametrize(
    ('cell', 'pbc'),
    [
        ([0, 0, 0], [True, True, True]),
        ([5, 5, 0], [True, True, True]),
        ([[5, 0, 0], [10, 0, 0], [0, 0, 5]], [True, True, False]),
        ([[5, 0, 0], [0, 5, 0], [5, 5, 0]], [True, True, True]),
    ],
)
def test_no_volume_along_the_periodic_axes_is_an_error(cell: list, pbc: list[bool]) -> None:
    with pytest.raises(OodalError, match='zero volume along its periodic axes'):
        Lattice.of(Atoms('H', cell=cell, pbc=pbc))


def test_a_cell_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(OodalError, match='not finite'):
        Lattice.of(Atoms('H', cell=[np.nan, 5, 5], pbc=True))


def test_cell_vectors_along_other_axes_may_be_missing_or_in_the_plane() -> None:
    slab = Atoms('H', cell=[[3, 0, 0], [0, 3, 0], [0, 0, 0]], pbc=[True, True, False])
    odd = Atoms('H', cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=[True, True, False])
    assert len(search(slab, 0, Region('sphere', 3.5))[0]) == len(search(odd, 0, Region('sphere', 3.5))[0]) == 5
