from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear import fit as room
from aiida_oodal.engine.linear.atom_energies import AtomEnergies
from aiida_oodal.engine.linear.fit import fit_linear, solve_triangle
from aiida_oodal.engine.linear.targets import make_target

TRUTH = np.array([0.7, -3.0, 1.5, 2.0])
ZERO, FITTED = AtomEnergies({'Ar': 0.0}, {'Ar': 'zero'}), AtomEnergies({'Ar': 0.0}, {'Ar': 'fitted'})


@pytest.fixture
def labelled(toy):
    """Return a function that makes targets labelled by a potential of the same basis."""
    basis = toy.PairBasis()
    basis.set_coefficients(TRUTH)

    def make(count=6, atom_energy=0.0, **weights):
        settings = AceFitSettings(robust_force=None, **weights)
        structures = [toy.label(basis, toy.molecule(6 + seed, seed), atom_energy) for seed in range(count)]
        return [make_target(atoms, settings, f'structure {index}') for index, atoms in enumerate(structures)]

    return make


def test_any_basis_that_makes_rows_can_be_fitted(toy, labelled):
    solution = fit_linear(toy.PairBasis, labelled(), ZERO, ridge=0.0)
    assert solution.basis.coefficients == pytest.approx(TRUTH, abs=1e-8)
    assert solution.projections['Ar'].shape == (6 + 7 + 8 + 9 + 10 + 11, 4)


def test_energies_forces_and_stresses_each_carry_the_fit_alone(toy, labelled):
    (target,) = labelled(1, energy_weight=0.0, stress_weight=100.0)
    target.force_weights[:] = 0.0
    # Six rows of stress for four coefficients.
    assert fit_linear(toy.PairBasis, [target], ZERO, ridge=0.0).basis.coefficients == pytest.approx(TRUTH, abs=1e-6)
    targets = labelled(8, energy_weight=5.0)
    for target in targets:
        target.force_weights[:] = 0.0
    assert fit_linear(toy.PairBasis, targets, ZERO, ridge=0.0).basis.coefficients == pytest.approx(TRUTH, abs=1e-5)


def test_weights_are_those_of_the_residuals(toy, labelled):
    """Two contradicting sets of forces: the fit is their mean by the squares of the weights."""
    one, other = labelled(1, energy_weight=0.0)[0], labelled(1, energy_weight=0.0)[0]
    other.forces[:] *= 2.0
    other.force_weights[:] = 0.5
    solution = fit_linear(toy.PairBasis, [one, other], ZERO, ridge=0.0)
    assert solution.basis.coefficients == pytest.approx((1.0 + 0.25 * 2.0) / 1.25 * TRUTH, abs=1e-8)


def test_scales_weigh_all_labels_of_a_structure(toy, labelled):
    one, other = labelled(2, energy_weight=3.0, stress_weight=2.0)[:2]
    other.forces[:] *= 2.0
    shrunk = [one, replace(other, energy_weight=1.5, stress_weight=1.0, force_weights=0.5 * other.force_weights)]
    expected = fit_linear(toy.PairBasis, shrunk, FITTED, ridge=1e-3)
    scaled = fit_linear(toy.PairBasis, [one, other.scaled(0.5)], FITTED, ridge=1e-3)
    assert scaled.basis.coefficients == pytest.approx(expected.basis.coefficients, abs=1e-10)


def test_the_error_that_growth_looks_at_is_that_of_the_potential_by_weights_of_atoms(toy, labelled):
    targets, random = labelled(energy_weight=3.0, stress_weight=2.0), np.random.default_rng(2)
    for target in targets:
        target.forces[:] += random.normal(scale=0.2, size=target.forces.shape)
        target.force_weights[:] = random.uniform(0.0, 2.0, size=len(target.forces))
    targets[1].force_weights[2:] = 0.0
    targets[2] = targets[2].scaled(5.0)
    solution = fit_linear(toy.PairBasis, targets, FITTED, ridge=1e-3)
    squares = weights = 0.0
    for target in targets:
        differences = solution.basis.predict(target.atoms).forces - target.forces
        squares += (target.force_weights[:, np.newaxis] * differences).ravel() @ (
            target.force_weights[:, np.newaxis] * differences
        ).ravel()
        weights += 3 * (target.force_weights**2).sum()
    assert solution.force_rmse > 0.1
    assert solution.force_rmse == pytest.approx(np.sqrt(squares / weights))


def test_atom_energies_are_unknowns_like_the_others(toy, labelled):
    solution = fit_linear(toy.PairBasis, labelled(atom_energy=-41.5), FITTED, ridge=0.0)
    assert solution.basis.coefficients == pytest.approx(TRUTH, abs=1e-6)
    assert solution.atom_energies.values == {'Ar': pytest.approx(-41.5, abs=1e-6)}
    assert solution.atom_energies.sources == {'Ar': 'fitted'}


def test_directions_without_labels_have_no_coefficient():
    """The same column twice: the solution of smallest norm shares the coefficient."""
    rows = np.random.default_rng(1).normal(size=(20, 3))
    x = rows[:, [0, 1, 2, 2]]
    triangle = np.linalg.qr(np.column_stack([x, x @ [1.0, 2.0, 3.0, 0.0]]), mode='r')
    assert solve_triangle(triangle, 0.0) == pytest.approx([1.0, 2.0, 1.5, 1.5])
    few = np.linalg.qr(np.column_stack([x, x @ [1.0, 2.0, 3.0, 0.0]])[:2], mode='r')
    solution = solve_triangle(few, 0.0)
    assert x[:2] @ solution == pytest.approx(x[:2] @ [1.0, 2.0, 3.0, 0.0])
    assert np.linalg.norm(solution) <= np.linalg.norm([1.0, 2.0, 1.5, 1.5])


def test_blocks_add_up(toy, labelled, monkeypatch):
    whole, lines = fit_linear(toy.PairBasis, labelled(), ZERO, ridge=1e-6), []
    monkeypatch.setattr(room, '_BLOCK_ATOMS', 8)
    parts = fit_linear(toy.PairBasis, labelled(), ZERO, ridge=1e-6, report=lines.append)
    assert lines[-1] == 'design matrix: block 5 of 5'
    assert parts.basis.coefficients == pytest.approx(whole.basis.coefficients, rel=1e-9)
    assert np.array_equal(parts.projections['Ar'], whole.projections['Ar'])


def test_a_structure_that_cannot_be_computed_is_named(toy, labelled):
    targets = labelled()
    targets[3].atoms.positions[1] = targets[3].atoms.positions[0]
    with pytest.raises(OodalError, match=r'^structure 3: two atoms are on top of each other'):
        fit_linear(toy.PairBasis, targets, ZERO, ridge=0.0)


def test_what_a_library_raises_is_explained_with_the_name(toy, labelled):
    class Broken(toy.PairBasis):
        def design(self, atoms, *, stress=False):
            raise ValueError('Extreme shape of unit cell')

    with pytest.raises(
        OodalError, match=r'^structure 0 \(6 atoms of Ar\) cannot be computed .*Extreme shape'
    ) as raised:
        fit_linear(Broken, labelled(), ZERO, ridge=0.0)
    assert isinstance(raised.value.__cause__, ValueError)
