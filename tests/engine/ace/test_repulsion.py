"""The repulsive core, in every form in which a potential is evaluated."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.data import covalent_radii
from machine import require

from aiida_oodal.engine.ace.basis import AceBasis, import_pyace
from aiida_oodal.engine.ace.repulsion import place_cores

require('pyace')

ALCU = {('Al', 'Al'): 1.6, ('Al', 'Cu'): 1.7, ('Cu', 'Cu'): 1.8}


@pytest.fixture
def basis(values):
    made = AceBasis.from_settings(values(), ['Al', 'Cu'], ALCU)
    made.set_coefficients(0.05 * np.random.default_rng(2).normal(size=made.n_functions))
    return made


def squeezed(distance):
    """An alloy in which one Al and one Cu are as close as asked for."""
    atoms = bulk('Al', 'fcc', a=4.0, cubic=True).repeat(2)
    atoms.symbols[1::2] = 'Cu'
    atoms.rattle(0.05, seed=1)
    atoms.set_distance(0, 1, distance, fix=0, mic=True)
    return atoms


def zbl(z1, z2, distance):
    """Energy of Ziegler, Biersack and Littmark (1985), eV."""
    a = 0.46850 / (z1**0.23 + z2**0.23)
    terms = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
    coulomb = units._e / (4e-10 * np.pi * units._eps0)  # eV angstrom
    return coulomb * z1 * z2 / distance * sum(share * np.exp(-decay * distance / a) for share, decay in terms)


def test_cores_begin_below_what_the_data_have_and_below_bonds():
    radius = float(covalent_radii[13])
    cores = place_cores({('Al', 'Al'): 2.4, ('Al', 'Cu'): 1.3, ('Cu', 'Cu'): np.inf}, 0.7)
    assert cores[('Al', 'Al')] == pytest.approx(0.7 * 2 * radius)
    assert cores[('Al', 'Cu')] == 1.3
    assert np.isfinite(cores[('Cu', 'Cu')])


def test_atoms_on_top_of_each_other_repel_as_nuclei_do(basis):
    """The whole energy of such a pair is that of ZBL; the two zeros of energy cancel in the difference."""
    energies = [basis.predict(Atoms('AlCu', positions=[[0, 0, 0], [0, 0, r]])).energy for r in (0.4, 0.8)]
    expected = [zbl(13, 29, r) for r in (0.4, 0.8)]
    assert energies[0] - energies[1] == pytest.approx(expected[0] - expected[1], rel=1e-3)
    assert energies[0] > 500.0


@pytest.mark.parametrize('distance', [0.6, 1.2, 1.56, 1.65, 2.0])
def test_forces_belong_to_the_energy(basis, distance):
    atoms, step = squeezed(distance), 1e-5
    force = basis.predict(atoms).forces[1, 0]
    energies = []
    for sign in (1.0, -1.0):
        moved = atoms.copy()
        moved.positions[1, 0] += sign * step
        energies.append(basis.predict(moved).energy)
    assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(force, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize('distance', [0.6, 1.2, 1.65, 2.0])
def test_files_and_the_evaluator_of_md_have_the_same_core(basis, tmp_path, distance):
    from pyace.evaluator import ACERecursiveEvaluator

    pyace = import_pyace()
    basis.save(tmp_path / 'potential.yaml')
    basis.save_tabulated(tmp_path / 'potential.yace')
    atoms = squeezed(distance)
    expected = basis.predict(atoms).forces
    scale = np.abs(expected).max()
    assert np.allclose(AceBasis.from_file(tmp_path / 'potential.yaml').predict(atoms).forces, expected)
    tabulated = pyace.PyACECalculator(str(tmp_path / 'potential.yace'))
    assert np.allclose(tabulated.get_forces(atoms), expected, atol=1e-5 * scale)
    # What MD computes between steps with gamma.
    read = pyace.ACEBBasisSet(str(tmp_path / 'potential.yaml'))
    recursive_basis = read.to_ACECTildeBasisSet()
    evaluator = ACERecursiveEvaluator(recursive_basis)
    evaluator.set_recursive(True)
    calculator = pyace.PyACECalculator(str(tmp_path / 'potential.yace'))
    calculator.evaluator = evaluator
    calculator.ace.set_evaluator(evaluator)
    assert np.allclose(calculator.get_forces(atoms), expected, atol=1e-5 * scale)


def test_where_no_neighbour_is_close_the_core_changes_nothing(basis, values):
    bare = AceBasis.from_settings(values(repulsion='none'), ['Al', 'Cu'])
    bare.set_coefficients(basis.coefficients)
    atoms = squeezed(1.81)
    assert np.allclose(bare.predict(atoms).forces, basis.predict(atoms).forces, atol=1e-10)
    design = basis.design(squeezed(1.2))
    assert np.allclose(design.energy @ basis.coefficients, bare.predict(squeezed(1.2)).energy)
