import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aiida_oodal.engine.md.start.box import LammpsBox, straighten

CELLS = (
    arrays(int, (3, 3), elements=st.integers(-2000, 2000))
    .map(lambda hundredths: hundredths / 100.0)
    .filter(lambda cell: abs(np.linalg.det(cell)) > 30)
)


def as_frame(box, atoms, strain=None, flips=(0, 0, 0)):
    """Return what LAMMPS would dump of a structure in this box: rotated, strained and flipped."""
    shape = np.eye(3) if strain is None else strain
    cell = box.cell @ shape
    xy, yz, xz = flips
    cell[1] += xy * cell[0]
    cell[2] += yz * cell[1] + xz * cell[0]
    frame = Atoms(atoms.numbers, atoms.positions @ box.rotation @ shape + 1.5, cell=cell, pbc=atoms.pbc)
    frame.set_celldisp([1.5] * 3)
    if atoms.has('momenta'):
        frame.set_momenta(atoms.get_momenta() @ box.rotation)
    return frame


@given(cell=CELLS, seed=st.integers(0, 1000))
def test_any_crystal_leans_by_half_at_most_and_comes_back(cell, seed):
    rng = np.random.default_rng(seed)
    atoms = Atoms('CuAlCu', rng.random((3, 3)) @ cell, cell=cell, pbc=True)
    atoms.set_momenta(rng.normal(size=(3, 3)))
    box = LammpsBox(cell, atoms.pbc)
    edges = np.diag(box.cell)
    assert (np.abs(box.tilts) <= np.array([0.5, 0.5, 0.5]) * edges[[0, 0, 1]] * (1 + 1e-9)).all()
    assert abs(np.linalg.det(box.cell)) == pytest.approx(abs(np.linalg.det(cell)))
    # the vectors of the equivalent cell are whole numbers of those of the structure
    same = box.equivalent(atoms)
    numbers = same.cell.array @ np.linalg.inv(cell)
    np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-6)
    np.testing.assert_allclose(same.positions, atoms.positions)
    np.testing.assert_allclose(LammpsBox(same.cell.array).rotation, box.rotation, atol=1e-7)
    back = box.turn_back(as_frame(box, atoms))
    np.testing.assert_allclose(back.cell.array, cell, atol=1e-6)
    np.testing.assert_allclose(back.positions, atoms.positions, atol=1e-9)
    np.testing.assert_allclose(back.get_momenta(), atoms.get_momenta(), atol=1e-9)
    assert not back.get_celldisp().any()


@pytest.mark.parametrize('flips', [(0, 0, 0), (1, 0, 0), (0, -1, 0), (0, 0, 1), (-1, 1, 1)])
def test_a_box_that_lammps_flipped_comes_back_as_the_cell_it_was(flips):
    atoms = bulk('Al').repeat((2, 2, 8))
    atoms.rattle(0.1, seed=1)
    box = LammpsBox(atoms.cell.array, atoms.pbc)
    strain = np.array([[1.03, 0.0, 0.0], [0.02, 0.98, 0.0], [0.01, -0.02, 1.1]])
    back = box.turn_back(as_frame(box, atoms, strain, flips))
    expected = atoms.cell.array @ box.rotation @ strain @ box.rotation.T
    np.testing.assert_allclose(back.cell.array, expected, atol=1e-9)
    np.testing.assert_allclose(back.get_scaled_positions(wrap=False), atoms.get_scaled_positions(wrap=False), atol=1e-9)


def test_only_periodic_vectors_are_taken_for_others():
    slab = fcc111('Al', (2, 2, 3), vacuum=6.0)
    slab.pbc = [True, True, False]
    slab.cell[0] += 3 * slab.cell[1]
    box = LammpsBox(slab.cell.array, slab.pbc)
    assert box.tilts[1:].tolist() == [0.0, 0.0]
    open_first = slab.copy()
    open_first.pbc = [False, True, True]
    assert LammpsBox(open_first.cell.array, open_first.pbc).tilts[0] == pytest.approx(
        open_first.cell[0] @ open_first.cell[1] / np.linalg.norm(open_first.cell[0])
    )


def test_what_is_zero_but_for_rounding_is_zero():
    cell = np.array([[5.0, 0.0, 0.0], [1e-12, 6.0, 0.0], [-2e-9, 3.0, 7.0]])
    straighten(cell)
    assert cell.tolist() == [[5, 0, 0], [0, 6, 0], [0, 3, 7]]
