import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.truth import energy_errors, force_errors


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


def test_what_lacks_values_or_labels_is_refused():
    with pytest.raises(OodalError, match='without forces'):
        force_errors(ensemble(8), np.zeros((8, 3)))
    with pytest.raises(OodalError, match=r'shape \(7, 3\), not \(8, 3\)'):
        force_errors(ensemble(8, forces=[np.zeros((8, 3))] * 2), np.zeros((7, 3)))
    with pytest.raises(OodalError, match='without energies'):
        energy_errors(ensemble(8), np.zeros(2))
    with pytest.raises(OodalError, match=r'shape \(3,\), not \(2,\)'):
        energy_errors(ensemble(8, np.zeros((2, 2))), np.zeros(3))
