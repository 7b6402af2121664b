"""Masks in the training of a MACE: labels that are masked must not matter, whatever they say.

    python benchmarks/mace_masks.py                      # 3 seeds: about 15 minutes on one idle core
    python benchmarks/mace_masks.py --seeds 1 --updates 200 --frames 10

Al with EMT labels. A few cold cells are labelled as they should be; of each hot cell (MD at 1200 K) only 30 % of the
atoms, the core, are: the forces on the others are off by 1 eV/angstrom in every component, the energy by 0.2 eV per
atom and the stress by 0.05 eV/angstrom^3, as if the rest of a carved cell were not physical. One model for each seed is
trained on

- masked: these labels, the wrong ones masked;
- clean core: the right labels, masked alike;
- unmasked: these labels, all of them trusted;
- clean: the right labels, all of them.

Printed are the errors of forces on independent hot cells. Asked for by issue 13: masked within 10 % of clean core, and
far (here: a quarter) below unmasked. The exit status is 1 if that is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from aiida_oodal.engine.files import MODEL_FILE, RESULTS_FILE
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.mace.train.job import run_job
from aiida_oodal.engine.mace.train.judge import compare, summarise
from aiida_oodal.engine.mace.train.labels import read_part
from aiida_oodal.engine.mace.train.settings import MaceTrainSettings
from aiida_oodal.engine.structures import StructureSet

LATTICE, TEMPERATURE = 4.1, 1200.0  # angstrom, K
#: Energy of an isolated atom of Al in EMT [eV].
E0 = 3.28
CORE = 0.3
MOST_ABOVE_CLEAN_CORE, LEAST_ABOVE_MASKED = 1.10, 1.25
VARIANTS = {
    'masked': ('spoilt', 'mask'),
    'clean core': ('clean', 'mask'),
    'unmasked': ('spoilt', 'full'),
    'clean': ('clean', 'full'),
}


def label(atoms: Atoms) -> Atoms:
    return label_structure(atoms, EMT(asap_cutoff=False))


def hot_cells(count: int, seed: int) -> list[Atoms]:
    """Take cells of 32 atoms from MD, 30 steps apart."""
    random = np.random.default_rng(seed)
    atoms = bulk('Al', 'fcc', a=LATTICE, cubic=True).repeat(2)
    atoms.calc = EMT(asap_cutoff=False)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * TEMPERATURE, rng=random)
    dynamics = Langevin(atoms, 3 * units.fs, temperature_K=TEMPERATURE, friction=0.02 / units.fs, rng=random)
    dynamics.run(100)
    cells = []
    for _ in range(count):
        dynamics.run(30)
        cells.append(label(Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)))
    return cells


def spoil(cells: Sequence[Atoms], seed: int) -> list[Atoms]:
    """Return cells whose labels are wrong outside of the core."""
    random = np.random.default_rng(seed)
    spoilt = [atoms.copy() for atoms in cells]
    for atoms in spoilt:
        outside = atoms.arrays['force_mask'] == 0.0
        atoms.arrays['REF_forces'][outside] += random.normal(scale=1.0, size=(int(outside.sum()), 3))
        atoms.info['REF_energy'] += 0.2 * len(atoms)
        atoms.info['REF_stress'] = np.asarray(atoms.info['REF_stress']) + 0.05
    return spoilt


def write_data(folder: Path, n_frames: int) -> None:
    cold = [label(atoms) for atoms in strained_crystals(count=24, repeat=(2, 2, 2), seed=1)]
    hot = hot_cells(n_frames, seed=11)
    random = np.random.default_rng(0)
    for atoms in hot:
        atoms.arrays['force_mask'] = (random.random(len(atoms)) < CORE).astype(float)
    sets = {
        'cold': cold[:20],
        'clean': hot,
        'spoilt': spoil(hot, seed=2),
        'validation': [*cold[20:], *hot_cells(8, seed=12)],
        'test': hot_cells(30, seed=13),
    }
    for name, frames in sets.items():
        StructureSet.from_atoms(frames).save(folder / f'{name}.npz')


def train(data: Path, folder: Path, hot: str, weights: str, seed: int, updates: int) -> tuple[float, float]:
    """Train one model and return the error of its forces on the test set [meV/angstrom], and CPU seconds."""
    folder.mkdir()
    for name in ('cold', hot, 'validation', 'test'):
        (folder / f'{name}.npz').symlink_to(data / f'{name}.npz')
    settings = MaceTrainSettings.load(
        {'protocol': 'quick', 'updates': updates, 'weights': weights, 'E0s': {'Al': E0}, 'device': 'cpu'}
    )
    job = {
        'training': ['cold.npz', f'{hot}.npz'],
        'validation': 'validation.npz',
        'seed': seed,
        'settings': settings.to_values(),
    }
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        run_job(job, folder)
    seconds = time.process_time() - started
    outcome = json.loads((folder / RESULTS_FILE).read_text())['outcome']
    assert outcome == 'completed', outcome
    compared = compare(folder / MODEL_FILE, read_part(folder, 'test.npz'), batch_size=10, device='cpu')
    return float(summarise(compared)['force_rmse']), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--updates', type=int, default=1200)
    parser.add_argument('--frames', type=int, default=60, help='hot cells in training')
    arguments = parser.parse_args()
    warnings.simplefilter('ignore')
    errors: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        write_data(data, arguments.frames)
        print('error of forces on independent hot cells [meV/angstrom], by seed of the training')
        for seed in range(1, arguments.seeds + 1):
            for variant, (hot, weights) in VARIANTS.items():
                folder = data / f'{variant} {seed}'
                error, seconds = train(data, folder, hot, weights, seed, arguments.updates)
                errors[variant].append(error)
                print(f'seed {seed}  {variant:11}{error:8.1f}   ({seconds:.0f} s of CPU)', flush=True)
    means = {variant: float(np.mean(values)) for variant, values in errors.items()}
    for variant, values in errors.items():
        spread = f'{min(values):.1f} to {max(values):.1f}'
        ratio = means[variant] / means['clean core']
        print(f'{variant:11} mean {means[variant]:6.1f}, {spread}, {ratio:.2f} x clean core')
    near = means['masked'] <= MOST_ABOVE_CLEAN_CORE * means['clean core']
    far = means['unmasked'] >= LEAST_ABOVE_MASKED * means['masked']
    print(f'masked within {MOST_ABOVE_CLEAN_CORE - 1:.0%} of clean core: {"met" if near else "MISSED"}')
    print(f'unmasked at least {LEAST_ABOVE_MASKED - 1:.0%} above masked: {"met" if far else "MISSED"}')
    if not (near and far):
        sys.exit(1)


if __name__ == '__main__':
    main()
