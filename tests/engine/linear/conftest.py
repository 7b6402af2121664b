"""A second basis, of a page: sums over pairs in a molecule, so that the algebra is tested without pyace."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.linear.basis import Design, Prediction


class PairBasis:
    """Function k of an atom: half the sum over the others of ``exp(-k r)``, k = 1, 2, ... (1/angstrom)."""

    elements = ('Ar',)

    def __init__(self, n_functions: int = 4) -> None:
        self.sizes = (n_functions,)
        self.coefficients = np.zeros(n_functions)

    def set_coefficients(self, coefficients: np.ndarray) -> None:
        self.coefficients = np.array(coefficients)

    def design(self, atoms: Atoms, *, stress: bool = False) -> Design:
        powers = np.arange(1, self.sizes[0] + 1)
        vectors = atoms.positions[:, None] - atoms.positions[None]
        distances = np.linalg.norm(vectors, axis=2)
        np.fill_diagonal(distances, np.inf)
        if distances.min() < 0.1:
            raise OodalError('two atoms are on top of each other')
        values = np.exp(-powers * distances[..., None])
        # The energy of a pair is counted at both of its ends, a half each.
        forces = np.einsum('ijk,ijx->ixk', powers * values / distances[..., None], vectors)
        projections = values.sum(axis=1) / 2.0
        strain = np.einsum('ijk,ijx,ijy->xyk', -powers * values / distances[..., None], vectors, vectors) / 2.0
        voigt = strain[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / atoms.get_volume() if stress else None
        return Design(projections.sum(axis=0), forces, voigt, list(projections))

    def predict(self, atoms: Atoms) -> Prediction:
        design = self.design(atoms, stress=bool(atoms.pbc.all()))
        stress = None if design.stress is None else design.stress @ self.coefficients
        return Prediction(
            float(design.energy @ self.coefficients), design.forces @ self.coefficients, stress, design.projections
        )


def molecule(n_atoms: int, seed: int) -> Atoms:
    """Atoms of argon on a lattice of 1.5 angstrom, displaced at random, in a box that sees no image."""
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)[:n_atoms]
    positions = 1.5 * grid + np.random.default_rng(seed).normal(scale=0.15, size=(n_atoms, 3))
    return Atoms(f'Ar{n_atoms}', positions=positions, cell=[20, 20, 20], pbc=True)


def label(basis: PairBasis, atoms: Atoms, atom_energy: float = 0.0) -> Atoms:
    """Label a structure by what a potential says of it."""
    prediction = basis.predict(atoms)
    atoms.info['REF_energy'] = prediction.energy + atom_energy * len(atoms)
    atoms.info['REF_stress'] = prediction.stress
    atoms.arrays['REF_forces'] = prediction.forces
    return atoms


@pytest.fixture
def toy() -> SimpleNamespace:
    """Return the basis, a function that makes molecules, and one that labels them by a potential of the basis."""
    return SimpleNamespace(PairBasis=PairBasis, molecule=molecule, label=label)
