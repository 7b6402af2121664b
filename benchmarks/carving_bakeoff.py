"""Which way to cut a cluster is the best: `python benchmarks/carving_bakeoff.py [--seeds 3] [--systems al si]`.

Clusters are cut around the atoms with the largest gamma in snapshots of a vacancy, a surface step, a grain boundary, an
amorphous solid and a melt (MD under the labeller: EMT for Al, Stillinger-Weber for Si), in each of these ways:

- sphere: vacuum in the corners.  cube raw: filled with the parent's atoms, refused only below 0.5 angstrom.
- cube drop, cube relax: the repairs of the product, limit 0.75 of the sum of covalent radii.
- settle far, settle buffer: `cube relax`, then atoms of the buffer move downhill under the potential until the largest
  gamma of the buffer is below 1 or the steps are used up; `far` moves only atoms beyond the cutoff of the centre, as
  the repairs do, `buffer` all atoms outside the core, as NEPMaker does.
- fill, fill settled: a sphere whose corners are filled at random to the density of the sphere, as it is, and after
  `settle far`.

The potential is a linear ACE that knows cold crystals and MD of the bulk, as after the first rounds of a campaign. It
is fitted again with the clusters of each way, for `weights = full` and `mask`, and judged on snapshots of the same five
structures from other MD (healing). `parents whole` learns the parents instead of clusters.

A force of a core atom is called useful if it is within 0.1 eV/angstrom of the parent's under the same labeller.
Errors are root mean squares of components; figures are means over seeds, +- their standard deviation. CPU times are
those of the processes themselves: other users of the machine do not count. What the same ways cost under real `pw.x`
shows `carving_pw.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from ase.build import bulk, diamond100, fcc100, make_supercell
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms
from ase.geometry import get_duplicate_atoms
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE
from carve import BUFFER, RADIUS
from materials import EMT, hot, stillinger_weber
from selection import TestSet, reduce, solve

from aiida_oodal.engine.ace.fit import AcePotential, fit_ace
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.carve.centres import worst_centres
from aiida_oodal.engine.carve.cluster import Cut, cut_each
from aiida_oodal.engine.carve.fidelity import check_fidelity
from aiida_oodal.engine.carve.repair import Limits
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import label_structure, make_calculator
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.linear.targets import make_target
from aiida_oodal.workchains.protocols import load_protocol

WAYS = ('sphere', 'cube raw', 'cube drop', 'cube relax', 'settle far', 'settle buffer', 'fill', 'fill settled')
STRUCTURES = ('vacancy', 'step', 'boundary', 'amorphous', 'melt')
USEFUL = 0.1  # eV/angstrom
GAMMA_BREAK = 5.0


@dataclass(frozen=True)
class System:
    """An element with its crystal, the temperatures (K) of its snapshots, and of the bulk that is known before."""

    symbol: str
    crystal: str
    constant: float
    labeller: Callable[[], Calculator]
    kelvin: dict[str, float]
    known: tuple[float, ...]
    cells: int

    def unit(self) -> Atoms:
        """Return the cubic cell."""
        return bulk(self.symbol, self.crystal, a=self.constant, cubic=True)


SYSTEMS = {
    'al': System(
        *('Al', 'fcc', 4.0, lambda: make_calculator(EMT)),
        {'vacancy': 900.0, 'step': 600.0, 'boundary': 700.0, 'amorphous': 300.0, 'melt': 2000.0},
        (600.0, 1200.0),
        4,
    ),
    'si': System(
        *('Si', 'diamond', 5.43, stillinger_weber),
        {'vacancy': 1200.0, 'step': 900.0, 'boundary': 1000.0, 'amorphous': 300.0, 'melt': 3500.0},
        (800.0, 1500.0),
        3,
    ),
}


@dataclass
class Labeller:
    """A calculator whose energies count from free atoms."""

    calculator: Calculator
    free_atom: float = 0.0

    @classmethod
    def of(cls, system: System) -> Labeller:
        """Make the labeller of a system, and label its free atom."""
        calculator = system.labeller()
        atom = label_structure(Atoms(system.symbol, cell=[15.0] * 3, pbc=True), calculator)
        return cls(calculator, float(atom.info['REF_energy']))

    def __call__(self, atoms: Atoms) -> Atoms:
        """Return a labelled copy."""
        labelled = label_structure(atoms, self.calculator)
        labelled.info['REF_energy'] -= self.free_atom * len(atoms)
        return labelled


class AceCalculator(Calculator):
    """A fitted potential for ASE's optimisers; its results have gamma, too."""

    implemented_properties = ('energy', 'forces', 'gamma')

    def __init__(self, potential: AcePotential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(self, atoms: Any = None, properties: Any = ('energy',), system_changes: Any = all_changes) -> None:
        """Evaluate the potential."""
        super().calculate(atoms, properties, system_changes)
        found = self.potential.basis.predict(self.atoms)
        gamma = self.potential.gamma(self.atoms, found.projections)
        self.results = {'energy': found.energy, 'forces': found.forces, 'gamma': gamma}


def settle(
    cluster: Atoms, potential: AcePotential, cutoff: float, steps: int, *, shield: bool, goal: float = 1.0
) -> Atoms:
    """Move atoms of the buffer downhill under a potential until the gamma of the buffer is below a goal.

    :param cutoff: angstrom; with ``shield`` atoms closer to the centre than this stay where they are.
    :return: a copy; its ``info`` has ``settled``, whether the goal was reached, and ``settle_steps``.
    """
    atoms = cluster.copy()
    buffer = atoms.arrays['force_mask'] == 0.0
    distances = np.linalg.norm(atoms.positions - atoms.positions[0], axis=1)
    free = buffer & (distances >= cutoff) if shield else buffer
    atoms.calc = AceCalculator(potential)
    atoms.set_constraint(FixAtoms(mask=~free))
    optimiser, reached = FIRE(atoms, logfile=None, maxstep=0.1), False
    for _ in optimiser.irun(fmax=0.02, steps=steps):
        reached = bool(atoms.calc.results['gamma'][buffer].max(initial=0.0) < goal)
        if reached:
            break
    atoms.calc = None
    atoms.set_constraint()
    atoms.info.update(settled=reached, settle_steps=optimiser.nsteps)
    return atoms


def fill(sphere: Atoms, reach: float, limits: Limits, rng: np.random.Generator, tries: int = 20000) -> Atoms:
    """Fill the corners around a sphere with atoms at random places, to the density of the sphere.

    :param reach: radius of the sphere, angstrom; new atoms lie outside it.
    :param limits: no new atom comes closer to another one.
    :return: a copy in which the new atoms come last, as buffer atoms whose ``parent_index`` is -1.
    """
    edge, own = float(sphere.cell[0, 0]), len(sphere)
    wanted = round(own / (4.0 / 3.0 * np.pi * reach**3) * (edge**3 - 4.0 / 3.0 * np.pi * reach**3))
    numbers, positions = sphere.numbers.tolist(), sphere.positions.copy()
    for _ in range(tries):
        if len(numbers) - own == wanted:
            break
        place, number = rng.uniform(0.0, edge, 3), int(rng.choice(sphere.numbers))
        if np.linalg.norm(place - edge / 2) < reach:
            continue
        vectors = positions - place
        vectors -= edge * np.rint(vectors / edge)
        others = np.array(numbers)
        least = limits.of_pairs(np.append(others, number), np.arange(len(others)), np.full(len(others), len(others)))
        if (np.linalg.norm(vectors, axis=1) >= least).all():
            numbers.append(number)
            positions = np.vstack([positions, place])
    filled = Atoms(numbers, positions, cell=sphere.cell, pbc=True, info=dict(sphere.info))
    new = len(numbers) - own
    filled.arrays['force_mask'] = np.append(sphere.arrays['force_mask'], np.zeros(new))
    filled.arrays['parent_index'] = np.append(sphere.arrays['parent_index'], np.full(new, -1))
    return filled


@dataclass(frozen=True)
class Knife:
    """Cuts clusters in any of the ways.

    :param settings: radius, buffer, limits; shape and repair are those of the way.
    :param epsilon: added to the edge, angstrom.
    """

    potential: AcePotential
    settings: CarveSettings
    steps: int
    seed: int
    epsilon: float = 0.5

    def cut(self, parent: Atoms, centre: int, way: str) -> Atoms | OodalError:
        """Cut one cluster, or return why it cannot be cut."""
        cutoff = self.potential.basis.cutoff
        shape = 'sphere' if way in ('sphere', 'fill', 'fill settled') else 'cube'
        repair = 'drop' if shape == 'sphere' or way == 'cube drop' else 'error' if way == 'cube raw' else 'relax'
        settings = replace(self.settings, shape=shape, repair=repair)
        if way == 'cube raw':
            settings = replace(settings, bond_scale=0.0)
        made: Cut = replace(settings.for_cutoff(cutoff), epsilon=self.epsilon)
        (cluster,) = cut_each(parent, [centre], made)
        if isinstance(cluster, OodalError):
            return cluster
        if shape == 'sphere' and way != 'sphere':
            rng = np.random.default_rng([self.seed, centre])
            limits = Limits(made.min_distance, made.bond_scale)
            cluster = fill(cluster, made.radius + made.buffer, limits, rng)
        if way in ('settle far', 'settle buffer', 'fill settled'):
            cluster = settle(cluster, self.potential, cutoff, self.steps, shield=way != 'settle buffer')
        return cluster


def compare_with_parent(cluster: Atoms, parent: Atoms, potential: AcePotential) -> dict[str, Any]:
    """Compare the labels of a cluster with those of its parent, and its gammas.

    :param cluster: labelled; atoms that are not the parent's have ``parent_index`` -1.
    :param parent: labelled, with ``gamma``.
    :return: ``centre`` and ``core``: mean square errors of force components, (eV/angstrom)^2; ``useful`` forces;
        ``hardest`` force over the parent's; what :func:`check_fidelity` finds.
    """
    core = cluster.arrays['force_mask'] == 1.0
    wrong = cluster.arrays['REF_forces'][core] - parent.arrays['REF_forces'][cluster.arrays['parent_index'][core]]
    forces = np.linalg.norm(cluster.arrays['REF_forces'], axis=1)

    def grade(atoms: Atoms) -> np.ndarray:
        return potential.gamma(atoms, potential.basis.predict(atoms).projections)

    gamma_parent = float(parent.arrays['gamma'][cluster.info['center_parent_index']])
    found = check_fidelity(cluster, grade, gamma_parent, gamma_break=GAMMA_BREAK)
    buffer = cluster.arrays['gamma_cluster'][~core]
    return {
        'atoms': len(cluster),
        'centre': float(np.mean(wrong[0] ** 2)),
        'core': float(np.mean(wrong**2)),
        'useful': int(np.count_nonzero(np.linalg.norm(wrong, axis=1) <= USEFUL)),
        'of core': len(wrong),
        'hardest': float(forces.max() / np.linalg.norm(parent.arrays['REF_forces'], axis=1).max()),
        'faithful': bool(found.faithful),
        'above 1': np.count_nonzero(buffer > 1.0) / max(len(buffer), 1),
        'above break': found.buffer_above_break / max(len(buffer), 1),
        'settled': cluster.info.get('settled'),
    }


def grain_boundary(unit: Atoms, along: int, deep: int, gap: float = 0.6) -> Atoms:
    """Make two symmetric tilt boundaries (sigma 5, 210) in a periodic cell.

    :param gap: by which the grains are drawn apart, angstrom; of two atoms that then still overlap one is left out.
    """
    half = make_supercell(unit, [[2, 1, 0], [-1, 2, 0], [0, 0, 1]])
    half.rotate(-np.degrees(np.arctan2(1.0, 2.0)), 'z', rotate_cell=True)
    half = Atoms(half.numbers, half.positions, cell=half.cell.lengths(), pbc=True)
    half.wrap()
    half *= (along, 1, deep)
    height, other = float(half.cell[1, 1]), half.copy()
    other.positions[:, 1] = 2.0 * height + gap - other.positions[:, 1]
    both = half + other
    both.set_cell([half.cell[0, 0], 2.0 * (height + gap), half.cell[2, 2]])
    both.wrap()
    shortest = neighbor_list('d', unit, 0.6 * unit.cell[0, 0] + 0.6).min()
    get_duplicate_atoms(both, cutoff=0.7 * shortest, delete=True)
    return both


def surface_step(system: System) -> Atoms:
    """Make a slab of which half of the uppermost layer is missing."""
    size = (6, 6, 8) if system.crystal == 'fcc' else (4, 4, 12)
    build = fcc100 if system.crystal == 'fcc' else diamond100
    slab = build(system.symbol, size, a=system.constant, vacuum=6.0, periodic=True)
    top = np.flatnonzero(slab.positions[:, 2] > slab.positions[:, 2].max() - 0.1)
    del slab[top[slab.positions[top, 0] < 0.499 * slab.cell[0, 0]]]
    return Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=True)


def make_snapshots(system: System, labeller: Labeller, names: Sequence[str], seed: int, steps: int) -> dict[str, Atoms]:
    """Sample one labelled snapshot of each structure under the labeller."""
    crystal = system.unit() * ((system.cells,) * 3)
    made = {}
    for place, name in enumerate(names):
        kelvin, start = system.kelvin[name], crystal
        if name == 'vacancy':
            start = crystal.copy()
            del start[len(start) // 2]
        elif name == 'step':
            start = surface_step(system)
        elif name == 'boundary':
            start = grain_boundary(system.unit(), 2 if system.crystal == 'fcc' else 1, system.cells)
        elif name in ('amorphous', 'melt'):
            # much hotter, so that it melts at once; then back to the cell of the crystal, for it expands again
            (start,) = hot(
                crystal, labeller.calculator, [system.kelvin['melt'] * 1.5], 1, 10 * seed + place, steps=steps
            )
            start.set_cell(crystal.cell, scale_atoms=True)
        (found,) = hot(start, labeller.calculator, [kelvin], 1, 10 * seed + place, steps=steps)
        made[name] = labeller(Atoms(found.numbers, found.positions, cell=found.cell, pbc=True))
    return made


@dataclass
class Trial:
    """One seed of one system."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    healed: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write the figures as JSON."""
        plain = vars(self) | {'healed': [[*key, value] for key, value in self.healed.items()]}
        path.write_text(json.dumps(plain), encoding='utf-8')

    @classmethod
    def load(cls, path: Path) -> Trial:
        """Read what :meth:`save` wrote."""
        plain = json.loads(path.read_text(encoding='utf-8'))
        return cls(**plain | {'healed': {(way, weights): value for way, weights, value in plain['healed']}})


def know_the_bulk(system: System, labeller: Labeller, values: AceFitSettings, seed: int) -> list[Atoms]:
    """Return labelled crystals, cold and hot: what the potential knows before."""
    own = {'symbol': system.symbol, 'crystal': system.crystal, 'lattice_constant': system.constant}
    cold = strained_crystals(seed=seed, count=12, **own)
    bulk_cell = system.unit() * ((3,) * 3 if system.crystal == 'fcc' else (2,) * 3)
    warm = hot(bulk_cell, labeller.calculator, list(system.known), 3, 900 + seed, steps=240)
    return [labeller(Atoms(a.numbers, a.positions, cell=a.cell, pbc=True)) for a in (*cold, *warm)]


def grade_parents(parents: dict[str, Atoms], potential: AcePotential) -> None:
    for parent in parents.values():
        parent.arrays['gamma'] = potential.gamma(parent, potential.basis.predict(parent).projections)


def run(system: System, seed: int, options: argparse.Namespace) -> Trial:
    """Cut, label and learn for one seed."""
    started, trial, labeller = time.process_time(), Trial(), Labeller.of(system)
    protocol = AceFitSettings(**load_protocol('train_ace', 'balanced'))
    values = replace(protocol, number_of_functions=options.functions, max_functions=None, fit_atom_energies=False)
    known = know_the_bulk(system, labeller, values, seed)
    potential = fit_ace([make_target(atoms, values, 'bulk') for atoms in known], values).potential
    parents = make_snapshots(system, labeller, options.structures, seed, options.steps)
    tests = make_snapshots(system, labeller, options.structures, 500 + seed, options.steps)
    grade_parents(parents, potential)
    knife = Knife(potential, CarveSettings(radius=RADIUS, buffer=BUFFER), options.settle_steps, seed)
    clusters: dict[str, list[Atoms]] = {way: [] for way in options.ways}
    for name, parent in parents.items():
        centres = worst_centres(parent, gamma_min=0.0, max_centres=options.centres, min_separation=RADIUS)
        for centre in centres:
            for way in options.ways:
                made = knife.cut(parent, centre, way)
                if isinstance(made, OodalError):
                    trial.refused[way] = trial.refused.get(way, 0) + 1
                    continue
                cluster = labeller(made)
                trial.rows.append({'way': way, 'of': name} | compare_with_parent(cluster, parent, potential))
                clusters[way].append(cluster)
    trial.healed = heal(potential, values, known, clusters | {'parents whole': list(parents.values())}, tests)
    trial.seconds = time.process_time() - started
    return trial


def heal(
    potential: AcePotential,
    values: AceFitSettings,
    known: Sequence[Atoms],
    learned: dict[str, list[Atoms]],
    tests: dict[str, Atoms],
) -> dict[tuple[str, str], dict[str, float]]:
    """Fit again with what is learned in each way; return the force RMSE (meV/angstrom) by structure and of all."""
    basis, found = potential.basis, {}
    base = [reduce(basis.design(atoms), atoms, values) for atoms in known]
    judges = {name: TestSet(basis, [atoms]) for name, atoms in tests.items()}

    def judge(coefficients: np.ndarray) -> dict[str, float]:
        wrong = {name: test.rmse(coefficients) for name, test in judges.items()}
        sizes = [len(test.forces) for test in judges.values()]
        return wrong | {'all': float(np.sqrt(np.average(np.square(list(wrong.values())), weights=sizes)))}

    found['before', ''] = judge(solve(base, values.ridge))
    for way, structures in learned.items():
        designs = [basis.design(atoms) for atoms in structures]
        for weights in ('full', 'mask'):
            own = replace(values, weights=weights)
            rows = [reduce(design, atoms, own) for design, atoms in zip(designs, structures, strict=True)]
            labelled = {'atoms': float(sum(map(len, structures)))}
            found[way, weights] = judge(solve(base + rows, values.ridge)) | labelled if rows else {}
    return found


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    kept = np.array([value for value in values if np.isfinite(value)])
    return f'{kept.mean():.{digits}f} +- {kept.std():.{digits}f}' if len(kept) else '-'


def of_seeds(trials: Sequence[Trial], way: str, key: str, name: str | None = None) -> list[float]:
    """Return the mean of a column for each seed; NaN where a seed has no cluster."""
    rows = [[r[key] for r in t.rows if r['way'] == way and name in (None, r['of'])] for t in trials]
    return [float(np.mean(row)) if row else float('nan') for row in rows]


def errors(trials: Sequence[Trial], way: str, key: str, name: str | None = None) -> list[float]:
    """Return the root mean square error (meV/angstrom) for each seed."""
    return [1e3 * float(np.sqrt(value)) for value in of_seeds(trials, way, key, name)]


def report_cuts(trials: Sequence[Trial], options: argparse.Namespace) -> None:
    print('| way | atoms | refused | centre (meV/Å) | core (meV/Å) | useful of core | hardest force / parent\'s '
          '| gamma of centre kept (%) | buffer above 1 (%) | buffer above 5 (%) | goal reached (%) |')  # fmt: skip
    print('|---|---|---|---|---|---|---|---|---|---|---|')
    for way in options.ways:
        settled = [r['settled'] for t in trials for r in t.rows if r['way'] == way and r['settled'] is not None]
        cells = [
            mean_and_spread(of_seeds(trials, way, 'atoms'), 0),
            f'{sum(t.refused.get(way, 0) for t in trials)}',
            mean_and_spread(errors(trials, way, 'centre')),
            mean_and_spread(errors(trials, way, 'core')),
            f'{np.nanmean(of_seeds(trials, way, "useful")):.1f} of {np.nanmean(of_seeds(trials, way, "of core")):.1f}',
            mean_and_spread(of_seeds(trials, way, 'hardest'), 2),
            *(f'{100 * np.nanmean(of_seeds(trials, way, key)):.0f}' for key in ('faithful', 'above 1', 'above break')),
            f'{100 * np.mean(settled):.0f}' if settled else '-',
        ]
        print(f'| {way} | ' + ' | '.join(cells) + ' |')
    print('\ncore error by structure (meV/Å)')
    print('| way | ' + ' | '.join(options.structures) + ' |\n' + '|---' * (len(options.structures) + 1) + '|')
    for way in options.ways:
        cells = [mean_and_spread(errors(trials, way, 'core', name), 0) for name in options.structures]
        print(f'| {way} | ' + ' | '.join(cells) + ' |')


def report_healing(trials: Sequence[Trial], options: argparse.Namespace) -> None:
    print('\nforce RMSE after learning (meV/Å) on snapshots of other MD')
    print('| learned | weights | labelled atoms | all | ' + ' | '.join(options.structures) + ' |')
    print('|---|---|---|---|' + '---|' * len(options.structures))
    for way, weights in trials[0].healed:
        found = [trial.healed[way, weights] for trial in trials]
        cells = [f'{np.nanmean([each.get("atoms", 0.0) for each in found]):.0f}']
        cells += [mean_and_spread([each.get('all', np.nan) for each in found])]
        cells += [f'{np.nanmean([each.get(name, np.nan) for each in found]):.0f}' for name in options.structures]
        print(f'| {way} | {weights} | ' + ' | '.join(cells) + ' |')


def describe_machine() -> str:
    """Say what this ran on."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.machine())
    return f'{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, one process of one thread'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--systems', nargs='*', choices=SYSTEMS, default=['al', 'si'])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--structures', nargs='+', choices=STRUCTURES, default=list(STRUCTURES))
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    parser.add_argument('--centres', type=int, default=1, help='clusters of each snapshot')
    parser.add_argument('--functions', type=int, default=100)
    parser.add_argument('--steps', type=int, default=120, help='MD steps before a snapshot')
    parser.add_argument('--settle-steps', type=int, default=40)
    parser.add_argument('--keep', type=Path, help='folder for the figures of each seed, which are taken from there')
    parser.add_argument('--short', action='store_true', help='one seed of each system: some minutes')
    options = parser.parse_args()
    if options.short:
        options.seeds = 1
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    print(describe_machine())
    for name in options.systems:
        trials = []
        for seed in range(options.seeds):
            kept = options.keep / f'{name}_{seed}.json' if options.keep else None
            trials.append(Trial.load(kept) if kept and kept.exists() else run(SYSTEMS[name], seed, options))
            print(f'{name}, seed {seed}: {trials[-1].seconds:.0f} s of CPU', flush=True)
            if kept:
                trials[-1].save(kept)
        print(f'\n{name}: {options.seeds} seeds, {options.centres} clusters of each snapshot')
        report_cuts(trials, options)
        report_healing(trials, options)


if __name__ == '__main__':
    main()
