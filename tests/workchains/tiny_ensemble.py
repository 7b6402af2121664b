"""The four tiny MACE models of the tests, and the reference fitted to what they were trained on."""

from pathlib import Path

import numpy as np
from ase.io import read

from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.models import open_model
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference

DATA = Path(__file__).parents[1] / 'data' / 'mace_alcu'
MODELS = {f'w{seed}': DATA / f'w{seed}.model' for seed in (1, 2, 3, 4)}


def latents_of(structures, labels=tuple(MODELS)):
    models = [open_model(MODELS[label], label=label, device='cpu') for label in labels]
    batch = merge_graphs([build_graph(atoms, models[0].info.cutoff) for atoms in structures])
    offsets = np.concatenate([[0], np.cumsum(batch.sizes)])
    latents = [model.evaluate(batch).latents for model in models]
    return EnsembleLatents.from_arrays(labels, batch.numbers, offsets, latents)


def fit(labels=tuple(MODELS), models=None):
    known, heldout = (latents_of(read(DATA / f'{name}.extxyz', ':'), labels) for name in ('train', 'heldout'))
    metric = 'aligned_variance' if len(labels) > 1 else 'mahalanobis'
    return OodReference.fit(known, heldout, settings={'metrics': [metric]}, models=models)
