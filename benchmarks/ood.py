"""Do the scores find what the models do not know: `python benchmarks/ood.py DATA [--keep FOLDER] [--scale [ATOMS]]`.

DATA holds `3bpa/` and `si/`: structures with `REF_forces`, four MACE seeds each (`models/`). Latents are computed by
the engine's `latents` command (some minutes on one core; kept in FOLDER, and taken from there the next time). Prints
for every score the AUROC of each set against the in-distribution test set, rank correlations with the true force error,
and the share of in-distribution structures above the held-out thresholds; checks that rotations of each model's
latents change nothing and that four copies of one model never disagree. Ends with status 1 if a target is missed.

`--scale` needs no DATA: it scores random latents on disk (1,000,000 atoms x 128 x 4 models in float32 by default,
2 GB) and prints its time beside that of one plain pass over the same bytes, and the peak memory. Times are CPU times:
other users of the machine do not count; wall times stand behind them.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase.data import chemical_symbols
from ase.io import read
from scipy.stats import spearmanr

from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.scores import OodScores
from aiida_oodal.engine.ood.statistics import auroc, flag_shares

LABELS = ('w1', 'w2', 'w3', 'w4')
#: Training set, held-out set, in-distribution test set, others.
SYSTEMS = {
    '3bpa': ('train', 'valid', 'test300', ('test600', 'test1200')),
    'si': ('train', 'valid', 'idtest', ('md1518', 'surf', 'vac_cold')),
}


@dataclass
class Targets:
    """What was promised, and whether it is kept."""

    missed: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, low: float = -np.inf, high: float = np.inf) -> None:
        """Print a value beside its limits and remember it if it is outside."""
        kept = low <= value <= high
        limits = f'>= {low:g}' if high == np.inf else f'<= {high:g}' if low == -np.inf else f'{low:g} to {high:g}'
        print(f'  {"ok    " if kept else "MISSED"} {what}: {value:.3g} ({limits})')
        if not kept:
            self.missed.append(what)


@dataclass
class Evaluated:
    """A set of structures as the ensemble sees it.

    :param labels: reference forces, shape (n_atoms, 3), eV/angstrom.
    :param errors: length of the error of the ensemble's mean force, shape (n_atoms,).
    """

    latents: EnsembleLatents
    labels: np.ndarray
    errors: np.ndarray


def evaluate(data: Path, system: str, name: str, keep: Path) -> Evaluated:
    """Compute latents and forces of a set, or take those that are kept."""
    folder = keep / system / name
    results = folder / 'results.json'
    if not results.exists() or json.loads(results.read_text())['next_structure'] is not None:
        from aiida_oodal.engine.ood.latents_job import run_job
        from aiida_oodal.engine.ood.latents_settings import LatentsSettings

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        job = {
            'structures': str((data / system / f'{name}.extxyz').resolve()),
            'models': {w: str((data / system / 'models' / f'{system}_{w}.model').resolve()) for w in LABELS},
            'settings': LatentsSettings(forces=True, device='cpu').model_dump(mode='json'),
        }
        run_job(job, folder)
    latents = EnsembleLatents.open(folder, LABELS)
    frames = read(data / system / f'{name}.extxyz', ':')
    labels = np.concatenate([frames[i].arrays['REF_forces'] for i in latents.structure_index])
    mean = np.mean([np.asarray(rows, dtype=np.float64) for rows in latents.forces], axis=0)
    return Evaluated(latents, labels, np.linalg.norm(mean - labels, axis=1))


@dataclass
class Judged:
    """Scores of some sets beside their true force errors.

    :param scores: by name of the set; the first is the in-distribution set.
    :param errors: of all atoms of all sets, shape (n_atoms,), eV/angstrom.
    """

    scores: dict[str, OodScores]
    errors: np.ndarray

    def __post_init__(self) -> None:
        self.inside, *self.others = self.scores
        self.joined = OodScores.concatenate(list(self.scores.values()))

    def area(self, name: str, metric: str = 'aligned_variance', kind: str = 'mean') -> float:
        """Return the AUROC of a set against the in-distribution set."""
        return auroc(self.scores[self.inside].of(metric, kind), self.scores[name].of(metric, kind))

    def rho(self, metric: str = 'aligned_variance', kind: str = 'mean') -> float:
        """Return the rank correlation with the root mean square error of each structure."""
        offsets = self.joined.offsets
        true = np.sqrt(np.add.reduceat(self.errors**2, offsets[:-1]) / np.diff(offsets))
        return float(spearmanr(self.joined.of(metric, kind), true)[0])

    def rho_of_atoms(self, metric: str = 'aligned_variance') -> dict[str, float]:
        """Return the rank correlation over the atoms of each element alone: the element by itself predicts errors."""
        values, numbers = self.joined.per_atom[metric], self.joined.numbers
        of_element = {chemical_symbols[z]: numbers == z for z in np.unique(numbers)}
        return {symbol: float(spearmanr(values[own], self.errors[own])[0]) for symbol, own in of_element.items()}

    def report(self) -> None:
        """Print a line for each score and aggregate."""
        width = max(map(len, self.others))
        titles = ' '.join(f'{name:>{width}}' for name in self.others)
        print(
            f'AUROC against {self.inside}; share of {self.inside} above 90, 95, 99 %; rho: Spearman with the true force'
        )
        print('error, of structures; of atoms: within each element alone, then the mean over elements')
        print(f'{"score":18s} by   {titles}   rho  of atoms  above (%)')
        for metric, kinds in self.joined.per_structure.items():
            for kind in kinds:
                areas = ' '.join(f'{self.area(name, metric, kind):{width}.3f}' for name in self.others)
                atoms = ''
                if kind == 'mean' and metric in self.joined.per_atom:
                    atoms = f'{np.mean(list(self.rho_of_atoms(metric).values())):.2f}'
                flagged = flag_shares(self.scores[self.inside], metric, kind)
                shares = ' '.join(f'{100 * share.share:5.1f}' for share in flagged)
                print(f'{metric:18s} {kind:4s} {areas}  {self.rho(metric, kind):5.2f}  {atoms:>8s}  {shares}')


def judge(system: str, data: Path, keep: Path, targets: Targets) -> None:
    """Fit to the training set, calibrate on the held-out set, score the others."""
    train, heldout, inside, outside = SYSTEMS[system]
    sets = {name: evaluate(data, system, name, keep) for name in (train, heldout, inside, *outside)}
    started = time.perf_counter()
    reference = OodReference.fit(sets[train].latents, sets[heldout].latents, reference_forces=sets[heldout].labels)
    wall = time.perf_counter() - started
    print(f'\n{system}: {reference.n_structures} reference structures, {len(sets[heldout].latents)} held out, ', end='')
    print(f'fitted in {wall:.1f} s. {". ".join(reference.notes)}')
    scores = {name: reference.score(sets[name].latents) for name in (inside, *outside)}
    judged = Judged(scores, np.concatenate([sets[name].errors for name in scores]))
    judged.report()
    share = flag_shares(scores[inside], 'aligned_variance')[1]
    interval = f'95 % interval {share.low:.3f} to {share.high:.3f}'
    print(f'above 95 % by aligned_variance: {share.n_above} of {share.n} ({interval})')
    scale = reference.error_scale
    print(f'force errors below {scale.factor:.2f} times the predicted one (nominal {scale.level:g}): ', end='')
    bounds = {n: np.mean(sets[n].errors <= scale.factor * s.per_atom['predicted_error']) for n, s in scores.items()}
    print(', '.join(f'{name} {covered:.2f}' for name, covered in bounds.items()))
    print('targets (aligned_variance unless another score is named):')
    if system == 'si':
        targets.check('AUROC vacancies by max', judged.area('vac_cold', kind='max'), 0.99)
        return
    targets.check('AUROC 600 K', judged.area('test600'), 0.95)
    targets.check('AUROC 1200 K', judged.area('test1200'), 0.99)
    targets.check('rho per structure', judged.rho(), 0.90)
    of_atoms = judged.rho_of_atoms()
    each = ', '.join(f'{symbol} {rho:.2f}' for symbol, rho in of_atoms.items())
    targets.check(
        f'rho per atom within element, mean over elements ({each})', float(np.mean(list(of_atoms.values()))), 0.55
    )
    targets.check('flag rate', share.share, 0.02, 0.09)
    check_rotations(*(sets[name] for name in (train, heldout, 'test600')), scores['test600'], targets)
    check_copies(*(sets[name] for name in (train, heldout, 'test600')), targets)


def changed(latents: EnsembleLatents, rows: list[np.ndarray]) -> EnsembleLatents:
    """Return the same set with other latents."""
    return replace(latents, latents=tuple(rows))


def check_rotations(
    train: Evaluated, heldout: Evaluated, other: Evaluated, scores: OodScores, targets: Targets
) -> None:
    """Rotate every model's latents at random, which changes nothing that a model predicts."""
    rng = np.random.default_rng(0)
    turns = [np.linalg.qr(rng.normal(size=(train.latents.n_features,) * 2))[0] for _ in LABELS]

    def rotated(latents: EnsembleLatents) -> EnsembleLatents:
        rows = zip(latents.latents, turns, strict=True)
        return changed(latents, [np.asarray(source, dtype=np.float64) @ turn for source, turn in rows])

    reference = OodReference.fit(rotated(train.latents), rotated(heldout.latents), reference_forces=heldout.labels)
    found = reference.score(rotated(other.latents))
    for metric, values in found.per_atom.items():
        change = float(np.abs(values - scores.per_atom[metric]).max())
        if metric == 'variance':
            print(
                f'  (raw variance changes by up to {change:.3g}; it is {scores.per_atom[metric].mean():.3g} on average)'
            )
        else:
            targets.check(f'change of {metric} by rotations', change, high=1e-6)


def check_copies(train: Evaluated, heldout: Evaluated, other: Evaluated, targets: Targets) -> None:
    """Take one model four times: there is nothing to disagree about."""
    same = [changed(s.latents, [s.latents.latents[0]] * len(LABELS)) for s in (train, heldout, other)]
    found = OodReference.fit(same[0], same[1]).score(same[2], ['aligned_variance'])
    targets.check('four copies of one model', float(found.per_atom['aligned_variance'].max()), high=1e-10)


def random_latents(folder: Path, n_atoms: int, n_features: int, n_models: int) -> None:
    """Write the files of a `latents` job with random numbers, structures of 100 atoms of three elements."""
    rng = np.random.default_rng(0)
    offsets = np.arange(0, n_atoms + 1, 100)
    np.save(folder / 'offsets.npy', offsets)
    np.save(folder / 'numbers.npy', rng.choice([1, 6, 8], n_atoms))
    np.save(folder / 'structure_index.npy', np.arange(len(offsets) - 1))
    for k in range(n_models):
        np.save(folder / f'energies_w{k + 1}.npy', rng.normal(size=len(offsets) - 1))
        out = np.lib.format.open_memmap(folder / f'latents_w{k + 1}.npy', 'w+', np.float32, (n_atoms, n_features))
        for start in range(0, n_atoms, 20000):
            out[start : start + 20000] = rng.standard_normal(
                (min(20000, n_atoms - start), n_features), dtype=np.float32
            )
        out.flush()
        del out


def plain_pass(folder: Path, n_models: int) -> Iterator[float]:
    """Read all bytes and add up the numbers."""
    for k in range(n_models):
        with (folder / f'latents_w{k + 1}.npy').open('rb') as handle:
            while len(block := np.fromfile(handle, dtype=np.float32, count=1 << 19)):
                yield float(block.sum())


def peak_memory() -> float:
    """Return the largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall time of a call, seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - wall


def scale(n_atoms: int, n_features: int = 128, n_models: int = 4) -> None:
    """Score random latents on disk."""
    n_atoms -= n_atoms % 100
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if (child := os.fork()) == 0:  # so that the memory of writing does not count
            random_latents(folder, n_atoms, n_features, n_models)
            os._exit(0)
        os.waitpid(child, 0)
        size = sum(path.stat().st_size for path in folder.glob('latents_*.npy')) / 1e9
        latents = EnsembleLatents.open(folder)
        print(f'{n_atoms} atoms x {n_features} latents x {n_models} models: {size:.2f} GB')
        reference = OodReference.fit(latents.select(np.arange(150)), latents.select(np.arange(150, 250)))
        print(f'fitted to {reference.n_atoms} atoms; peak memory {peak_memory():.0f} MB')
        plain, wall = timed(lambda: sum(plain_pass(folder, n_models)))
        print(f'{"":17s} CPU (s)  plain passes  atoms/s  wall (s)  peak memory (MB)')

        def line(name: str, cpu: float, wall: float) -> None:
            times = f'{cpu:7.1f}  {cpu / plain:12.1f}  {n_atoms / cpu:7.0f}  {wall:8.1f}'
            print(f'{name:17s} {times}  {peak_memory():16.0f}', flush=True)

        line('one plain pass', plain, wall)
        for metrics in (['aligned_variance'], ['variance'], ['mahalanobis'], ['gmm'], ['knn'], None):
            what = 'all together' if metrics is None else metrics[0]
            line(what, *timed(functools.partial(reference.score, latents, metrics)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, nargs='?', help='folder with 3bpa/ and si/')
    parser.add_argument('--keep', type=Path, help='folder for latents (a temporary one if not given)')
    parser.add_argument(
        '--scale', type=int, nargs='?', const=1_000_000, metavar='ATOMS', help='score random latents instead'
    )
    options = parser.parse_args()
    if options.scale:
        scale(options.scale)
        return
    if options.data is None:
        parser.error('DATA or --scale is needed')
    targets = Targets()
    with tempfile.TemporaryDirectory() as temporary:
        for system in SYSTEMS:
            judge(system, options.data, options.keep or Path(temporary), targets)
    if targets.missed:
        sys.exit(f'missed: {", ".join(targets.missed)}')


if __name__ == '__main__':
    main()
