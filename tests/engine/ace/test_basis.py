from __future__ import annotations

import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from machine import require

from aiida_oodal.engine.ace.basis import AceBasis, import_pyace
from aiida_oodal.engine.errors import OodalError

require('pyace')


@pytest.fixture
def basis(values):
    """An Al-Cu basis with random coefficients."""
    made = AceBasis.from_settings(values(), ['Cu', 'Al'])
    made.basis.basis_coeffs = np.random.default_rng(2).normal(size=made.n_functions)
    return made


@pytest.fixture
def alloy():
    atoms = bulk('Al', 'fcc', a=3.9, cubic=True).repeat((2, 1, 1))
    atoms.symbols[[1, 4, 6]] = 'Cu'
    atoms.rattle(0.15, seed=5)
    return atoms


def test_import_leaves_the_root_logger_as_it_was():
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    import_pyace.cache_clear()
    import_pyace()
    assert (root.level, root.handlers) == before


def test_elements_are_sorted_and_sizes_are_those_of_the_coefficients(basis):
    assert basis.elements == ('Al', 'Cu')
    assert sum(basis.sizes) == basis.n_functions == len(basis.basis.basis_coeffs)
    assert basis.cutoff == 4.5


def test_design_rows_times_coefficients_are_energy_and_forces(basis, alloy):
    design, prediction = basis.design(alloy), basis.predict(alloy)
    coefficients = np.array(basis.basis.basis_coeffs)
    assert design.energy @ coefficients == pytest.approx(prediction.energy, abs=1e-10)
    assert np.allclose(design.forces @ coefficients, prediction.forces, atol=1e-10)
    assert np.abs(prediction.forces).max() > 0.1
    for row, other in zip(design.projections, prediction.projections, strict=True):
        assert np.array_equal(row, other)


def test_forces_are_minus_the_derivative_of_the_energy(basis, alloy):
    step = 1e-4
    forces = basis.predict(alloy).forces
    for atom, axis in ((0, 0), (1, 2), (6, 1)):
        energies = []
        for sign in (1, -1):
            moved = alloy.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(basis.predict(moved).energy)
        assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(forces[atom, axis], abs=1e-5)


def test_a_cell_smaller_than_the_cutoff_equals_its_repetition(basis, alloy):
    energy = basis.predict(alloy).energy
    assert basis.predict(alloy.repeat((1, 2, 3))).energy == pytest.approx(6 * energy, abs=1e-10)


def test_atoms_outside_the_cell_change_nothing(basis, alloy):
    moved = alloy.copy()
    moved.positions += [50.3, -21.0, 7.7]
    assert np.allclose(basis.predict(moved).forces, basis.predict(alloy).forces, atol=1e-10)


@pytest.mark.parametrize('vacuum', [None, 0.1, 30.0])
def test_a_slab_does_not_see_itself_across_its_open_axis(basis, vacuum):
    slab = fcc111('Al', (2, 2, 2), a=4.0, vacuum=vacuum)
    slab.rattle(0.1, seed=1)
    wide = slab.copy()
    wide.center(vacuum=20.0, axis=2)
    wide.pbc = True
    assert not slab.pbc[2]
    one, other = basis.predict(slab), basis.predict(wide)
    assert one.energy == pytest.approx(other.energy, abs=1e-10)
    assert np.allclose(one.forces, other.forces, atol=1e-10)


def test_a_wire_and_a_molecule_need_no_cell(basis):
    wire = Atoms('AlCu', positions=[[0, 0, 0], [0.3, 0.2, 2.5]], cell=[0, 0, 5.0], pbc=(False, False, True))
    boxed = Atoms(wire.symbols, positions=wire.positions, cell=[40, 40, 5.0], pbc=True)
    assert basis.predict(wire).energy == pytest.approx(basis.predict(boxed).energy, abs=1e-10)
    molecule = Atoms('Al2', positions=[[0, 0, 0], [0, 0, 2.5]])
    boxed = Atoms('Al2', positions=molecule.positions, cell=[40, 40, 40], pbc=True)
    assert basis.predict(molecule).energy == pytest.approx(basis.predict(boxed).energy, abs=1e-10)


def test_files_hold_the_same_potential(basis, alloy, tmp_path):
    basis.save(tmp_path / 'potential.yaml')
    read = AceBasis.from_file(tmp_path / 'potential.yaml')
    assert np.array_equal(read.predict(alloy).forces, basis.predict(alloy).forces)
    read.save_tabulated(tmp_path / 'potential.yace')
    calculator = import_pyace().PyACECalculator(str(tmp_path / 'potential.yace'))
    assert np.allclose(calculator.get_forces(alloy), read.predict(alloy).forces, atol=1e-8)


def test_an_unknown_element_is_named(basis):
    with pytest.raises(OodalError, match='the potential knows Al Cu and the structure has Ni'):
        basis.predict(bulk('Ni'))


@pytest.mark.parametrize('name', ['SBessel', 'ChebExpCos', 'ChebPow', 'ChebLinear'])
@pytest.mark.parametrize('cutoff_function', ['cos', 'poly'])
def test_every_radial_basis_that_can_be_chosen_works(values, aluminium, name, cutoff_function):
    basis = AceBasis.from_settings(
        values(radial_basis=name, cutoff_function=cutoff_function, radial_parameter=2.0), ['Al']
    )
    design = basis.design(aluminium[0])
    assert np.isfinite(design.forces).all()
    assert np.all(np.ptp(design.projections, axis=0) > 0.0)
