"""Make four tiny MACE models and their data: ``python make_models.py [FOLDER]`` (15 minutes on two busy cores).

``train.extxyz`` and ``heldout.extxyz`` are cold crystals of Al, Cu and their alloys, labelled by ASE's EMT potential;
``w1.model`` to ``w4.model`` differ in their seed only. The models are small on purpose, good for MD of cold Al-Cu and
of no use for anything hot: that is what the tests need.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

#: Lattice constants of fcc Al and Cu in EMT [angstrom].
LATTICE_CONSTANTS = {'Al': 3.995, 'Cu': 3.59}
ARGUMENTS = [
    '--model=ScaleShiftMACE',
    '--num_interactions=2',
    '--hidden_irreps=16x0e',
    '--max_ell=2',
    '--correlation=2',
    '--r_max=4.2',
    '--num_radial_basis=6',
    '--num_cutoff_basis=5',
    '--radial_MLP=[16,16]',
    '--MLP_irreps=8x0e',
    '--scaling=rms_forces_scaling',
    '--loss=weighted',
    '--energy_weight=10',
    '--forces_weight=100',
    '--energy_key=REF_energy',
    '--forces_key=REF_forces',
    '--default_dtype=float32',
    '--device=cpu',
    '--batch_size=4',
    '--valid_batch_size=16',
    '--lr=0.01',
    '--amsgrad',
    '--ema',
    '--ema_decay=0.99',
    '--scheduler=ExponentialLR',
    '--lr_scheduler_gamma=0.965',
    '--max_num_epochs=90',
    '--eval_interval=20',
    '--save_cpu',
]


def crystal(random: np.random.Generator) -> Atoms:
    """Make one cell of 32 atoms on an fcc lattice: pure or mixed, slightly strained and rattled, labelled."""
    share = random.choice([0.0, 1.0, random.uniform(0.0, 1.0)])
    a = (1.0 - share) * LATTICE_CONSTANTS['Al'] + share * LATTICE_CONSTANTS['Cu']
    atoms = bulk('Al', 'fcc', a=a * random.uniform(0.98, 1.02), cubic=True).repeat(2)
    atoms.symbols[random.permutation(len(atoms))[: round(share * len(atoms))]] = 'Cu'
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.uniform(-0.01, 0.01, (3, 3))), scale_atoms=True)
    atoms.positions += random.normal(scale=random.uniform(0.02, 0.10), size=(len(atoms), 3))
    return label(atoms)


def label(atoms: Atoms) -> Atoms:
    """Store EMT's energy [eV] and forces [eV/angstrom] under the names that are read in training."""
    atoms.calc = EMT()
    atoms.info['REF_energy'] = atoms.get_potential_energy()
    atoms.arrays['REF_forces'] = atoms.get_forces()
    atoms.calc = None
    return atoms


def main(folder: Path) -> None:
    """Write data and models into ``folder``."""
    random = np.random.default_rng(2024)
    train = [crystal(random) for _ in range(48)]
    heldout = [crystal(random) for _ in range(16)]
    write(folder / 'train.extxyz', train)
    write(folder / 'heldout.extxyz', heldout)
    isolated = {number: float(label(Atoms([number])).info['REF_energy']) for number in (13, 29)}
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda seed: train_model(folder, seed, isolated), (1, 2, 3, 4)))


def train_model(folder: Path, seed: int, isolated: dict[int, float]) -> None:
    """Train ``w{seed}.model`` in a scratch folder and keep nothing but the model."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, '-m', 'mace.cli.run_train', f'--name=w{seed}', f'--seed={seed}', *ARGUMENTS]
        command += [f'--E0s={isolated}', f'--work_dir={scratch}', f'--model_dir={scratch}']
        command += [f'--train_file={folder / "train.extxyz"}', f'--valid_file={folder / "heldout.extxyz"}']
        subprocess.run(command, check=True, env=os.environ | {'OMP_NUM_THREADS': '1'})
        shutil.copy(Path(scratch) / f'w{seed}.model', folder)


if __name__ == '__main__':
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else Path(__file__).resolve().parent)
