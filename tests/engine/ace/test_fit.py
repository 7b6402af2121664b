from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.engine.ace.basis import AceBasis
from aiida_oodal.engine.ace.fit import Learned, fit_ace
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.linear import fit as linear_fit
from aiida_oodal.engine.linear.errors import compare, judge
from aiida_oodal.engine.linear.targets import make_target

require('pyace')


def fit(structures, values, **keywords):
    """Fit with energies as they are, unless told otherwise."""
    return fit_ace([make_target(atoms, values, 'x') for atoms in structures], values, **keywords)


def coefficients(fitted):
    return fitted.potential.basis.coefficients


def counts(fitted):
    return {name: chosen.n_environments for name, chosen in fitted.potential.active_sets.items()}


def same(one, other):
    """Compare two fits bit by bit."""
    return np.array_equal(coefficients(one), coefficients(other)) and all(
        np.array_equal(inverse, other.potential.inverse_active_set[name])
        for name, inverse in one.potential.inverse_active_set.items()
    )


def with_mask(structures, n_core=16):
    for atoms in structures:
        atoms.arrays['force_mask'] = (np.arange(len(atoms)) < n_core).astype(float)
    return structures


@pytest.fixture
def alloys():
    """Four labelled Al-Cu cells of 16 atoms with different compositions."""
    structures = []
    for index in range(4):
        atoms = bulk('Al', 'fcc', a=3.9, cubic=True).repeat((2, 2, 1))
        atoms.symbols[: 6 + index] = 'Cu'
        atoms.rattle(0.15, seed=index)
        structures.append(label_structure(atoms, EMT()))
    return structures


def test_coefficients_are_those_of_weighted_least_squares(aluminium, values):
    settings = values(energy_weight=7.0, ridge=1e-3, weights='downweight', downweight=0.5)
    structures = [*aluminium[:2], *with_mask(aluminium[2:])]
    basis = AceBasis.from_settings(settings, ['Al'])
    rows, labels, weights = [], [], []
    for atoms in structures:
        design = basis.design(atoms)
        mask = atoms.arrays.get('force_mask', np.ones(32))
        rows += [design.energy[np.newaxis] / 32, design.forces.reshape(96, -1)]
        labels += [[atoms.info['REF_energy'] / 32], atoms.arrays['REF_forces'].ravel()]
        weights += [[7.0 if mask.all() else 3.5], np.repeat(np.where(mask == 1, 1.0, 0.5), 3)]
    x, y, w = (np.concatenate(parts) for parts in (rows, labels, weights))
    n = basis.n_functions
    x, y = np.vstack([w[:, None] * x, np.sqrt(1e-3) * np.eye(n)]), np.concatenate([w * y, np.zeros(n)])
    expected, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert np.allclose(coefficients(fit(structures, settings)), expected, rtol=1e-8, atol=1e-10)


def test_a_potential_of_the_same_basis_is_recovered(aluminium, values):
    settings = values(ridge=0.0)
    truth = AceBasis.from_settings(settings, ['Al'])
    truth.basis.basis_coeffs = np.random.default_rng(1).normal(size=truth.n_functions)
    for atoms in aluminium:
        prediction = truth.predict(atoms)
        atoms.info['REF_energy'], atoms.arrays['REF_forces'] = prediction.energy, prediction.forces
    fitted = fit(aluminium[:3], settings)
    assert np.allclose(coefficients(fitted), truth.basis.basis_coeffs, atol=1e-6)
    assert np.allclose(
        fitted.potential.basis.predict(aluminium[3]).forces, aluminium[3].arrays['REF_forces'], atol=1e-6
    )


def test_an_alloy_of_the_same_basis_is_recovered(alloys, values):
    settings = values(ridge=0.0, number_of_functions=8, repulsion='none')
    truth = AceBasis.from_settings(settings, ['Al', 'Cu'])
    truth.basis.basis_coeffs = np.random.default_rng(1).normal(size=truth.n_functions)
    for atoms in alloys:
        prediction = truth.predict(atoms)
        atoms.info['REF_energy'], atoms.arrays['REF_forces'] = prediction.energy, prediction.forces
    fitted = fit(alloys, settings)
    assert fitted.potential.basis.elements == ('Al', 'Cu')
    assert counts(fitted) == {'Al': 64 - 30, 'Cu': 30}
    # Al-Cu and Cu-Al pair functions add up to the same total energy: the coefficients have no unique value, forces do.
    hot = alloys[0].copy()
    hot.rattle(0.3, seed=8)
    assert np.allclose(fitted.potential.basis.predict(hot).forces, truth.predict(hot).forces, atol=1e-6)
    assert fitted.potential.basis.predict(hot).energy == pytest.approx(truth.predict(hot).energy, abs=1e-6)


def test_masked_labels_change_nothing(aluminium, values):
    settings = values(weights='mask')
    structures = [aluminium[0], *with_mask(aluminium[1:])]
    before = fit(structures, settings)
    for atoms in structures[1:]:
        atoms.arrays['REF_forces'][16:] += 100.0
        atoms.info['REF_energy'] += 1000.0
    assert same(fit(structures, settings), before)
    structures[1].arrays['REF_forces'][3] += 0.1
    assert not same(fit(structures, settings), before)


@pytest.mark.parametrize('weights', ['mask', 'downweight'])
def test_masked_environments_stay_out_of_the_active_set(aluminium, values, weights):
    settings = values(weights=weights)
    structures = with_mask(aluminium, n_core=20)
    fitted = fit(structures, settings)
    assert counts(fitted) == {'Al': 80}
    inverse = fitted.potential.inverse_active_set['Al']
    projections = [fitted.potential.basis.predict(atoms).projections for atoms in structures]
    for inside, rows in (
        (12, [row for each in projections for row in each[:20]]),
        (0, [row for each in projections for row in each[20:]]),
    ):
        # An environment of the active set is a unit vector in terms of it.
        coordinates = np.sort(np.abs(np.array(rows) @ inverse), axis=1)
        units = (np.abs(coordinates[:, -1] - 1.0) < 1e-4) & (coordinates[:, -2] < 1e-4)
        assert units.sum() == inside


def test_masked_environments_are_graded_as_unknown(aluminium, values):
    """The same atoms that a full fit calls known have a larger gamma where the mask hid them."""
    structures = with_mask(aluminium, n_core=6)
    grades = {}
    for weights in ('full', 'mask'):
        fitted = fit(structures, values(weights=weights))
        grades[weights] = np.array(
            [fitted.potential.gamma(atoms, fitted.potential.basis.predict(atoms).projections) for atoms in structures]
        )
    assert grades['full'].max() <= 1.001
    assert grades['mask'][:, :6].max() <= 1.001
    assert grades['mask'][:, 6:].max() > 1.5


def test_full_weights_ignore_the_mask(aluminium, values):
    before = fit([atoms.copy() for atoms in aluminium], values())
    assert same(fit(with_mask(aluminium), values()), before)


def test_gamma_is_that_of_pyace(alloys, values, tmp_path):
    from aiida_oodal.engine.ace.basis import import_pyace

    fitted = fit(alloys, values(number_of_functions=8))
    fitted.potential.basis.save(tmp_path / 'potential.yaml')
    fitted.potential.save_active_set(tmp_path / 'active_set.asi')
    hot = alloys[1].copy()
    hot.rattle(0.4, seed=9)
    calculator = import_pyace().PyACECalculator(str(tmp_path / 'potential.yaml'))
    calculator.set_active_set(str(tmp_path / 'active_set.asi'))
    calculator.calculate(hot)
    gamma = fitted.potential.gamma(hot, fitted.potential.basis.predict(hot).projections)
    assert gamma.max() > 2.0
    assert np.allclose(gamma, calculator.results['gamma'], rtol=1e-9)


def test_the_same_data_give_the_same_potential_to_the_bit(aluminium, values, tmp_path):
    for name in ('a', 'b'):
        fitted = fit(aluminium, values())
        fitted.potential.basis.save(tmp_path / f'{name}.yaml')
        fitted.potential.save_active_set(tmp_path / f'{name}.asi')
    for suffix in ('yaml', 'asi'):
        assert (tmp_path / f'a.{suffix}').read_bytes() == (tmp_path / f'b.{suffix}').read_bytes()


def test_blocks_of_the_design_matrix_add_up(aluminium, values, monkeypatch):
    whole = fit(aluminium, values())
    monkeypatch.setattr(linear_fit, '_BLOCK_ATOMS', 32)
    lines = []
    parts = fit(aluminium, values(), report=lines.append)
    assert lines[-1] == 'design matrix: block 4 of 4'
    assert np.allclose(coefficients(parts), coefficients(whole), rtol=1e-6)
    assert np.array_equal(parts.potential.inverse_active_set['Al'], whole.potential.inverse_active_set['Al'])


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_processes(aluminium, values, monkeypatch):
    monkeypatch.setattr(linear_fit, '_BLOCK_ATOMS', 64)
    assert same(fit(aluminium, values(), workers=2), fit(aluminium, values(), workers=1))


def test_more_functions_than_environments_are_no_obstacle(aluminium, values):
    """128 environments cannot fill 150 places: the rest of the set is made of directions that they do not span."""
    settings = values(
        number_of_functions=150, radial_functions_by_order=(15, 8, 4), angular_momentum_by_order=(0, 4, 2)
    )
    fitted = fit(aluminium, settings).potential
    (n_functions,) = fitted.basis.sizes
    chosen = fitted.active_sets['Al']
    assert chosen.n_environments == 128 < n_functions
    assert chosen.rank <= 128
    assert chosen.inverse.shape == (n_functions, n_functions)
    gamma = [fitted.gamma(atoms, fitted.basis.predict(atoms).projections).max() for atoms in aluminium]
    assert max(gamma) <= 1.001
    hot = aluminium[0].copy()
    hot.rattle(0.3, seed=1)
    assert fitted.gamma(hot, fitted.basis.predict(hot).projections).max() > 5.0


def test_a_perfect_crystal_can_be_learned_and_anything_else_is_new(values):
    """All environments are alike: one direction is spanned, and gamma is not blind in all others."""
    perfect = label_structure(bulk('Al', 'fcc', a=4.0, cubic=True).repeat(2), EMT())
    fitted = fit([perfect], values()).potential
    assert fitted.active_sets['Al'].rank == 1
    assert fitted.gamma(perfect, fitted.basis.predict(perfect).projections) == pytest.approx(1.0, abs=1e-3)
    moved = perfect.copy()
    moved.rattle(0.05, seed=1)
    assert fitted.gamma(moved, fitted.basis.predict(moved).projections).max() > 2.0


def dilute():
    """One Cu per cell of Al, as a first set of an impurity is made: two Cu never meet."""
    structures = []
    for seed in range(3):
        atoms = bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)
        atoms.symbols[0] = 'Cu'
        atoms.rattle(0.08, seed=seed)
        structures.append(label_structure(atoms, EMT()))
    return structures


def test_pairs_of_elements_that_never_meet_are_named(values):
    with pytest.raises(
        OodalError, match=r"^Cu-Cu: these elements are never within 4.5 angstrom .*unmet_pairs='accept'"
    ):
        fit(dilute(), values())


def test_pairs_that_never_meet_can_be_gone_on_without(values):
    fitted = fit(dilute(), values(unmet_pairs='accept'))
    assert fitted.unmet_pairs == [('Cu', 'Cu')]
    potential = fitted.potential
    known, met = dilute()[0], dilute()[0]
    met.symbols[1] = 'Cu'
    errors = potential.basis.predict(known).forces - known.arrays['REF_forces']
    assert np.sqrt(np.mean(errors**2)) < 0.05
    assert potential.gamma(known, potential.basis.predict(known).projections).max() <= 1.001
    assert met.get_distance(0, 1, mic=True) < 3.2
    gamma = potential.gamma(met, potential.basis.predict(met).projections)
    assert gamma[:2].min() > 3.0


def test_an_isolated_atom_sets_the_atom_energies(aluminium, values):
    free = label_structure(Atoms('Al', cell=[12, 12, 12], pbc=True), EMT())
    alone, before = fit([*aluminium, free], values()), fit(aluminium, values())
    assert alone.potential.atom_energies.sources == {'Al': 'isolated'}
    assert alone.potential.atom_energies.values == {'Al': pytest.approx(free.info['REF_energy'])}
    targets = [make_target(atoms, values(), 'x') for atoms in aluminium]
    error = judge(compare(alone.potential, targets))['energy_rmse']
    assert error < max(2.0 * judge(compare(before.potential, targets))['energy_rmse'], 1.0)
    (isolated,) = compare(alone.potential, [make_target(free, values(), 'free')])
    assert isolated.energy == pytest.approx(free.info['REF_energy'])


def test_atom_energies_can_be_fitted(aluminium, values):
    """Whatever is added to every atom is found, and nothing else changes."""
    plain = fit(aluminium, values(fit_atom_energies=True))
    for atoms in aluminium:
        atoms.info['REF_energy'] -= 32 * 537.0
    moved = fit(aluminium, values(fit_atom_energies=True))
    difference = moved.potential.atom_energies.values['Al'] - plain.potential.atom_energies.values['Al']
    assert difference == pytest.approx(-537.0, abs=1e-3)
    targets = [make_target(atoms, values(), 'x') for atoms in aluminium]
    errors = judge(compare(moved.potential, targets))['energy_rmse'], judge(compare(plain.potential, targets))
    assert errors[0] < 20.0
    with pytest.raises(OodalError, match='are total energies: give reference_energies'):
        fit(aluminium, values())


def test_a_left_handed_cell_is_a_cell_like_any_other(aluminium, values):
    """Two axes exchanged: the same crystal, the same potential."""
    expected = fit(aluminium, values())
    for atoms in aluminium:
        atoms.set_cell(atoms.cell.array[[1, 0, 2]], scale_atoms=False)
        assert np.linalg.det(atoms.cell.array) < 0
    assert np.allclose(coefficients(fit(aluminium, values())), coefficients(expected), rtol=1e-4, atol=1e-6)


def test_a_structure_that_cannot_be_computed_is_named(aluminium, values):
    aluminium[2].set_cell([8, 8, 0])
    targets = [make_target(atoms, values(), f'start: structure {index}') for index, atoms in enumerate(aluminium)]
    with pytest.raises(OodalError, match=r'^start: structure 2: the cell'):
        fit_ace(targets, values())


def test_the_potential_grows_when_its_data_say_so_and_never_shrinks(aluminium, values):
    small = fit(aluminium, values(number_of_functions=4, max_functions=4, force_tolerance=1e-6))
    assert [step.form.number_of_functions for step in small.steps] == [4]
    grown = fit(aluminium, values(number_of_functions=4, max_functions=12, force_tolerance=1e-6))
    assert [step.form.number_of_functions for step in grown.steps] == [4, 8, 12]
    assert grown.steps[-1].force_rmse < small.steps[-1].force_rmse
    before = Learned(number_of_functions=10, cutoff=5.0)
    after = fit(aluminium, values(number_of_functions=4, max_functions=12, force_tolerance=1.0), learned=before)
    assert [(step.form.number_of_functions, step.form.cutoff) for step in after.steps] == [(10, 5.0)]
    assert 'within the tolerance of 1000' in after.reason


def test_nothing_to_fit_is_an_error(values):
    with pytest.raises(OodalError, match='no structure to fit'):
        fit([], values())
