"""A screening small enough to be made for every test: four seeds whose latents are turned against each other."""

import numpy as np
import pytest
from ase.build import molecule
from scipy.stats import special_ortho_group

from aiida_oodal.engine.ood.candidates import select_candidates
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.report.screening.content import NodeId, ScreenView, ViewedSet

LABELS = ('w1', 'w2', 'w3', 'w4')
N_FEATURES = 6


class Ensemble:
    """Four models: what they are told of an atom is where it is, and far from the reference they guess."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.element = rng.normal(size=(10, N_FEATURES))
        self.mixing = rng.normal(size=(3, N_FEATURES))
        self.bases = [special_ortho_group.rvs(N_FEATURES, random_state=seed + k) for k in range(len(LABELS))]

    def latents(self, structures, seed):
        rng = np.random.default_rng(seed)
        centred = np.concatenate([atoms.positions - ETHANOL.positions for atoms in structures])
        environment = self.element[structures.numbers] + 3.0 * centred @ self.mixing
        guess = 0.02 + 0.4 * np.linalg.norm(centred, axis=1, keepdims=True)
        own = [(environment + guess * rng.normal(size=environment.shape)) @ basis for basis in self.bases]
        truth = structures.arrays['REF_forces']
        forces = [truth + guess * rng.normal(size=truth.shape) for _ in LABELS]
        energies = rng.normal(scale=0.1, size=(len(LABELS), len(structures)))
        return EnsembleLatents.from_arrays(
            LABELS, structures.numbers, structures.offsets, own, energies=energies, forces=forces
        )


ETHANOL = molecule('CH3CH2OH')


def rattle(n, width, seed):
    """Return labelled ethanol, moved about."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = ETHANOL.copy()
        atoms.positions += rng.normal(scale=width, size=atoms.positions.shape)
        atoms.arrays['REF_forces'] = rng.normal(size=atoms.positions.shape)
        atoms.info['REF_energy'] = -40.0 + rng.normal(scale=0.1)
        frames.append(atoms)
    return StructureSet.from_atoms(frames)


@pytest.fixture(scope='session')
def screened_sets():
    """Structures and latents by name of the set."""
    ensemble = Ensemble()
    sets = {'reference': (60, 0.05), 'heldout': (40, 0.05), 'cold': (30, 0.05), 'hot': (30, 0.4)}
    structures = {name: rattle(n, width, seed) for seed, (name, (n, width)) in enumerate(sets.items())}
    return {name: (own, ensemble.latents(own, seed)) for seed, (name, own) in enumerate(structures.items())}


@pytest.fixture(scope='session')
def view(screened_sets):
    """Return the view of a screening of cold and hot ethanol."""
    latents = {name: entry for name, (_, entry) in screened_sets.items()}
    labels = screened_sets['heldout'][0].arrays['REF_forces']
    reference = OodReference.fit(latents['reference'], latents['heldout'], reference_forces=labels)
    sets = []
    for name, (structures, own) in screened_sets.items():
        scores = reference.score(own)
        chosen = [] if name != 'hot' else select_candidates(scores.of('aligned_variance'), n=3)
        taken = sorted((entry for entry in chosen if entry.taken), key=lambda entry: entry.order)
        mean = np.mean(own.forces, axis=0)
        sets.append(
            ViewedSet(
                name,
                {'A': scores},
                {'A': reference.structure_consensus(own)},
                structures=structures,
                role=name if name in ('reference', 'heldout') else 'target',
                nodes={'structures': NodeId('StructureSetData', len(name), f'uuid-of-{name}')},
                candidates={entry.index: entry.reason for entry in taken},
                force_errors=np.linalg.norm(mean - structures.arrays['REF_forces'], axis=1),
            )
        )
    return ScreenView(sets, nodes={'screening': NodeId('ScreenWorkChain', 1, 'uuid-of-screening')})
