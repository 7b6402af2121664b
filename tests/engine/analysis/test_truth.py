import numpy as np
import pytest

from aiida_oodal.engine.analysis.truth import EnergyZeros, energy_errors, force_errors
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents


def ensemble(n_atoms, energies=None, forces=None):
    """Structures of four atoms each."""
    offsets = np.arange(0, n_atoms + 1, 4)
    latents = [np.zeros((n_atoms, 2))] * 2
    numbers = np.ones(n_atoms, dtype=int)
    return EnsembleLatents.from_arrays(('w1', 'w2'), numbers, offsets, latents, energies=energies, forces=forces)


def test_force_error_is_that_of_the_mean_force_and_unknown_without_a_label():
    labels = np.random.default_rng(0).normal(size=(10_000, 3))  # several chunks
    forces = [labels + np.array([3.0, 8.0, 0.0]), labels + np.array([3.0, 0.0, 0.0])]
    labels[5] = np.nan
    found = force_errors(ensemble(10_000, forces=forces), labels)
    np.testing.assert_allclose(np.delete(found, 5), 5.0)
    assert np.isnan(found[5])


def test_energy_error_is_that_of_the_mean_energy_per_atom():
    found = energy_errors(ensemble(12, np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])), np.array([6.0, 2.0, np.nan]))
    np.testing.assert_allclose(found, [1.0, 0.0, np.nan])


def test_other_zeros_of_energy_are_no_errors():
    rng = np.random.default_rng(1)
    numbers, sizes = rng.choice([1, 8], 60), np.full(15, 4)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    energies = rng.normal(size=(2, 15))
    counts = np.stack([np.add.reduceat(numbers == z, offsets[:-1]) for z in (1, 8)], axis=1)
    noise = rng.normal(scale=0.02, size=15)
    labels = energies.mean(axis=0) + counts @ [-13.6, -2042.0] + noise
    labels[3] = np.nan
    zeros = EnergyZeros.fit(energies, labels, numbers, offsets)
    np.testing.assert_allclose(zeros.zeros, [-13.6, -2042.0], atol=0.02)
    latents = EnsembleLatents.from_arrays(('w1', 'w2'), numbers, offsets, [np.zeros((60, 2))] * 2, energies=energies)
    plain, corrected = energy_errors(latents, labels), energy_errors(latents, labels, zeros)
    assert np.nanmin(plain) > 10.0
    assert np.nanmax(corrected) < 0.02
    assert np.isnan(corrected[3])
    sentence = zeros.describe('the reference set')
    assert sentence.startswith('labels and models count energies from different zeros (H -13.')
    assert 'fitted on the reference set' in sentence
    # The same zeros need no sentence, and structures with an element that was not fitted have no error.
    assert EnergyZeros.fit(energies, energies.mean(axis=0), numbers, offsets).describe('x') is None
    assert EnergyZeros.fit(energies, np.full(15, np.nan), numbers, offsets) is None
    strange = EnergyZeros(np.array([1]), np.array([-13.6]))
    assert np.isnan(strange(numbers, offsets)).tolist() == (counts[:, 1] > 0).tolist()


def test_what_lacks_values_or_labels_is_refused():
    with pytest.raises(OodalError, match='without forces'):
        force_errors(ensemble(8), np.zeros((8, 3)))
    with pytest.raises(OodalError, match=r'shape \(7, 3\), not \(8, 3\)'):
        force_errors(ensemble(8, forces=[np.zeros((8, 3))] * 2), np.zeros((7, 3)))
    with pytest.raises(OodalError, match='without energies'):
        energy_errors(ensemble(8), np.zeros(2))
    with pytest.raises(OodalError, match=r'shape \(3,\), not \(2,\)'):
        energy_errors(ensemble(8, np.zeros((2, 2))), np.zeros(3))
