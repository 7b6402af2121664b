"""Does the calibrated error keep its promise? `python benchmarks/calibration.py`.

A potential is trained on cold crystals and healed round by round as in the quickstart: two walkers heat aluminium at
zero pressure, here 108 atoms in 3 ps to 1500 and 2400 K (there 256 in 6 ps to 1500 and 2000 K), clusters around the
worst atoms are labelled by EMT and learned. For the potential of every round the map from gamma to the force error of
an atom, which promises that 90 % of the atoms lie below it, is fitted to

- validation and labels: snapshots of MD under the labeller, judged by the potential itself, and what its own walkers
  and those of earlier rounds led to, each judged by the potential that drove them, beyond the largest gamma of the
  validation set; this is what a campaign does;
- labels: the same without a validation set;
- round before: what the potential before had, by validation and labels; gamma_break in eV/angstrom is placed by this;
- own labels: all that the potential was trained on.

Printed is what share of the atoms of independent snapshots, of MD under the labeller with other seeds, lies below it;
nothing is chosen, trained or fitted by them. Foretold is what the campaign says of itself, by cross-validation.

    python benchmarks/calibration.py                     # 3 seeds; minutes on 2 idle cores
    python benchmarks/calibration.py --keep FOLDER       # keep what was judged; the table is about all that is there
    python benchmarks/calibration.py --keep FOLDER --report
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from ase.build import bulk
from families import AceFamily, Trained
from healing import STRATEGIES, Case, Labels, bare
from materials import EMT, Material, Walker, hot

from aiida_oodal.engine.evaluator import open_forces, open_grader
from aiida_oodal.engine.label.calculators import label_structure, make_calculator
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.trust.bound import ErrorBound
from aiida_oodal.engine.trust.calibration import (
    CalibrationSettings,
    Sample,
    choose_samples,
    count_atoms,
    cover,
    cross_validate,
    fit_bound,
)
from aiida_oodal.engine.trust.judge import ERROR, GAMMA, STRUCTURE, grade_structures, judge_structures

TEMPERATURES = (600.0, 1200.0, 1800.0, 2400.0)
WAYS = ('validation and labels', 'labels', 'round before', 'own labels')
SETTINGS = CalibrationSettings()


@dataclass(frozen=True)
class Judged:
    """What one potential of one seed says of labelled sets.

    :param samples: the atoms of each structure, by what they are from: ``snapshots``, ``validation``, ``own labels``;
        ``labels``, where its walkers halted; ``last frames``, where they did not.
    """

    seed: int
    round: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)


def make_material(seed: int, steps: int) -> tuple[Material, list[Atoms]]:
    """Return aluminium as in the quickstart, and the validation set."""
    calculator = make_calculator(EMT)
    crystal = bulk('Al', 'fcc', a=4.0, cubic=True) * 3
    snapshots, validation = (
        hot(crystal, calculator, TEMPERATURES, 4, stream + seed, steps=160, timestep_fs=3.0) for stream in (77, 7777)
    )
    settings = {'ensemble': 'npt', 'timestep_ps': 0.003, 'gamma_every': 10, 'steps': steps}
    material = Material(
        calculator,
        [label_structure(atoms, calculator) for atoms in strained_crystals(seed=seed)],
        seen=[],
        kept=[(f'{atoms.info["temperature"]:.0f} K', atoms) for atoms in snapshots],
        walkers=[Walker(crystal, {**settings, 'temperature': (300.0, kelvin)}) for kelvin in (1500.0, 2400.0)],
        fit={'max_functions': 60},
        carve={'centres_per_snapshot': 3},
    )
    return material, validation


def judge(trained: Trained, frames: Sequence[Atoms]) -> list[Sample]:
    """Compare a potential with labels as the judging job of a campaign does."""
    copies = [atoms.copy() for atoms in frames]
    judge_structures(open_forces(trained.learned, Path()), trained.learned['elements'], copies)
    grade_structures(open_grader(trained.learned, Path()), copies)
    return Sample.of_structures(copies)


def heal(seed: int, options: argparse.Namespace) -> Iterator[Judged]:
    """Heal a potential, and judge that of every round."""
    warnings.simplefilter('ignore')
    material, validation = make_material(seed, options.steps)
    snapshots = [bare(atoms, labels=True) for _, atoms in material.kept]
    rounds = {'start': [bare(atoms, labels=True) for atoms in material.start]}
    with tempfile.TemporaryDirectory(prefix='calibration_') as name:
        folder = Path(name)
        case = Case('al', seed, material, AceFamily('quick', material.fit), folder, options)
        trained = case.family.train(folder / 'fit_0', rounds, {}, 'full', None)
        for number in range(options.rounds):
            walks, labels = case.walk(trained, material.walkers, folder / f'md_{number}'), Labels(material)
            samples = {
                'snapshots': judge(trained, snapshots),
                'validation': judge(trained, [bare(atoms, labels=True) for atoms in validation]),
                'own labels': judge(trained, [atoms for frames in rounds.values() for atoms in frames]),
            }
            ends = labels.make([bare(walk.final) for walk in walks if walk.finished and walk.final is not None])
            known = [atoms for label, frames in rounds.items() if label != 'start' for atoms in frames]
            made = labels.make(case.choose(STRATEGIES['gamma, full'], trained, walks, known, 6))
            samples |= {'last frames': judge(trained, ends)} if ends else {}
            samples |= {'labels': judge(trained, made)} if made else {}
            yield Judged(seed, number, samples)
            if not made:
                return
            rounds[f'round_{number + 1}'] = made
            trained = case.family.train(folder / f'fit_{number + 1}', rounds, {}, 'full', trained)


def save(judged: Judged, folder: Path) -> None:
    """Keep what was judged."""
    arrays = {}
    for name, samples in judged.samples.items():
        joined = Sample.join(samples)
        rows = np.repeat(np.arange(len(samples)), [len(sample.gamma) for sample in samples])
        for kind, values in ((GAMMA, joined.gamma), (ERROR, joined.error), (STRUCTURE, rows)):
            arrays[f'{name}, {kind}'] = values
    np.savez(folder / f'{judged.seed}_{judged.round}.npz', allow_pickle=False, **arrays)


def load(path: Path) -> Judged:
    """Read what was kept."""
    seed, number = map(int, path.stem.split('_'))
    with np.load(path, allow_pickle=False) as arrays:
        names = dict.fromkeys(key.rsplit(', ', 1)[0] for key in arrays)
        kinds = (GAMMA, ERROR, STRUCTURE)
        samples = {name: Sample.of_arrays({kind: arrays[f'{name}, {kind}'] for kind in kinds}) for name in names}
    return Judged(seed, number, samples)


def run_seed(seed: int, folder: Path, options: argparse.Namespace) -> None:
    for judged in heal(seed, options):
        save(judged, folder)
        found = ', '.join(f'{name} {count_atoms(parts)}' for name, parts in judged.samples.items())
        print(f'seed {seed}, potential {judged.round}: {found}', flush=True)


def find_labels(judged: Judged) -> list[Sample]:
    """Return what a campaign has labelled in this round: clusters or, if no walker halted, last frames."""
    return judged.samples['labels' if 'labels' in judged.samples else 'last frames']


def fit_all(history: Sequence[Judged]) -> tuple[dict[str, ErrorBound], float | None]:
    """Fit the bound for the last potential in every way, and return what a campaign says of the first one."""
    last = history[-1]
    earlier = [sample for judged in history[:-1] for sample in find_labels(judged)]
    labels = [*earlier, *find_labels(last)]
    before = [sample for judged in history[-2:-1] for sample in judged.samples['validation']]
    samples = {
        'validation and labels': choose_samples(labels, last.samples['validation'], SETTINGS.least_atoms),
        'labels': labels,
        'round before': choose_samples(earlier, before, SETTINGS.least_atoms),
        'own labels': last.samples['own labels'],
    }
    bounds = {
        way: fit_bound(parts, SETTINGS.coverage)
        for way, parts in samples.items()
        if count_atoms(parts) >= SETTINGS.least_atoms
    }
    return bounds, cross_validate(labels, last.samples['validation'], SETTINGS)


def report(found: Sequence[Judged]) -> None:
    """Print the coverage on independent snapshots, in Markdown, and whether it is what was promised."""
    print(
        '\n| seed | potential | gamma: median, 95 % | error: 90 % (meV/angstrom) | foretold | '
        + ' | '.join(WAYS)
        + ' |'
    )
    print('|---' * (5 + len(WAYS)) + '|')
    shares: dict[str, list[float]] = {way: [] for way in WAYS}
    for judged in found:
        history = [each for each in found if each.seed == judged.seed and each.round <= judged.round]
        bounds, foretold = fit_all(history)
        new = Sample.join(judged.samples['snapshots'])
        covered = {way: 100 * cover(bound, new) for way, bound in bounds.items()}
        middle, high = np.quantile(new.gamma, [0.5, 0.95])
        line = [
            str(judged.seed),
            str(judged.round),
            f'{middle:.3g}, {high:.3g}',
            f'{1000 * np.quantile(new.error, 0.9):.0f}',
        ]
        line.append('-' if foretold is None else f'{100 * foretold:.1f}')
        print('| ' + ' | '.join(line + [f'{covered[way]:.1f}' if way in covered else '-' for way in WAYS]) + ' |')
        if judged.round > 0:
            for way, share in covered.items():
                shares[way].append(share)
    print(f'\nall potentials but the first, promised {100 * SETTINGS.coverage:.0f} %:')
    for way, values in shares.items():
        within = sum(abs(value - 100 * SETTINGS.coverage) <= 5.0 for value in values)
        if values:
            spread = f'{np.mean(values):.1f} % ({min(values):.1f} to {max(values):.1f})'
            print(f'- {way}: {spread}, within 5 % in {within} of {len(values)}')


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=1000, help='MD steps of a walker')
    parser.add_argument('--rounds', type=int, default=8, help='at most')
    parser.add_argument('--workers', type=int, default=2, help='seeds at a time, each on one core')
    parser.add_argument('--keep', type=Path, help='folder for what was judged; seeds that are there are not run again')
    parser.add_argument('--report', action='store_true', help='only print the table of what is kept')
    options = parser.parse_args()
    if options.report and not options.keep:
        parser.error('--report needs --keep FOLDER with what an earlier call has judged')
    return options


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(prefix='calibration_') as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        there = {int(path.stem.split('_')[0]) for path in folder.glob('*.npz')}
        seeds = [] if options.report else sorted(set(range(options.seeds)) - there)
        # spawn: LAMMPS is not to be forked
        with ProcessPoolExecutor(options.workers, get_context('spawn'), max_tasks_per_child=1) as executor:
            for task in [executor.submit(run_seed, seed, folder, options) for seed in seeds]:
                task.result()
        report(sorted((load(path) for path in folder.glob('*.npz')), key=lambda judged: (judged.seed, judged.round)))


if __name__ == '__main__':
    main()
