"""A reference set, fitted to real latents: what it finds, what it must not depend on, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.scores import AGGREGATES
from aiida_oodal.engine.ood.statistics import auroc

TESTS = ('test300', 'test600', 'test1200')


def assert_same(one, other, tolerance: float) -> None:
    assert one.metrics == other.metrics
    for metric, values in one.per_atom.items():
        assert np.abs(values - other.per_atom[metric]).max() < tolerance, metric
    for metric, kinds in one.per_structure.items():
        for kind, values in kinds.items():
            assert np.abs(values - other.per_structure[metric][kind]).max() < tolerance, (metric, kind)


@pytest.mark.parametrize('metric', ['aligned_variance', 'predicted_error', 'mahalanobis', 'gmm', 'knn', 'force_std'])
def test_hot_structures_are_found(real_scores, metric: str) -> None:
    inside, warm, hot = (real_scores(name).of(metric) for name in TESTS)
    assert auroc(inside, warm) >= 0.95
    assert auroc(inside, hot) >= 0.99
    assert real_scores('test300').flags(metric).mean() <= 0.15  # 16 structures
    assert real_scores('test1200').flags(metric).all()


def test_the_raw_variance_ranks_them_the_wrong_way_round(real_scores) -> None:
    inside, warm, hot = (real_scores(name).of('variance') for name in TESTS)
    assert auroc(inside, warm) < 0.3
    assert auroc(inside, hot) < 0.1


def test_disagreement_goes_with_the_true_error(real_scores, real_arrays, real_atoms) -> None:
    u, predicted, errors, numbers = [], [], [], []
    for name in TESTS:
        atoms = real_atoms(name)
        mean_force = real_arrays['forces'][:, atoms].astype(float).mean(axis=0)
        errors.append(np.linalg.norm(mean_force - real_arrays['ref_forces'][atoms], axis=1))
        u.append(real_scores(name).per_atom['aligned_variance'])
        predicted.append(real_scores(name).per_atom['predicted_error'])
        numbers.append(real_scores(name).numbers)
    u, predicted, errors, numbers = map(np.concatenate, (u, predicted, errors, numbers))
    true = np.sqrt((errors.reshape(-1, 15) ** 2).mean(axis=1))
    # 0.93 for the whole data set (benchmarks/ood.py); here are 40 structures without hydrogen, one layer of latents
    assert spearmanr(u.reshape(-1, 15).mean(axis=1), true)[0] >= 0.85
    assert np.mean([spearmanr(u[numbers == z], errors[numbers == z])[0] for z in (6, 7, 8)]) >= 0.55
    inside = slice(0, len(real_atoms('test300')))
    ratio = np.sqrt(np.mean(errors[inside] ** 2) / np.mean(predicted[inside] ** 2))
    assert 0.8 < ratio < 1.25  # eV/angstrom, not arbitrary units


def test_conformal_factor_covers_new_structures(reference, real_scores, real_arrays, real_atoms) -> None:
    atoms = real_atoms('test300')
    mean_force = real_arrays['forces'][:, atoms].astype(float).mean(axis=0)
    errors = np.linalg.norm(mean_force - real_arrays['ref_forces'][atoms], axis=1)
    bound = reference.error_scale.factor * real_scores('test300').per_atom['predicted_error']
    assert 0.8 < np.mean(errors < bound) < 0.97
    assert reference.error_scale.covered < 0.75  # without it


def test_rotating_each_model_changes_no_score(reference, real_set, real_scores, real_arrays, real_atoms) -> None:
    rng = np.random.default_rng(5)
    turns = np.stack([np.linalg.qr(rng.normal(size=(64, 64)))[0] for _ in range(4)])
    labels = real_arrays['ref_forces'][real_atoms('valid')]
    train, valid, test = (real_set(name, lambda latents: latents @ turns) for name in ('train', 'valid', 'test600'))
    turned = OodReference.fit(train, valid, reference_forces=labels).score(test)
    old = real_scores('test600')
    kept = [name for name in old.per_atom if name != 'variance']
    for metric in kept:
        assert np.abs(old.per_atom[metric] - turned.per_atom[metric]).max() < 1e-6, metric
        assert np.array_equal(old.flags(metric), turned.flags(metric))
    assert np.abs(old.per_atom['variance'] - turned.per_atom['variance']).max() > 1e-3


def test_the_same_model_four_times_never_disagrees(real_set) -> None:
    def same(latents: np.ndarray) -> np.ndarray:
        return np.stack([latents[0]] * 4)

    fitted = OodReference.fit(real_set('train', same), real_set('valid', same))
    scores = fitted.score(real_set('test1200', same), ['aligned_variance', 'variance'])
    assert scores.per_atom['aligned_variance'].max() < 1e-10
    assert scores.per_atom['variance'].max() == 0.0


def test_flag_rate_in_distribution(made_up) -> None:
    """Thresholds of 400 held-out structures hold for 1000 new ones."""
    fitted = OodReference.fit(made_up(100, 0), made_up(400, 1))
    new = fitted.score(made_up(1000, 2))
    for metric in ('aligned_variance', 'mahalanobis', 'gmm', 'knn', 'force_std', 'energy_std'):
        for kind in new.per_structure[metric]:
            assert 0.02 < new.flags(metric, kind, 0.95).mean() < 0.09, (metric, kind)
        if metric in new.per_atom:
            assert 0.03 < new.atom_flags(metric).mean() < 0.07
    moved = fitted.score(made_up(50, 3, shift=2.0))
    for metric in ('mahalanobis', 'gmm', 'knn'):
        assert moved.flags(metric).mean() > 0.9
    noisy = fitted.score(made_up(50, 4, noise=0.2))
    assert noisy.flags('aligned_variance').mean() > 0.9


@pytest.mark.parametrize('chunk_atoms', [1, 100, 10**6])
def test_chunks_change_no_number(reference, real_set, real_scores, real_arrays, real_atoms, chunk_atoms: int) -> None:
    labels = real_arrays['ref_forces'][real_atoms('valid')]
    fitted = OodReference.fit(
        real_set('train'), real_set('valid'), reference_forces=labels, settings={'chunk_atoms': chunk_atoms}
    )
    assert_same(fitted.score(real_set('test600'), chunk_atoms=chunk_atoms), real_scores('test600'), 1e-8)


def test_stored_and_read_again_it_gives_identical_scores(reference, real_set, real_scores, tmp_path) -> None:
    np.savez(tmp_path / 'reference.npz', allow_pickle=False, **reference.to_arrays())
    with np.load(tmp_path / 'reference.npz', allow_pickle=False) as archive:
        again = OodReference.from_arrays({name: archive[name] for name in archive.files})
    assert_same(again.score(real_set('test600')), real_scores('test600'), 1e-300)
    assert again.options == reference.options
    assert again.notes == reference.notes
    assert again.error_scale.factor == reference.error_scale.factor
    arrays = reference.to_arrays()
    del arrays['alignment__maps']
    with pytest.raises(OodalError, match='damaged or of another kind'):
        OodReference.from_arrays(arrays)


def test_fitting_twice_gives_the_same_bytes(made_up) -> None:
    one, other = (OodReference.fit(made_up(40), made_up(20, 1)).to_arrays() for _ in range(2))
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_without_a_heldout_set_a_part_is_held_out(made_up) -> None:
    latents = made_up(100)
    labels = np.random.default_rng(0).normal(size=(latents.n_atoms, 3))
    fitted = OodReference.fit(latents, reference_forces=labels, settings={'heldout_fraction': 0.3})
    assert fitted.n_structures == 70
    assert fitted.thresholds.n_structures == 30
    assert 'held out of the reference set itself' in fitted.notes[0]
    assert fitted.error_scale is not None
    assert OodReference.fit(made_up(60), made_up(30, 1)).notes == ()


def test_notes_say_what_thresholds_are_worth(made_up) -> None:
    heldout = made_up(10, 1)
    heldout.numbers[:] = 6
    fitted = OodReference.fit(made_up(60), heldout)
    assert any('10 held-out structures are too few for a threshold at 95 %' in note for note in fitted.notes)
    assert any('no held-out structure contains O' in note for note in fitted.notes)


def test_gamma_is_one_at_the_edge_of_the_reference_set(reference, real_set, real_arrays, real_atoms) -> None:
    def gamma(name: str, level: float) -> np.ndarray:
        latents = real_arrays['latents'][:, real_atoms(name)]
        return reference.gamma(real_arrays['numbers'][real_atoms(name)], list(latents), level=level)

    assert np.mean(gamma('valid', 0.95) > 1.0) == pytest.approx(0.05, abs=0.02)
    assert np.mean(gamma('valid', 0.99) > 1.0) < 0.02
    assert np.mean(gamma('test300', 0.95) > 1.0) < 0.12
    assert np.all(gamma('test1200', 0.99).reshape(-1, 15).max(axis=1) > 1.0)
    u = reference.score(real_set('test300'), ['aligned_variance']).per_atom['aligned_variance']
    fast = reference.per_atom_aligned_variance(list(real_arrays['latents'][:, real_atoms('test300')]))
    assert np.allclose(u, fast, rtol=1e-12)
    assert reference.gamma([14], [rows[:1] for rows in real_arrays['latents']]).tolist() == [np.inf]


def test_consensus_is_the_mean_of_aligned_latents(reference, real_set) -> None:
    latents = real_set('test600')
    whole = reference.consensus(latents)
    assert whole.shape == (latents.n_atoms, 64)
    assert whole.dtype == np.float32
    some = np.array([0, 7, 8, 100, latents.n_atoms - 1])
    assert np.array_equal(reference.consensus(latents, some), whole[some])
    assert np.allclose(reference.structure_consensus(latents), whole.reshape(-1, 15, 64).mean(axis=1), atol=1e-6)
    assert np.abs(reference.consensus(real_set('train')).mean(axis=0)).max() < 1e-5


def test_what_does_not_fit_the_reference_is_refused(reference, real_set, made_up) -> None:
    latents = real_set('test300')
    strange = replace(latents, numbers=np.where(np.arange(latents.n_atoms) == 31, 14, latents.numbers))
    index = latents.structure_index[2]
    with pytest.raises(OodalError, match=rf'structure {index} contains Si, which the reference set lacks \(C, N, O\)'):
        reference.score(strange)
    far = reference.score(strange, unknown_elements='far')
    for metric in ('mahalanobis', 'gmm', 'knn', 'predicted_error'):
        assert np.isinf(far.per_atom[metric]).nonzero()[0].tolist() == [31]
        assert all(np.isinf(far.of(metric, kind)).nonzero()[0].tolist() == [2] for kind in AGGREGATES[:2])
        assert far.flags(metric)[2]
    assert far.atom_flags('aligned_variance')[31]
    with pytest.raises(OodalError, match='fitted to 64 latents of the models w1, w2, w3, w4; these are 12 latents'):
        reference.score(made_up(3))
    with pytest.raises(OodalError, match='the models w1, w2, w3, w4; these are 64 latents of w1, w2'):
        reference.score(
            EnsembleLatents.from_arrays(latents.labels[:2], latents.numbers, latents.offsets, latents.latents[:2])
        )
    with pytest.raises(OodalError, match=r'reference_forces have shape \(3, 3\)'):
        OodReference.fit(made_up(30), made_up(5, 1), reference_forces=np.zeros((3, 3)))
    with pytest.raises(OodalError, match=r'reference_forces have shape \(3, 3\)'):
        OodReference.fit(made_up(30), reference_forces=np.zeros((3, 3)))
    bare = replace(made_up(5, 1), forces=None)
    with pytest.raises(OodalError, match='latents computed with forces, are needed'):
        OodReference.fit(made_up(30), bare, reference_forces=np.zeros((bare.n_atoms, 3)))


def test_two_models_are_enough(real_set) -> None:
    def two(name: str) -> EnsembleLatents:
        latents = real_set(name)
        return EnsembleLatents.from_arrays(latents.labels[:2], latents.numbers, latents.offsets, latents.latents[:2])

    fitted = OodReference.fit(two('train'), two('valid'), settings={'metrics': ['aligned_variance']})
    inside, warm, hot = (fitted.score(two(name)).of('aligned_variance') for name in TESTS)
    assert auroc(inside, warm) > 0.9
    assert auroc(inside, hot) > 0.99
