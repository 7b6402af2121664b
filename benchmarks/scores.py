"""One table of all scores: `python benchmarks/scores.py [DATA] [--systems 3bpa si] [--keep FOLDER] [--short]`.

DATA is the folder of `benchmarks/ood.py` (`../shared/data` beside the repository if it is not given): sets of 3BPA and
silicon with four MACE seeds each, of solvents with three, and the labelled sets of a Cu-Au campaign without models.
`benchmarks/ood.py` judges the verdict of a screening on them; this script puts every score beside every other one:

- of all models: variance, aligned_variance, force_std; mahalanobis, gmm, knn and llpr, which one model has, too;
- llpr: last-layer prediction rigidity (Bigi et al., Mach. Learn.: Sci. Technol. 5, 045018) of all latents, with a
  second moment for each element, for a small and a large ridge; it is made here and not part of the package;
- ace gamma: of a linear ACE fitted to the same training set, judged by the errors of that ACE.

Columns: AUROC of each set against the test set in distribution, by the mean over atoms / by the worst atom. rho:
Spearman with the true force error, over structures (mean over atoms; all sets but those of the fit), and over the atoms
within each element, mean over elements. Covered: share of the atoms of each set whose force error is below a bound that
is proportional to the score and, on the held-out structures, covers 90 %; in brackets the median bound in
distribution, meV/angstrom (gmm can be negative and has none). False: structures in distribution above a threshold of 95
% (mean over atoms), mean +- deviation over 300 random choices of the held-out structures. CPU: microseconds per atom
for everything that a score needs, models included; other users of the machine do not count. Figures of one model are
means over the models, +- their standard deviation; those of all models have the deviation over the ensembles from which
one model is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from ase.io import read
from carving_bakeoff import describe_machine
from ood import SPLITS, SYSTEMS, Evaluated, System, evaluate, take_models
from scipy.stats import spearmanr

from aiida_oodal.engine.ace.fit import fit_ace
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.analysis.statistics import auroc
from aiida_oodal.engine.linear.targets import make_target
from aiida_oodal.engine.ood.calibration import ErrorScale
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.looks import quantiles
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.structures import StructureSet

SHARED = Path(__file__).parents[2] / 'shared' / 'data'
CUAU = System(
    {},
    {
        'train': ('start.extxyz', slice(0, None, 2)),
        'valid': ('start.extxyz', slice(1, None, 4)),
        'test': ('start.extxyz', slice(3, None, 4)),
        'hot': ('hot.extxyz', slice(None)),
    },
    *('train', 'valid', 'test'),
)
ALL = {**SYSTEMS, 'cuau_campaign': CUAU}
OF_ENSEMBLES = ('variance', 'aligned_variance', 'force_std')
OF_ANY = ('mahalanobis', 'gmm', 'knn')
RIDGES = (1e-6, 1e-2)
LEVEL = 0.9
#: Microseconds per atom of one model: its latents, and its latents with forces.
Cost = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Scored:
    """A score of the atoms of one set, beside the errors of the forces that it speaks of.

    :param values: shape (n_atoms,).
    :param errors: shape (n_atoms,), eV/angstrom.
    :param numbers: shape (n_atoms,).
    :param offsets: shape (n_structures + 1,).
    """

    values: np.ndarray
    errors: np.ndarray
    numbers: np.ndarray
    offsets: np.ndarray

    def structures(self, kind: str = 'mean') -> np.ndarray:
        """Return the mean over the atoms of each structure, or the largest value."""
        if kind == 'max':
            return np.maximum.reduceat(self.values, self.offsets[:-1])
        return np.add.reduceat(self.values, self.offsets[:-1]) / np.diff(self.offsets)

    def true(self) -> np.ndarray:
        """Return the root mean square force error of each structure, eV/angstrom."""
        return np.sqrt(np.add.reduceat(self.errors**2, self.offsets[:-1]) / np.diff(self.offsets))


def judge(sets: dict[str, Scored], system: System) -> dict[str, float]:
    """Return all columns but the cost, by name; NaN where a score has no error bound."""
    inside, outside, heldout = sets[system.inside], system.outside, sets[system.heldout]
    row = {
        f'auroc {kind} {name}': auroc(inside.structures(kind), sets[name].structures(kind))
        for name in outside
        for kind in ('mean', 'max')
    }
    new = [sets[name] for name in (system.inside, *outside)]
    numbers = np.concatenate([each.numbers for each in new])
    values, errors = (np.concatenate([getattr(each, key) for each in new]) for key in ('values', 'errors'))
    row['rho'] = spearman(
        np.concatenate([each.structures() for each in new]), np.concatenate([each.true() for each in new])
    )
    own = [numbers == z for z in np.unique(numbers)]
    row['rho of atoms'] = float(np.mean([spearman(values[atoms], errors[atoms]) for atoms in own]))
    row |= judge_bounds(sets, system)
    row |= {f'rmse {name}': 1e3 * float(np.sqrt(np.mean(sets[name].errors ** 2) / 3)) for name in sets}
    row['false'], row['false spread'] = false_rate(heldout.structures(), inside.structures())
    return row


def judge_bounds(sets: dict[str, Scored], system: System) -> dict[str, float]:
    """Make bounds of force errors on the held-out structures, and count what they cover on the other sets."""
    heldout, names = sets[system.heldout], (system.inside, *system.outside)
    if min(each.values.min() for each in sets.values()) < 0.0:
        return {f'covered {name}': np.nan for name in names} | {'bound': np.nan}
    elements = np.unique(heldout.numbers)
    scale = ErrorScale.fit(heldout.numbers, heldout.values, heldout.errors, elements, LEVEL)
    bounds = {name: scale.factor * scale(sets[name].numbers, sets[name].values) for name in names}
    covered = {f'covered {name}': float(np.mean(sets[name].errors <= bounds[name])) for name in names}
    return covered | {'bound': 1e3 * float(np.median(bounds[system.inside]))}


def false_rate(heldout: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Return the share of structures in distribution above 95 %: mean and deviation over choices of the held-out."""
    pooled, rng, rates = np.concatenate([heldout, inside]), np.random.default_rng(0), []
    for _ in range(SPLITS):
        mixed = rng.permutation(pooled)
        rates.append(np.mean(mixed[len(heldout) :] > quantiles(mixed[: len(heldout)], (0.95,))[0]))
    return float(np.mean(rates)), float(np.std(rates))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation; NaN if one of the two is constant."""
    return float(spearmanr(a, b)[0]) if np.ptp(a) > 0 and np.ptp(b) > 0 else float('nan')


class Rigidity:
    """Last-layer prediction rigidity of the latents of each element, under one model.

    :param latents: of the training set, shape (n_atoms, n_features).
    :param ridge: added to the second moment, as a share of its mean eigenvalue.
    """

    def __init__(self, latents: np.ndarray, numbers: np.ndarray, ridge: float) -> None:
        self._inverse = {}
        for z in np.unique(numbers):
            rows = np.asarray(latents[numbers == z], dtype=np.float64)
            moment = rows.T @ rows / len(rows)
            width = len(moment)
            self._inverse[int(z)] = np.linalg.inv(moment + ridge * np.trace(moment) / width * np.eye(width))

    def __call__(self, latents: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return the score of atoms, shape (n_atoms,): the root of z^T (second moment)^-1 z."""
        result = np.full(len(numbers), np.inf)
        for z, inverse in self._inverse.items():
            rows = np.asarray(latents[numbers == z], dtype=np.float64)
            result[numbers == z] = np.sqrt(np.maximum(np.einsum('na,ab,nb->n', rows, inverse, rows), 0.0))
        return result


def scored_by_package(
    sets: dict[str, Evaluated], system: System, metrics: Sequence[str]
) -> dict[str, tuple[dict[str, Scored], float]]:
    """Score sets by the package; return the scores and CPU microseconds per atom of each metric."""
    train, heldout = sets[system.train].latents, sets[system.heldout].latents
    reference = OodReference.fit(train, heldout, settings={'metrics': tuple(metrics)})
    found: dict[str, tuple[dict[str, Scored], float]] = {}
    wanted = {name: sets[name] for name in (system.heldout, system.inside, *system.outside)}
    for metric in metrics:
        made, seconds, atoms = {}, 0.0, 0
        for name, own in wanted.items():
            started = time.process_time()
            scores = reference.score(own.latents, [metric])
            seconds += time.process_time() - started
            atoms += len(scores.numbers)
            kept = np.isin(own.latents.structure_index, scores.structure_index)
            errors = own.errors[np.repeat(kept, np.diff(own.latents.offsets))]
            made[name] = Scored(scores.per_atom[metric], errors, scores.numbers, scores.offsets)
        found[metric] = made, 1e6 * seconds / atoms
    return found


def scored_by_rigidity(sets: dict[str, Evaluated], system: System, ridge: float) -> tuple[dict[str, Scored], float]:
    """Score sets by the mean over models of their rigidity; isolated atoms are left out."""
    train = sets[system.train].latents
    models = [Rigidity(np.asarray(rows[0 : train.n_atoms]), train.numbers, ridge) for rows in train.latents]
    made, seconds, atoms = {}, 0.0, 0
    for name in (system.heldout, system.inside, *system.outside):
        own, errors = drop_isolated(sets[name])
        started = time.process_time()
        each = [model(np.asarray(rows[0 : own.n_atoms]), own.numbers) for model, rows in zip(models, own.latents)]  # noqa: B905
        seconds += time.process_time() - started
        atoms += own.n_atoms
        made[name] = Scored(np.mean(each, axis=0), errors, own.numbers, own.offsets)
    return made, 1e6 * seconds / atoms


def drop_isolated(own: Evaluated) -> tuple[EnsembleLatents, np.ndarray]:
    """Return latents and errors without structures of one atom."""
    sizes = np.diff(own.latents.offsets)
    kept = np.flatnonzero(sizes > 1)
    return own.latents.select(kept), own.errors[np.repeat(sizes > 1, sizes)]


def of_models(own: Evaluated, models: Sequence[int]) -> Evaluated:
    """Return what some models say, and the errors of the mean of their forces."""
    latents = take_models(own.latents, models)
    forces = np.mean([np.asarray(rows[0 : latents.n_atoms], dtype=np.float64) for rows in latents.forces], axis=0)
    return Evaluated(latents, own.labels, np.linalg.norm(forces - own.labels, axis=1))


def read_frames(data: Path, name: str, set_name: str) -> list[Atoms]:
    """Read a set with its labels under the names of the package, without isolated atoms."""
    system = ALL[name]
    file, which = system.sets[set_name]
    frames = []
    for atoms in read(data / name / file, ':')[which]:
        if len(atoms) == 1:
            continue
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        bare.info['REF_energy'] = atoms.info[system.forces.replace('forces', 'energy')]
        bare.arrays['REF_forces'] = atoms.arrays[system.forces]
        frames.append(bare)
    return frames


def scored_by_gamma(data: Path, name: str, functions: int) -> tuple[dict[str, Scored], float]:
    """Fit a linear ACE to the training set and score the others by its gamma."""
    system = ALL[name]
    values = AceFitSettings(number_of_functions=functions, cutoff=5.0, unmet_pairs='accept')
    targets = [make_target(atoms, values, system.train) for atoms in read_frames(data, name, system.train)]
    potential = fit_ace(targets, values).potential
    made, seconds, count = {}, 0.0, 0
    for set_name in (system.heldout, system.inside, *system.outside):
        gamma, errors, frames = [], [], read_frames(data, name, set_name)
        for atoms in frames:
            started = time.process_time()
            found = potential.basis.predict(atoms)
            gamma.append(potential.gamma(atoms, found.projections))
            seconds += time.process_time() - started
            errors.append(np.linalg.norm(found.forces - atoms.arrays['REF_forces'], axis=1))
        offsets = np.concatenate([[0], np.cumsum([len(atoms) for atoms in frames])])
        count += int(offsets[-1])
        numbers = np.concatenate([atoms.numbers for atoms in frames])
        made[set_name] = Scored(np.concatenate(gamma), np.concatenate(errors), numbers, offsets)
    return made, 1e6 * seconds / count


def cost_of_models(data: Path, name: str, count: int) -> Cost:
    """Measure what latents of one model cost, without and with forces; the start of a job does not count."""
    from aiida_oodal.engine.mace.latents_job import run_job
    from aiida_oodal.engine.mace.latents_settings import LatentsSettings

    system = ALL[name]
    frames = read_frames(data, name, system.inside)[:count]
    label, model = next(iter(system.models.items()))

    def spend(chosen: Sequence[Atoms], forces: bool) -> float:
        with tempfile.TemporaryDirectory() as folder:
            bare = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in chosen]
            StructureSet.from_atoms(bare).save(Path(folder) / 'structures.npz')
            job = {
                'structures': 'structures.npz',
                'models': {label: str((data / name / model).resolve())},
                'settings': LatentsSettings(forces=forces, device='cpu').plain(),
            }
            started = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                run_job(job, Path(folder))
            return time.process_time() - started

    few, more = frames[: len(frames) // 4], frames
    spend(few, True)
    extra = sum(map(len, more)) - sum(map(len, few))
    plain, forces = (1e6 * (spend(more, asked) - spend(few, asked)) / extra for asked in (False, True))
    return plain, forces


def table(data: Path, name: str, keep: Path, functions: int) -> list[tuple[str, str, dict[str, float], dict]]:
    """Return the rows of a system: score, models, columns, and their spread over models where there is one."""
    system, rows = ALL[name], []
    if system.models:
        sets = {each: evaluate(data, name, each, keep) for each in system.sets}
        n, cost = len(system.models), cost_of_models(data, name, 20)
        every = {m: functools.partial(lambda s, m: scored_by_package(s, system, [m])[m], m=m) for m in OF_ANY}
        every |= {f'llpr {r:g}': functools.partial(lambda s, r: scored_by_rigidity(s, system, r), r=r) for r in RIDGES}
        together = {
            m: functools.partial(lambda s, m: scored_by_package(s, system, [m])[m], m=m) for m in OF_ENSEMBLES
        } | every
        single = [[k] for k in range(n)]
        for score, make in together.items():
            scored, micro = make(sets)
            per_model = cost[1] if score == 'force_std' else cost[0]
            _, spread = of_subsets(sets, system, [[k for k in range(n) if k != left] for left in range(n)], make)
            rows.append((score, str(n), judge(scored, system) | {'cpu': micro + n * per_model}, spread))
        for score, make in every.items():
            mean, spread = of_subsets(sets, system, single, make)
            rows.append((score, '1', mean | {'cpu': mean['cpu'] + cost[0]}, spread))
    scored, micro = scored_by_gamma(data, name, functions)
    rows.append(('ace gamma', 'ACE', judge(scored, system) | {'cpu': micro}, {}))
    return rows


def of_subsets(
    sets: dict[str, Evaluated], system: System, subsets: Sequence[Sequence[int]], make: Callable[..., Any]
) -> tuple[dict[str, float], dict[str, float]]:
    """Judge a score of some of the models at a time; return the mean and the deviation of each column."""
    found = []
    for models in subsets:
        scored, micro = make({name: of_models(own, models) for name, own in sets.items()})
        found.append(judge(scored, system) | {'cpu': micro})
    mean = {key: float(np.mean([row[key] for row in found])) for key in found[0]}
    return mean, {key: float(np.std([row[key] for row in found])) for key in found[0]}


def report(name: str, rows: Sequence[tuple[str, str, dict[str, float], dict]]) -> None:
    system = ALL[name]
    names = (system.inside, *system.outside)
    print(f'\n{name}: AUROC against {system.inside}, by mean / worst atom')
    for models, row in {models: row for _, models, row, _ in rows}.items():
        wrong = ', '.join(f'{each} {row[f"rmse {each}"]:.0f}' for each in names)
        print(f'force RMSE (meV/Å) of {models} model{"s" * (models not in ("1", "ACE"))}: {wrong}')
    titles = [f'AUROC {each}' for each in system.outside] + ['rho', 'rho of atoms']
    titles += [f'covered {each}' for each in names] + ['false (%)', 'CPU (µs/atom)']
    print('| score | models | ' + ' | '.join(titles) + ' |\n' + '|---' * (len(titles) + 2) + '|')
    for score, models, row, spread in rows:

        def show(key: str, row: dict[str, float] = row, spread: dict[str, float] = spread, digits: int = 3) -> str:
            if not np.isfinite(row[key]):
                return '-'
            return f'{row[key]:.{digits}f}' + (f' ± {spread[key]:.{digits}f}' if key in spread else '')

        cells = [f'{show(f"auroc mean {each}")} / {show(f"auroc max {each}")}' for each in system.outside]
        cells += [show('rho', digits=2), show('rho of atoms', digits=2)]
        cells += [show(f'covered {each}', digits=2) for each in names]
        if np.isfinite(row['bound']):
            cells[-len(names)] += f' ({row["bound"]:.0f})'
        cells += [f'{100 * row["false"]:.1f} ± {100 * row["false spread"]:.1f}', f'{row["cpu"]:.0f}']
        print(f'| {score} | {models} | ' + ' | '.join(cells) + ' |', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, nargs='?', default=SHARED)
    parser.add_argument('--systems', nargs='+', choices=ALL, default=list(ALL))
    parser.add_argument('--keep', type=Path, help='folder for latents (a temporary one if not given)')
    parser.add_argument('--functions', type=int, default=60, help='basis functions per element of the ACE')
    parser.add_argument('--short', action='store_true', help='silicon and Cu-Au only: a few minutes')
    options = parser.parse_args()
    names = ['si', 'cuau_campaign'] if options.short else options.systems
    if missing := [name for name in names if not (options.data / name).is_dir()]:
        parser.error(f'{options.data} has no {", ".join(missing)}: give the folder that holds the sets and models')
    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            started = time.process_time()
            rows = table(options.data, name, options.keep or Path(temporary), options.functions)
            report(name, rows)
            print(f'{time.process_time() - started:.0f} s of CPU', flush=True)


if __name__ == '__main__':
    main()
