"""Does it pay to choose what is labelled, and what is the mask for? `python benchmarks/selection.py [--seeds 5]`.

A linear ACE potential for Al is fitted on cold crystals (labels: EMT). Walkers heat a larger crystal; the atoms with
the largest gamma in their snapshots become candidates, several a snapshot and near each other in time, as in a
campaign.

1. With the same number of clusters, chosen by MaxVol or at random among the candidates, the potential is fitted again
and judged on forces of independent hot snapshots. One line a number of clusters: mean over seeds (the seed makes the
training set, the walkers and the random choices) and its spread. 2. With clusters and `weights = mask`, the active
set is chosen from core atoms only or from all atoms, the coefficients being the same. An environment is truly wrong
when the error of its force is above a limit, and called safe when its gamma is below `gamma_select`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_oodal.engine.carve.centres import worst_centres
from aiida_oodal.engine.carve.cluster import extract_clusters
from aiida_oodal.engine.carve.selection import select_by_maxvol
from aiida_oodal.engine.learn.ace_basis import AceBasis, AceFitValues
from aiida_oodal.engine.learn.ace_fit import AceFit, fit_ace
from aiida_oodal.engine.learn.ace_settings import AceFitSettings
from aiida_oodal.engine.learn.ace_targets import make_target
from aiida_oodal.engine.learn.crystals import strained_crystals
from aiida_oodal.engine.learn.reference import label_structure, make_calculator
from aiida_oodal.engine.learn.reference_md import DEFAULTS, sample_md

RADIUS, BUFFER = 4.0, 3.0  # angstrom
GAMMA_SELECT, GAMMA_CEILING = 2.0, 1e4
REFERENCE = make_calculator({'calculator': 'emt'})


@dataclass(frozen=True)
class Pool:
    """Where a round stands: labelled structures, the potential made of them, and candidates."""

    labelled: list[Atoms]
    fit: AceFit
    candidates: list[Atoms]
    projections: list[np.ndarray]


def values_of(weights: str, functions: int) -> AceFitValues:
    return AceFitSettings(number_of_functions=functions, weights=weights).model_dump(mode='json')  # type: ignore[return-value]


def fit(structures: Sequence[Atoms], weights: str, functions: int) -> AceFit:
    values = values_of(weights, functions)
    return fit_ace([make_target(atoms, values, 'benchmark') for atoms in structures], values)


def hot_snapshots(temperatures: Sequence[float], per_run: int, cells: int, seed: int, steps: int) -> list[Atoms]:
    """Sample snapshots of EMT's own MD, labelled."""
    crystal = bulk('Al', 'fcc', a=4.0, cubic=True) * (cells, cells, cells)
    settings = DEFAULTS | {'temperatures': list(temperatures), 'samples_per_temperature': per_run}
    return sample_md(crystal, REFERENCE, **(settings | {'seed': seed, 'steps': steps}))


def make_pool(seed: int, functions: int, shape: str, walkers: Sequence[float]) -> Pool:
    """Fit the first potential, run walkers, and cut their worst atoms out."""
    labelled = [label_structure(atoms, REFERENCE) for atoms in strained_crystals(seed=seed)]
    first = fit(labelled, 'full', functions)
    candidates: list[Atoms] = []
    projections: list[np.ndarray] = []
    for frame in hot_snapshots(walkers, 8, 4, seed=1000 + seed, steps=240):
        rows = first.basis.predict(frame).projections
        frame.arrays['gamma'] = first.gamma(frame, rows)
        centres = worst_centres(
            frame, gamma_min=GAMMA_SELECT, gamma_ceiling=GAMMA_CEILING, max_centres=5, min_separation=RADIUS
        )
        candidates += extract_clusters(
            frame, centres, RADIUS, BUFFER, cutoff=first.basis.cutoff, shape=shape, bond_scale=0.75, repair='drop'
        )
        projections += [rows[centre] for centre in centres]
    return Pool(labelled, first, candidates, projections)


def choose(pool: Pool, n_clusters: int, how: str, rng: np.random.Generator) -> list[Atoms]:
    """Choose clusters and label them."""
    if how == 'random':
        indices = rng.choice(len(pool.candidates), n_clusters, replace=False).tolist()
    elif how == 'worst':
        indices = np.argsort([-cluster.arrays['gamma'][0] for cluster in pool.candidates])[:n_clusters].tolist()
    else:
        decisions = select_by_maxvol(
            pool.projections,
            ['Al'] * len(pool.projections),
            pool.fit.inverse_active_set,
            max_select=n_clusters,
            gamma_min=GAMMA_SELECT,
        )
        indices = [decision.index for decision in decisions if decision.taken]
    return [label_structure(pool.candidates[index], REFERENCE) for index in indices]


def errors_per_atom(basis: AceBasis, frames: Sequence[Atoms]) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Return the length of each atom's force error in eV/angstrom, and the projections of each frame."""
    predictions = [basis.predict(frame) for frame in frames]
    errors = [
        np.linalg.norm(prediction.forces - frame.arrays['REF_forces'], axis=1)
        for prediction, frame in zip(predictions, frames, strict=True)
    ]
    return np.concatenate(errors), [prediction.projections for prediction in predictions]


def rmse(basis: AceBasis, frames: Sequence[Atoms]) -> float:
    """Return the root mean square error of force components in meV/angstrom."""
    return float(1e3 * np.sqrt(np.mean(errors_per_atom(basis, frames)[0] ** 2) / 3.0))


def compare_choices(options: argparse.Namespace, test: Sequence[Atoms]) -> None:
    methods = ('maxvol', 'random', 'worst')
    results: dict[tuple[int, str], list[float]] = {(n, how): [] for n in options.clusters for how in methods}
    before = []
    for seed in range(options.seeds):
        pool = make_pool(seed, options.functions, 'cube', options.walkers)
        before.append(rmse(pool.fit.basis, test))
        for n_clusters, how in results:
            rng = np.random.default_rng([seed, n_clusters])
            draws = options.draws if how == 'random' else 1
            scores = []
            for _ in range(draws):
                chosen = choose(pool, n_clusters, how, rng)
                scores.append(rmse(fit(pool.labelled + chosen, 'full', options.functions).basis, test))
            results[n_clusters, how].append(float(np.mean(scores)))
        line = '  '.join(f'{n} {how} {values[-1]:.1f}' for (n, how), values in results.items())
        print(f'seed {seed}: {len(pool.candidates)} candidates, before {before[-1]:.1f}; {line}', flush=True)
    print(
        f'\nForce RMSE (meV/angstrom) on {len(test)} independent hot snapshots, {options.seeds} seeds, mean +- spread'
    )
    print(f'before: {np.mean(before):.1f} +- {np.std(before):.1f}')
    print(f'{"clusters":>8} {"MaxVol":>15} {"random":>15} {"largest gamma":>15}   MaxVol better than random')
    for n_clusters in options.clusters:
        columns = [np.array(results[n_clusters, how]) for how in methods]
        cells = ' '.join(f'{column.mean():8.1f} +- {column.std():4.1f}' for column in columns)
        wins = int(np.sum(columns[0] < columns[1]))
        gain = np.mean(1 - columns[0] / columns[1])
        print(f'{n_clusters:8d} {cells}   {wins} of {options.seeds} seeds, by {100 * gain:.0f} % on average')


def compare_active_sets(options: argparse.Namespace, test: Sequence[Atoms]) -> None:
    limit = options.wrong
    print(
        f'\nTruly wrong: force error above {limit:g} eV/angstrom. Called safe: gamma below {GAMMA_SELECT:g}. '
        f'{options.clusters[-1]} clusters, weights = mask, {options.seeds} seeds.'
    )
    print(
        f'{"shape":>7} {"active set from":>16} {"wrong":>7} {"wrong but safe":>18} {"safe but wrong":>18} {"safe":>7}'
    )
    for shape in ('cube', 'sphere'):
        rows: dict[str, list[tuple[float, ...]]] = {'core atoms': [], 'all atoms': []}
        for seed in range(options.seeds):
            pool = make_pool(seed, options.functions, shape, options.walkers)
            chosen = choose(pool, options.clusters[-1], 'maxvol', np.random.default_rng(seed))
            masked = fit(pool.labelled + chosen, 'mask', options.functions)
            errors, projections = errors_per_atom(masked.basis, test)
            wrong = errors > limit
            sets = {'core atoms': masked, 'all atoms': fit(pool.labelled + chosen, 'full', options.functions)}
            for name, source in sets.items():
                gamma = np.concatenate([source.gamma(f, p) for f, p in zip(test, projections, strict=True)])
                safe = gamma < GAMMA_SELECT
                both = np.count_nonzero(wrong & safe)
                rows[name].append((wrong.mean(), both / max(wrong.sum(), 1), both / max(safe.sum(), 1), safe.mean()))
        for name, table in rows.items():
            mean, spread = 100 * np.mean(table, axis=0), 100 * np.std(table, axis=0)
            print(
                f'{shape:>7} {name:>16} {mean[0]:5.1f} % {mean[1]:9.1f} +- {spread[1]:3.1f} % '
                f'{mean[2]:9.1f} +- {spread[2]:3.1f} % {mean[3]:5.1f} %',
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--draws', type=int, default=3, help='random choices a seed, of which the mean counts')
    parser.add_argument('--clusters', type=int, nargs='+', default=[2, 4, 8])
    parser.add_argument('--functions', type=int, default=60)
    parser.add_argument('--walkers', type=float, nargs='+', default=[600.0, 1200.0, 1800.0, 2400.0], help='kelvin')
    parser.add_argument('--wrong', type=float, default=0.2, help='error of a truly wrong force, eV/angstrom')
    options = parser.parse_args()
    test = hot_snapshots([600.0, 1200.0, 1800.0, 2400.0], 6, 3, seed=1, steps=400)
    compare_choices(options, test)
    compare_active_sets(options, test)


if __name__ == '__main__':
    main()
