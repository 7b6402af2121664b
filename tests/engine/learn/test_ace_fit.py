from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn import ace_fit
from aiida_oodal.engine.learn.ace_basis import AceBasis
from aiida_oodal.engine.learn.ace_fit import fit_ace
from aiida_oodal.engine.learn.ace_targets import make_target
from aiida_oodal.engine.learn.reference import label_structure

pytest.importorskip('pyace', reason='the extra ace (python-ace) is not installed')


def fit(structures, values, **keywords):
    return fit_ace([make_target(atoms, values, 'x') for atoms in structures], values, **keywords)


def coefficients(fitted):
    return np.array(fitted.basis.basis.basis_coeffs)


def same(one, other):
    """Compare two fits bit by bit."""
    return np.array_equal(coefficients(one), coefficients(other)) and all(
        np.array_equal(one.inverse_active_set[name], other.inverse_active_set[name]) for name in one.inverse_active_set
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
    assert np.allclose(fitted.basis.predict(aluminium[3]).forces, aluminium[3].arrays['REF_forces'], atol=1e-6)


def test_an_alloy_of_the_same_basis_is_recovered(alloys, values):
    settings = values(ridge=0.0, number_of_functions=8)
    truth = AceBasis.from_settings(settings, ['Al', 'Cu'])
    truth.basis.basis_coeffs = np.random.default_rng(1).normal(size=truth.n_functions)
    for atoms in alloys:
        prediction = truth.predict(atoms)
        atoms.info['REF_energy'], atoms.arrays['REF_forces'] = prediction.energy, prediction.forces
    fitted = fit(alloys, settings)
    assert fitted.basis.elements == ('Al', 'Cu')
    assert fitted.n_environments == {'Al': 64 - 30, 'Cu': 30}
    # Al-Cu and Cu-Al pair functions add up to the same total energy: the coefficients have no unique value, forces do.
    hot = alloys[0].copy()
    hot.rattle(0.3, seed=8)
    assert np.allclose(fitted.basis.predict(hot).forces, truth.predict(hot).forces, atol=1e-6)
    assert fitted.basis.predict(hot).energy == pytest.approx(truth.predict(hot).energy, abs=1e-6)


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
    assert fitted.n_environments == {'Al': 80}
    active = np.linalg.inv(fitted.inverse_active_set['Al'])
    projections = [fitted.basis.predict(atoms).projections for atoms in structures]
    for inside, rows in (
        (True, [row for each in projections for row in each[:20]]),
        (False, [row for each in projections for row in each[20:]]),
    ):
        distance = np.abs(active[:, None] - np.array(rows)[None]).max(axis=2).min(axis=1)
        assert np.all(distance < 1e-8) if inside else np.all(distance > 1e-6)


def test_masked_environments_are_graded_as_unknown(aluminium, values):
    """The same atoms that a full fit calls known have a larger gamma where the mask hid them."""
    structures = with_mask(aluminium, n_core=6)
    grades = {}
    for weights in ('full', 'mask'):
        fitted = fit(structures, values(weights=weights))
        grades[weights] = np.array(
            [fitted.gamma(atoms, fitted.basis.predict(atoms).projections) for atoms in structures]
        )
    assert grades['full'].max() <= 1.001
    assert grades['mask'][:, :6].max() <= 1.001
    assert grades['mask'][:, 6:].max() > 1.5


def test_full_weights_ignore_the_mask(aluminium, values):
    before = fit([atoms.copy() for atoms in aluminium], values())
    assert same(fit(with_mask(aluminium), values()), before)


def test_gamma_is_that_of_pyace(alloys, values, tmp_path):
    from aiida_oodal.engine.learn.ace_basis import import_pyace

    fitted = fit(alloys, values(number_of_functions=8))
    fitted.basis.save(tmp_path / 'potential.yaml')
    fitted.save_active_set(tmp_path / 'active_set.asi')
    hot = alloys[1].copy()
    hot.rattle(0.4, seed=9)
    calculator = import_pyace().PyACECalculator(str(tmp_path / 'potential.yaml'))
    calculator.set_active_set(str(tmp_path / 'active_set.asi'))
    calculator.calculate(hot)
    gamma = fitted.gamma(hot, fitted.basis.predict(hot).projections)
    assert gamma.max() > 2.0
    assert np.allclose(gamma, calculator.results['gamma'], rtol=1e-9)


def test_the_same_data_give_the_same_potential_to_the_bit(aluminium, values, tmp_path):
    for name in ('a', 'b'):
        fitted = fit(aluminium, values())
        fitted.basis.save(tmp_path / f'{name}.yaml')
        fitted.save_active_set(tmp_path / f'{name}.asi')
    for suffix in ('yaml', 'asi'):
        assert (tmp_path / f'a.{suffix}').read_bytes() == (tmp_path / f'b.{suffix}').read_bytes()


def test_blocks_of_the_design_matrix_add_up(aluminium, values, monkeypatch):
    whole = fit(aluminium, values())
    monkeypatch.setattr(ace_fit, '_BLOCK_ATOMS', 32)
    lines = []
    parts = fit(aluminium, values(), report=lines.append)
    assert lines[-1] == 'design matrix: block 4 of 4'
    assert np.allclose(coefficients(parts), coefficients(whole), rtol=1e-6)
    assert np.array_equal(parts.inverse_active_set['Al'], whole.inverse_active_set['Al'])


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_processes(aluminium, values, monkeypatch):
    monkeypatch.setattr(ace_fit, '_BLOCK_ATOMS', 64)
    assert same(fit(aluminium, values(), workers=2), fit(aluminium, values(), workers=1))


def test_too_few_environments_are_counted(aluminium, values):
    with pytest.raises(OodalError, match=r'Al: 128 environments for 1\d\d basis functions.*add structures'):
        fit(
            aluminium,
            values(number_of_functions=150, radial_functions_by_order=(15, 8, 4), angular_momentum_by_order=(0, 4, 2)),
        )
    with pytest.raises(OodalError, match=r"Al: 8 environments for 12 basis functions.*use weights='full'"):
        fit(with_mask(aluminium, n_core=2), values(weights='mask'))


def test_environments_that_are_all_alike_have_no_active_set(aluminium, values):
    perfect = label_structure(bulk('Al', 'fcc', a=4.0, cubic=True).repeat(2), EMT())
    with pytest.raises(OodalError, match=r'Al: 64 environments span only 1 of 12 basis functions.*larger strain'):
        fit([perfect, perfect], values())


def test_functions_that_no_environment_reaches_are_refused(values):
    """Al and Cu that never meet leave every Al-Cu function at zero: gamma would be blind there."""
    structures = []
    for symbol, seed in (('Al', 1), ('Cu', 2)):
        atoms = bulk(symbol, 'fcc', a=3.9, cubic=True).repeat(2)
        atoms.rattle(0.1, seed=seed)
        structures.append(label_structure(atoms, EMT()))
    with pytest.raises(OodalError, match=r'Al: 32 environments span only \d of \d+ basis functions'):
        fit(structures, values())


def test_nothing_to_fit_is_an_error(values):
    with pytest.raises(OodalError, match='no structure to fit'):
        fit([], values())
