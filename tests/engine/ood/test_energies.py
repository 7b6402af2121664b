"""Disagreement over energies."""

import numpy as np
import pytest

from aiida_oodal.engine.ood.parts.energies import EnergyOffsets, composition


def test_constants_of_elements_are_no_disagreement(made_up) -> None:
    latents = made_up(20)
    counts = composition(latents.numbers, latents.offsets, np.array([6, 8]))
    assert counts.sum() == latents.n_atoms
    sizes = counts.sum(axis=1)
    rng = np.random.default_rng(0)
    common = rng.normal(size=20) * 10
    energies = common + rng.normal(size=(4, 2)) @ counts.T
    fitted = EnergyOffsets.fit(latents, energies)
    assert fitted(latents, energies).max() < 1e-12
    raised = energies.copy()
    raised[:, 3] += np.array([0.1, -0.1, 0.1, -0.1]) * sizes[3]
    found = fitted(latents, raised)
    assert found[3] == pytest.approx(np.std([0.1, -0.1, 0.1, -0.1], ddof=1))
    assert np.delete(found, 3).max() < 1e-12
