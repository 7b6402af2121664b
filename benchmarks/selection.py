"""Does it pay to choose what is labelled, and what is the mask for? `python benchmarks/selection.py [--seeds 5]`.

A linear ACE potential for Al is fitted on cold crystals (labels: EMT). Walkers heat a larger crystal; the atoms with
the largest gamma in their snapshots become candidates, several a snapshot and near each other in time, as in a
campaign.

1. With the same number of clusters, chosen by MaxVol, at random among the candidates, or by gamma alone, the potential
   is fitted again and judged on forces of independent hot snapshots, for `weights = full` and `mask`. The spread is the
   standard deviation over seeds (a seed makes the training set, the walkers and the random choices; of these the mean
   over many draws counts), and for random choices also that over draws: what one unlucky choice costs.
2. With `weights = mask`, the active set is chosen from core atoms only or from all atoms, the coefficients being the
   same. An environment is truly wrong when the error of its force is above a limit, and called safe when its gamma is
   below `gamma_select`.

3. With `weights = full`, clusters are mended in different ways: how close atoms may come across the new boundary, as a
   share of the sum of their covalent radii (0: 0.5 angstrom whatever the elements), by leaving atoms out or by moving
   them. The largest force in a cluster is compared with the largest in its snapshot.

Found with five seeds: with `mask`, MaxVol is better than random in 4 of 5 seeds at one cluster (-28 %) and in 5 of 5 at
two, four and eight (-37, -29, -11 %); two clusters drawn at random scatter by 25 meV/angstrom, those of MaxVol by 3.
With `full` there is nothing to choose: all 171 atoms of a cluster count, one cluster brings the error to within 2
meV/angstrom of what eight do, and no way to choose is better than another by more than the spread. The active set with
buffer atoms calls 99 % (cube) and 63 % (sphere) of the wrong environments safe, that of core atoms none, at a price:
after two clusters it calls next to nothing safe. With `--functions 60 --masked-clusters 8`, where eight clusters fill
the small basis, it calls 97 % of all environments safe and still none of the wrong ones; with buffer atoms 60 % (cube)
and 30 % (sphere) of the wrong ones are called safe. There, too, MaxVol beats random with `mask` (5 of 5 seeds, -34 to
-7 %), and not with `full` (3 % worse at most). With `--functions 300`, `full` gains 9 % at one cluster (4 of 5 seeds),
and nothing beyond two.

`benchmarks/healing.py` asks the same in a loop, where each round explores by the potential of the round before.

The fit is linear, so that each structure is reduced once to a small triangle and every choice costs milliseconds; the
first fit of each seed is checked against `fit_ace`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_oodal.engine.ace.basis import AceBasis
from aiida_oodal.engine.ace.fit import AcePotential, fit_ace
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.carve.centres import worst_centres
from aiida_oodal.engine.carve.cluster import Cut, cut_each, extract_clusters
from aiida_oodal.engine.choose.maxvol import maxvol_select
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import label_structure, make_calculator
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.label.reference_md import DEFAULTS, sample_md
from aiida_oodal.engine.linear.basis import Design
from aiida_oodal.engine.linear.targets import make_target

RADIUS, BUFFER = 4.0, 3.0  # angstrom
GAMMA_SELECT = 2.0
SCALES = (0.0, 0.6, 0.75, 0.85, 0.9)
METHODS = ('MaxVol', 'random', 'largest gamma')
REFERENCE = make_calculator({'calculator': 'emt'})


def settings(weights: str, functions: int) -> AceFitSettings:
    """Return what the figures above were found with: the same weight for every label that has one."""
    return AceFitSettings(
        number_of_functions=functions,
        cutoff=6.0,
        weights=weights,
        robust_force=None,
        buffer_weight=1.0,
        fit_atom_energies=False,
        repulsion='none',
    )


def fit(structures: Iterable[Atoms], values: AceFitSettings) -> AcePotential:
    return fit_ace([make_target(atoms, values, 'benchmark') for atoms in structures], values).potential


def hot_snapshots(temperatures: Sequence[float], per_run: int, cells: int, steps: int, seed: int) -> list[Atoms]:
    """Sample snapshots of EMT's own MD, labelled."""
    crystal = bulk('Al', 'fcc', a=4.0, cubic=True) * (cells, cells, cells)
    own = {'temperatures': list(temperatures), 'samples_per_temperature': per_run, 'steps': steps, 'seed': seed}
    return sample_md(crystal, REFERENCE, **(DEFAULTS | own))


def reduce(design: Design, atoms: Atoms, values: AceFitSettings) -> np.ndarray:
    """Return the triangle of the weighted rows ``[X | y]`` of one labelled structure."""
    target = make_target(atoms, values, 'benchmark')
    kept = target.force_weights > 0
    rows = np.concatenate([design.forces[kept], target.forces[kept][..., None]], axis=2)
    rows = (target.force_weights[kept][:, None, None] * rows).reshape(-1, len(design.energy) + 1)
    if target.energy_weight > 0:
        energy = target.energy_weight * np.append(design.energy, target.energy) / len(atoms)
        rows = np.vstack([energy, rows])
    return np.linalg.qr(target.scale * rows, mode='r')


def solve(triangles: Sequence[np.ndarray], ridge: float) -> np.ndarray:
    """Return the coefficients that fit the structures behind the triangles."""
    n = triangles[0].shape[1] - 1
    rows = np.vstack([*triangles, np.sqrt(ridge) * np.eye(n, n + 1)])
    return np.linalg.lstsq(rows[:, :-1], rows[:, -1], rcond=None)[0]


class TestSet:
    """Independent hot snapshots, and what the basis makes of them."""

    def __init__(self, basis: AceBasis, frames: Sequence[Atoms]) -> None:
        designs = [basis.design(frame) for frame in frames]
        self.rows = np.concatenate([design.forces for design in designs])  # (n_atoms, 3, n_functions)
        self.forces = np.concatenate([frame.arrays['REF_forces'] for frame in frames])
        self.projections = np.array([row for design in designs for row in design.projections])

    def errors(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the length of the force error of each atom in eV/angstrom."""
        return np.asarray(np.linalg.norm(self.rows @ coefficients - self.forces, axis=1))

    def rmse(self, coefficients: np.ndarray) -> float:
        """Return the root mean square error of the force components in meV/angstrom."""
        return float(1e3 * np.sqrt(np.mean(self.errors(coefficients) ** 2) / 3))


@dataclass
class Round:
    """Where a campaign stands before its first choice: labelled crystals, a potential, frames with candidates."""

    crystals: list[Atoms]
    first: AcePotential
    frames: list[Atoms]
    centres: list[list[int]]
    functions: int

    @classmethod
    def start(cls, seed: int, options: argparse.Namespace) -> Round:
        """Fit the first potential, run the walkers, and find their worst atoms."""
        crystals = [label_structure(atoms, REFERENCE) for atoms in strained_crystals(seed=seed)]
        first = fit(crystals, settings('full', options.functions))
        frames = hot_snapshots(options.walkers, options.frames, 4, 160, seed=1000 + seed)
        centres = []
        for frame in frames:
            frame.arrays['gamma'] = first.gamma(frame, first.basis.predict(frame).projections)
            centres.append(worst_centres(frame, gamma_min=GAMMA_SELECT, max_centres=5, min_separation=RADIUS))
        return cls(crystals, first, frames, centres, options.functions)

    def cut(self, shape: str) -> list[Atoms]:
        """Return all candidates, unlabelled."""
        options = {'cutoff': self.first.basis.cutoff, 'shape': shape, 'bond_scale': 0.75, 'repair': 'drop'}
        return [
            cluster
            for frame, centres in zip(self.frames, self.centres, strict=True)
            for cluster in extract_clusters(frame, centres, RADIUS, BUFFER, **options)
        ]

    @cached_property
    def cubes(self) -> list[Atoms]:
        """Return all candidates as cubes, labelled."""
        return [label_structure(cluster, REFERENCE) for cluster in self.cut('cube')]

    @cached_property
    def projections(self) -> np.ndarray:
        """Return the projections of all centres, which are the same in any faithful cluster."""
        return np.array([self.first.basis.predict(cluster).projections[0] for cluster in self.cubes])

    def by_maxvol(self, n_clusters: int) -> list[int]:
        """Choose candidates D-optimally against the first active set."""
        choice = maxvol_select(self.first.inverse_active_set['Al'], self.projections, max_select=n_clusters)
        return list(choice.indices)

    def by_gamma(self, n_clusters: int) -> list[int]:
        """Choose the candidates with the largest gamma."""
        return np.argsort([-cluster.arrays['gamma'][0] for cluster in self.cubes])[:n_clusters].tolist()


def compare_choices(start: Round, test: TestSet, options: argparse.Namespace, seed: int) -> dict[tuple, float]:
    """Return the force RMSE for every weight, number of clusters and way to choose, and the spread over draws."""
    rng, basis, results = np.random.default_rng(seed), start.first.basis, {}
    base = [reduce(basis.design(atoms), atoms, settings('full', start.functions)) for atoms in start.crystals]
    designs = [basis.design(atoms) for atoms in start.cubes]
    ridge = settings('full', start.functions).ridge
    results['before',] = test.rmse(solve(base, ridge))
    check = test.rmse(start.first.basis.coefficients)
    if abs(check - results['before',]) > 1e-3:
        raise SystemExit(f'the fit of this script gives {results["before",]} and fit_ace {check} meV/angstrom')
    for weights in ('full', 'mask'):
        values = settings(weights, start.functions)
        candidates = [reduce(design, atoms, values) for design, atoms in zip(designs, start.cubes, strict=True)]

        def judge(chosen: Iterable[int], candidates: list[np.ndarray] = candidates) -> float:
            return test.rmse(solve(base + [candidates[index] for index in chosen], ridge))

        for n in options.clusters:
            draws = [judge(rng.choice(len(candidates), n, replace=False)) for _ in range(options.draws)]
            results[weights, n, 'MaxVol'] = judge(start.by_maxvol(n))
            results[weights, n, 'random'] = float(np.mean(draws))
            results[weights, n, 'draws'] = float(np.std(draws))
            results[weights, n, 'largest gamma'] = judge(start.by_gamma(n))
    return results


def compare_active_sets(start: Round, test: TestSet, options: argparse.Namespace) -> dict[tuple, tuple[float, ...]]:
    """Return how many environments are wrong, wrong among the safe, safe among the wrong, and safe, in percent."""
    results = {}
    for shape in ('cube', 'sphere'):
        candidates = start.cubes if shape == 'cube' else start.cut('sphere')
        chosen = [label_structure(candidates[index], REFERENCE) for index in start.by_maxvol(options.masked_clusters)]
        masked = fit(start.crystals + chosen, settings('mask', start.functions))
        wrong = test.errors(masked.basis.coefficients) > options.wrong
        everything = fit(start.crystals + chosen, settings('full', start.functions))
        for source, made in (('core atoms', masked), ('all atoms', everything)):
            safe = np.abs(test.projections @ made.inverse_active_set['Al']).max(axis=1) < GAMMA_SELECT
            both = 100.0 * np.count_nonzero(wrong & safe)
            rates = (100 * wrong.mean(), both / max(wrong.sum(), 1), both / max(safe.sum(), 1), 100 * safe.mean())
            results[shape, source] = tuple(float(rate) for rate in rates)
    return results


def compare_repairs(start: Round, test: TestSet, options: argparse.Namespace) -> dict[tuple, tuple[float, ...]]:
    """Return for every repair: clusters refused, atoms, dropped, moved, largest force over the parent's, force RMSE."""
    values, basis, results = settings('full', start.functions), start.first.basis, {}
    base = [reduce(basis.design(atoms), atoms, values) for atoms in start.crystals]
    for shape, repair, scale in [('cube', r, s) for r in ('drop', 'relax') for s in SCALES] + [('sphere', 'drop', 0.0)]:
        cut = Cut(RADIUS, BUFFER, basis.cutoff, shape=shape, bond_scale=scale, repair=repair)
        rows, triangles, n_refused = [], [], 0
        for frame, centres in list(zip(start.frames, start.centres, strict=True))[options.frames - 1 :: options.frames]:
            hardest = np.linalg.norm(frame.arrays['REF_forces'], axis=1).max()
            for found in cut_each(frame, centres[: options.repaired_clusters], cut):
                if isinstance(found, OodalError):
                    n_refused += 1
                    continue
                cluster = label_structure(found, REFERENCE)
                triangles.append(reduce(basis.design(cluster), cluster, values))
                force = np.linalg.norm(cluster.arrays['REF_forces'], axis=1).max()
                did = cluster.info['repair_dropped'], cluster.info['repair_moved']
                rows.append((len(cluster), *did, force / hardest))
        error = test.rmse(solve(base + triangles, values.ridge))
        results[shape, repair, scale] = (n_refused, *np.mean(rows, axis=0).tolist(), error)
    return results


def report_choices(rows: Sequence[dict[tuple, float]], options: argparse.Namespace) -> None:
    def column(*key: object) -> np.ndarray:
        return np.array([row[key] for row in rows])

    before = column('before')
    print(f'\nForce RMSE (meV/angstrom) on independent hot snapshots, {len(rows)} seeds: mean +- spread over seeds')
    print(f'before: {before.mean():.1f} +- {before.std():.1f}')
    names = ''.join(f'{name:>16}' for name in METHODS)
    print(f'{"weights":>7} {"clusters":>8}{names}  (one draw)   MaxVol wins')
    for weights in ('full', 'mask'):
        for n in options.clusters:
            values = {name: column(weights, n, name) for name in METHODS}
            cells = ''.join(f'{value.mean():8.1f} +- {value.std():4.1f}' for value in values.values())
            wins = np.count_nonzero(values['MaxVol'] < values['random'])
            gain = 100 * np.mean(1 - values['MaxVol'] / values['random'])
            draws = column(weights, n, 'draws').mean()
            print(f'{weights:>7} {n:8d}{cells}  (+- {draws:4.1f})   {wins} of {len(rows)} seeds, {gain:+.0f} %')


def report_active_sets(rows: Sequence[dict[tuple, tuple[float, ...]]], options: argparse.Namespace) -> None:
    print(
        f'\n{options.masked_clusters} clusters, weights = mask. Wrong: force error above {options.wrong:g} '
        f'eV/angstrom. Safe: gamma below {GAMMA_SELECT:g}. Mean +- spread over {len(rows)} seeds.'
    )
    titles = ''.join(f'{title:>18}' for title in ('wrong', 'wrong called safe', 'safe but wrong', 'safe'))
    print(f'{"clusters":>8} {"active set of":>14}{titles}')
    for key in rows[0]:
        table = np.array([row[key] for row in rows])
        pairs = zip(table.mean(axis=0), table.std(axis=0), strict=True)
        print(f'{key[0]:>8} {key[1]:>14}' + ''.join(f'{mean:8.2f} +- {spread:4.2f} %' for mean, spread in pairs))


def report_repairs(rows: Sequence[dict[tuple, tuple[float, ...]]]) -> None:
    print(f'\nRepairs, weights = full, mean over {len(rows)} seeds')
    print('  shape repair bond_scale refused  atoms dropped  moved  force/parent  RMSE (meV/angstrom)')
    for key in rows[0]:
        table = np.array([row[key] for row in rows])
        refused, atoms, dropped, moved, force, error = table.mean(axis=0)
        print(
            f'{key[0]:>7} {key[1]:>6} {key[2]:10.2f} {refused:7.1f} {atoms:6.0f} {dropped:7.1f} {moved:6.1f} '
            f'{force:13.1f} {error:8.1f} +- {table[:, -1].std():4.1f}'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--draws', type=int, default=50, help='random choices a seed, of which the mean counts')
    parser.add_argument('--clusters', type=int, nargs='+', default=[1, 2, 4, 8])
    parser.add_argument('--functions', type=int, default=120)
    parser.add_argument('--walkers', type=float, nargs='+', default=[600.0, 1200.0, 1800.0, 2400.0], help='kelvin')
    parser.add_argument('--frames', type=int, default=3, help='snapshots of each walker')
    parser.add_argument('--masked-clusters', type=int, default=2, help='clusters of the comparison of active sets')
    parser.add_argument('--repaired-clusters', type=int, default=2, help='of the last snapshot of each walker')
    parser.add_argument('--wrong', type=float, default=0.1, help='error of a truly wrong force, eV/angstrom')
    options = parser.parse_args()
    frames = hot_snapshots([600.0, 1200.0, 1800.0, 2400.0], 3, 3, 240, seed=1)
    choices, active_sets, repairs = [], [], []
    for seed in range(options.seeds):
        start = Round.start(seed, options)
        test = TestSet(start.first.basis, frames)
        choices.append(compare_choices(start, test, options, seed))
        active_sets.append(compare_active_sets(start, test, options))
        repairs.append(compare_repairs(start, test, options))
        print(f'seed {seed}: {len(start.cubes)} candidates, {len(test.forces)} atoms in the test set', flush=True)
    report_choices(choices, options)
    report_active_sets(active_sets, options)
    report_repairs(repairs)


if __name__ == '__main__':
    main()
