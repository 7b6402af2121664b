"""MD of an ensemble without LAMMPS, for `benchmarks/gpu.py`: neighbour lists are made once, and are ready."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from latents import save_model

from aiida_oodal.engine.evaluator import Neighbours
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.mace.batches import evaluate_graphs
from aiida_oodal.engine.mace.forces import MaceForces
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.memory import Budget, is_out_of_memory
from aiida_oodal.engine.mace.models import open_model
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference

CUTOFF, SKIN = 5.0, 1.0  # angstrom
LABELS = ('w1', 'w2', 'w3', 'w4')


def compare_steps(folder: Path, irreps: str, sizes: tuple[int, ...], steps: int, device: str) -> None:
    """Print MD steps per second of one model alone, and of an ensemble with gamma on every tenth step."""
    import torch

    files = {}
    for label in LABELS:
        torch.manual_seed(int(label[1]))
        files[label] = save_model(folder / f'{label}.model', irreps, [13], CUTOFF)
    reference = fit_reference(files, device)
    print(f'\nMD of Al, {irreps}, float32: steps/s')
    print(f'{"atoms":>8}{"one model":>12}{"gamma every 10":>16}{"ratio":>8}')
    for size in sizes:
        repeat = max(1, round((size / 4) ** (1 / 3)))
        atoms = bulk('Al', 'fcc', a=4.05, cubic=True).repeat(repeat)
        try:
            one, ten = (steps_per_second(files, reference, atoms, steps, every, device) for every in (10**9, 10))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            print(f'{len(atoms):8}  does not fit into the memory of this device', flush=True)
            continue
        print(f'{len(atoms):8}{one:12.2f}{ten:16.2f}{one / ten:8.2f}', flush=True)


def fit_reference(files: dict[str, Path], device: str) -> OodReference:
    """Fit what the ensemble knows to rattled crystals."""
    models = [open_model(path, label=label, device=device, precision='float32') for label, path in files.items()]
    sets = []
    for seed in (1, 2):
        graphs = [build_graph(atoms, CUTOFF) for atoms in strained_crystals(count=24, seed=seed)]
        batch = merge_graphs(graphs)
        latents = [evaluate_graphs(model, graphs, Budget.choose([model])).latents for model in models]
        offsets = np.concatenate([[0], np.cumsum(batch.sizes)])
        sets.append(EnsembleLatents.from_arrays(tuple(files), batch.numbers, offsets, latents))
    return OodReference.fit(*sets, settings={'metrics': ['aligned_variance']})


def steps_per_second(
    files: dict[str, Path], reference: OodReference, atoms: Atoms, steps: int, every: int, device: str
) -> float:
    """Run velocity Verlet at 300 K."""
    evaluator = MaceForces(files, reference, ['Al'], precision='float32', device=device, density=None)
    neighbours, images, shifts = make_list(atoms, CUTOFF + SKIN)
    evaluator.set_neighbours(neighbours)
    x = atoms.positions.copy()
    mass, step = float(atoms.get_masses()[0]), units.fs
    v = np.random.default_rng(0).normal(scale=np.sqrt(300 * units.kB / mass), size=x.shape)

    def forces(number: int) -> np.ndarray:
        # results come back to the host: nothing is left to wait for
        return evaluator.compute(np.concatenate([x, x[images] - shifts]), gamma=number % every == 0).forces

    for _ in range(3):  # TorchScript compiles in the first passes
        f = forces(0)
    started = time.perf_counter()
    for number in range(1, steps + 1):
        v += 0.5 * step * f / mass
        x += step * v
        f = forces(number)
        v += 0.5 * step * f / mass
    seconds = time.perf_counter() - started
    assert np.isfinite(x).all()
    return steps / seconds


def make_list(atoms: Atoms, cutoff: float) -> tuple[Neighbours, np.ndarray, np.ndarray]:
    """Make the neighbour list that LAMMPS would give, and say which images it has: whose, and how far away.

    :return: the list; real atom of each image, shape (n_images,); what to subtract from its position, (n_images, 3).
    """
    graph = build_graph(atoms, cutoff)
    order = np.argsort(graph.edges[1], kind='stable')
    senders, receivers, shifts = graph.edges[0][order], graph.edges[1][order], graph.shifts[order]
    crosses = np.abs(shifts).max(axis=1) > 1e-6
    keys = np.column_stack([senders, np.round(shifts, 6)])[crosses]
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    indices = senders.copy()
    indices[crosses] = len(atoms) + inverse.reshape(-1)
    images = unique[:, 0].astype(np.int64)
    neighbours = Neighbours(
        types=np.ones(len(atoms) + len(images), dtype=np.int64),
        origins=np.concatenate([np.arange(len(atoms)), images]),
        indices=indices.astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(receivers, minlength=len(atoms)))]),
    )
    return neighbours, images, unique[:, 1:]
