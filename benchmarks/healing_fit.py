"""What is learned stays learned? `python benchmarks/healing_fit.py [--systems cuau al si] [--seeds 5]`.

A potential is fitted to a first set, then again after each of four rounds of labelled clusters, as a campaign does, and
judged after each fit on structures that nobody trains on:

- cuau: the sets of a real campaign, `../shared/data/cuau_campaign`. `seen` are its independent hot snapshots, those
  that settings were chosen by; `kept back` are later frames of the same MD under EMT, which no choice has seen.
- al, nial (EMT) and si (Stillinger-Weber): cold strained crystals, then cubes around random atoms of MD under the
  labeller, hotter in each round. `seen` are more of the cold crystals; `kept back` is hot MD, a vacancy, a slab.

The rows are the protocols of `oodal.train.ace`, what they replaced (`before`: 200 functions, cutoff 6, all
forces alike, energies as labelled, no core), and the new `balanced` with one thing as it was,
which tells what each part is worth. Errors are force RMSE in meV/angstrom, mean over seeds; the spread is their
standard deviation. `worst step` is the largest ratio of the error after a round to that before it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import ase.io
import materials
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from materials import EMT, hot

from aiida_oodal.engine.ace.fit import AcePotential, Learned, fit_ace
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.carve.cluster import cut_each
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.label.calculators import label_structure, make_calculator
from aiida_oodal.engine.linear.errors import compare, judge
from aiida_oodal.engine.linear.targets import make_target
from aiida_oodal.workchains.protocols import load_protocol

CAMPAIGN = Path(__file__).parents[2] / 'shared' / 'data' / 'cuau_campaign'
BEFORE = AceFitSettings(
    number_of_functions=200,
    cutoff=6.0,
    robust_force=None,
    buffer_weight=1.0,
    fit_atom_energies=False,
    repulsion='none',
)
TESTS = ('seen', 'kept back')


@dataclass
class Data:
    """One campaign: what is learned in each round, and what it is judged by, with the name of its group."""

    rounds: list[list[Atoms]]
    tests: dict[str, list[tuple[str, Atoms]]]


def variants(names: Sequence[str]) -> dict[str, AceFitSettings]:
    """Return the settings to compare."""
    balanced = AceFitSettings(**load_protocol('train_ace', 'balanced'))
    made = {
        'before': BEFORE,
        'balanced': balanced,
        'quick': AceFitSettings(**load_protocol('train_ace', 'quick')),
        'careful': AceFitSettings(**load_protocol('train_ace', 'careful')),
        'all atoms alike': replace(balanced, buffer_weight=1.0, robust_force=None),
        'large forces alike': replace(balanced, robust_force=None),
        'energies as labelled': replace(balanced, fit_atom_energies=False),
        'Chebyshev functions': replace(balanced, radial_basis='ChebPow', radial_parameter=2.5),
        'cutoff 6': replace(balanced, cutoff=6.0),
        **{f'clusters weigh {weight}': replace(balanced, cluster_weight=weight) for weight in (1.0, 0.5, 0.3, 0.2)},
        'never grows': replace(balanced, max_functions=None),
        'full size at once': replace(balanced, number_of_functions=balanced.max_functions, max_functions=None),
        'mask': replace(balanced, weights='mask'),
        'stresses': replace(balanced, stress_weight=100.0),
    }
    return {name: made[name] for name in names}


def run(data: Data, settings: AceFitSettings) -> dict[str, np.ndarray | list[dict[str, float]]]:
    """Fit round after round.

    :return: for each test the error after each fit and by group after the last one; functions; CPU seconds.
    """
    targets, learned = [], None
    found: dict[str, list] = {name: [] for name in (*TESTS, 'functions', 'seconds')}
    for structures in data.rounds:
        targets += [make_target(atoms, settings, 'benchmark') for atoms in structures]
        started = time.process_time()
        fit = fit_ace(targets, settings, learned=learned)
        found['seconds'].append(time.process_time() - started)
        form = next(step.form for step in reversed(fit.steps) if step.kept)
        learned = Learned(form.number_of_functions, form.cutoff, fit.potential.atom_energies.values)
        found['functions'].append(form.number_of_functions)
        groups = {name: errors_by_group(fit.potential, data.tests[name], settings) for name in TESTS}
        for name, by_group in groups.items():
            found[name].append(by_group.pop('all'))
            found[f'{name} by group'] = [by_group]
    return found


def errors_by_group(
    potential: AcePotential, frames: Sequence[tuple[str, Atoms]], settings: AceFitSettings
) -> dict[str, float]:
    compared = compare(potential, [make_target(atoms, settings, name) for name, atoms in frames])
    groups = {name: [each for each in compared if each.target.name == name] for name, _ in frames}
    return {name: judge(each)['force_rmse'] for name, each in {'all': compared, **groups}.items()}


def cubes(parents: Sequence[Atoms], calculator: Calculator, temperature: float, seed: int, count: int) -> list[Atoms]:
    """Cut labelled cubes around random atoms of MD at one temperature."""
    cut, rng, found = CarveSettings().for_cutoff(6.0), np.random.default_rng(seed), []
    for number, parent in enumerate(parents):
        (frame,) = hot(parent, calculator, [temperature], 1, 100 * seed + number, steps=150)
        bare = Atoms(frame.symbols, positions=frame.positions, cell=frame.cell, pbc=True)
        made = cut_each(bare, rng.choice(len(bare), count // len(parents), replace=False), cut)
        found += [label_structure(cube, calculator) for cube in made if isinstance(cube, Atoms)]
    return found


def as_campaign(
    material: materials.Material, parents: Sequence[Atoms], temperatures: Sequence[float], seed: int
) -> Data:
    """Add the clusters of each round to a material."""
    rounds = [
        cubes(parents, material.calculator, kelvin, 10 * seed + n, 6) for n, kelvin in enumerate(temperatures, start=1)
    ]
    return Data([material.start, *rounds], {'seen': material.seen, 'kept back': material.kept})


def make_cuau(seed: int) -> Data:
    """Read the campaign; the seed is that of the MD that goes on from its snapshots."""
    names = ('start', 'round_1', 'round_2', 'round_3', 'round_4')
    rounds = [ase.io.read(CAMPAIGN / f'{name}.extxyz', ':') for name in names]
    snapshots = [(str(atoms.info['case']), atoms) for atoms in ase.io.read(CAMPAIGN / 'hot.extxyz', ':')]
    calculator, kept = make_calculator(EMT), []
    for number, (case, atoms) in enumerate(snapshots):
        bare = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frames = hot(bare, calculator, [float(atoms.info['T'])], 1, 1000 * (seed + 1) + number, steps=150)
        kept += [(case, frame) for frame in frames]
    return Data(rounds, {'seen': snapshots, 'kept back': kept})


def make_al(seed: int) -> Data:
    parents = [bulk('Al', 'fcc', a=4.0, cubic=True) * (4, 4, 4)]
    return as_campaign(materials.make_al(seed), parents, (600, 1000, 1500, 2200), seed)


def make_si(seed: int) -> Data:
    parents = [bulk('Si', 'diamond', a=5.43, cubic=True) * (3, 3, 3)]
    return as_campaign(materials.make_si(seed), parents, (800, 1500, 2400, 3500), seed)


def make_nial(seed: int) -> Data:
    aluminium, ni3al = bulk('Al', 'fcc', a=4.0, cubic=True), bulk('Ni', 'fcc', a=3.6, cubic=True)
    ni3al.symbols[0] = 'Al'
    parents = [aluminium * 4, ni3al * 4, bulk('NiAl', 'cesiumchloride', a=2.95, cubic=True) * 5]
    return as_campaign(materials.make_nial(seed), parents, (600, 1000, 1400, 1800), seed)


SYSTEMS: dict[str, Callable[[int], Data]] = {'cuau': make_cuau, 'al': make_al, 'si': make_si, 'nial': make_nial}


def report(system: str, name: str, runs: Sequence[dict], seeds: str) -> None:
    """Print two rows: mean over seeds after each fit, spread after the last, worst step, CPU time, functions."""
    seconds = np.array([each['seconds'] for each in runs]).sum(axis=1)
    sizes = '/'.join(f'{value:.0f}' for value in np.mean([each['functions'] for each in runs], axis=0))
    for test in TESTS:
        errors = np.array([each[test] for each in runs])
        steps = ' '.join(f'{value:6.1f}' for value in errors.mean(axis=0))
        worst = (errors[:, 1:] / errors[:, :-1]).max()
        groups = [each[f'{test} by group'][0] for each in runs]
        by_group = ', '.join(f'{key} {np.mean([each[key] for each in groups]):.0f}' for key in groups[0])
        print(
            f'{system:<5} {seeds} {name:<20} {test:<9} {steps}  +- {errors[:, -1].std():4.1f}  '
            f'worst step {worst:4.2f}  {seconds.mean():4.0f} s  {sizes}  ({by_group})',
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--systems', nargs='+', choices=SYSTEMS, default=['cuau', 'al', 'si'])
    parser.add_argument('--seeds', type=int, default=1, help='5 for the long form')
    parser.add_argument('--variants', nargs='+', default=['before', 'balanced'], help='`all` for every one')
    options = parser.parse_args()
    names = options.variants
    if names == ['all']:
        names = [
            *('before', 'balanced', 'quick', 'careful', 'all atoms alike', 'large forces alike'),
            *(
                'energies as labelled',
                'Chebyshev functions',
                'cutoff 6',
                'never grows',
                'full size at once',
                'mask',
                'stresses',
            ),
        ]
    print('force RMSE (meV/angstrom) after the first fit and after each of four rounds')
    for system in options.systems:
        runs: dict[str, list[dict]] = {name: [] for name in names}
        for seed in range(options.seeds):
            data = SYSTEMS[system](seed)
            for name, settings in variants(names).items():
                runs[name].append(run(data, settings))
                if options.seeds > 1:
                    report(system, name, runs[name][-1:], f'seed {seed}')
        for name, found in runs.items():
            report(system, name, found, f'{len(found)} seeds')


if __name__ == '__main__':
    main()
