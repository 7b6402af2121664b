"""Which labels heal a potential, and how many it takes? `python benchmarks/healing.py [--long]`.

A potential is trained on cold, narrow data. Walkers, heated by it, halt where its gamma is too large; something of the
frames in which they halted is labelled and learned, round after round, until all walkers finish or the rounds are over.
This is what a campaign does, by the same functions of the engine, without AiiDA. The potential is a linear ACE, or an
ensemble of small MACE models, which are trained from scratch in every round or (mace-warm) after the first round from
those of the round before. The strategies differ in what is labelled:

- gamma, full or mask: cubes around the atoms with the largest gamma, chosen by MaxVol among those of all walkers; the
  atoms outside the core count as `weights` says;
- random, full or mask: cubes around random atoms of the same frames;
- farthest, full: cubes around the atoms with the largest gamma, chosen by farthest point;
- whole cells: the frames themselves, worst first;
- 8 atoms: all frames of other walkers, in cells of at most 8 atoms; `healed` is asked of the same walkers as for the
  other strategies.

All strategies of a seed begin with the same potential and the same walkers, and label the same number of clusters, or
of whole cells, in a round: one, one, two, four, eight, as far as there are so many. Errors are those on snapshots of MD
under the labeller that nobody trains on. Healed: all walkers finish, and the force error on each last frame, labelled,
is below `--tolerance`, that of the audit of a campaign. Anchors are more of the structures that the first potential
was trained on and is good at. `to a half`, `to a quarter`: labelled atoms after which the force error is below that
share of the first potential's, among the seeds in which it gets there. All figures are means over seeds with their
standard deviation.

    python benchmarks/healing.py                      # 3 seeds, 4 materials; estimated: an hour on 2 idle cores
    python benchmarks/healing.py --long               # a night: 5 seeds, protocol balanced, longer MD, more rounds
    python benchmarks/healing.py --keep runs.jsonl    # go on where an earlier call was ended; the table is about all

    python benchmarks/healing.py --family mace --keep mace.jsonl   # Al, 3 seeds: an hour and a half on one idle core

What is labelled costs little here, as it has to be: EMT for Al and Cu-Au, Stillinger-Weber for Si, GFN1-xTB for liquid
methane, where cubes cut molecules. Methane needs the extra `xtb`, takes six minutes for its data, and has no cells of
8 atoms.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from families import AceFamily, Family, MaceFamily, Sets, Trained
from healing_tables import ANCHORS, LAST, report
from materials import MATERIALS, Material, Walker

from aiida_oodal.engine.carve.candidates import cells_of, cut_candidates, judge_candidates
from aiida_oodal.engine.carve.cluster import cut_each
from aiida_oodal.engine.carve.selection import choose_clusters
from aiida_oodal.engine.carve.settings import CarveSettings, SelectSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import open_grader
from aiida_oodal.engine.files import INPUT_FILE, STRUCTURE_FILE
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS
from aiida_oodal.engine.md.embedded import run_job as run_md
from aiida_oodal.engine.md.run import read_run
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.start.box import LammpsBox
from aiida_oodal.engine.md.start.home import FramesHome
from aiida_oodal.engine.md.verdict import Outcome
from aiida_oodal.engine.thresholds import Thresholds
from aiida_oodal.engine.trust.audit import AuditSettings
from aiida_oodal.engine.trust.guard import find_worsened
from aiida_oodal.templates import get_template


@dataclass(frozen=True)
class Strategy:
    """What is labelled, and what the atoms outside the core of it weigh."""

    what: str
    weights: str


STRATEGIES = {
    'gamma, full': Strategy('gamma', 'full'),
    'gamma, mask': Strategy('gamma', 'mask'),
    'random, full': Strategy('random', 'full'),
    'random, mask': Strategy('random', 'mask'),
    'farthest, full': Strategy('farthest', 'full'),
    'whole cells': Strategy('whole', 'full'),
    '8 atoms': Strategy('small', 'full'),
}


#: By family, what is run unless something else is asked for.
DEFAULTS: dict[str, dict[str, list[str]]] = {
    'ace': {'materials': list(MATERIALS), 'strategies': list(STRATEGIES)},
    'mace': {
        'materials': ['al'],
        'strategies': ['gamma, full', 'gamma, mask', 'random, full', 'random, mask', 'whole cells'],
    },
    'mace-warm': {'materials': ['al'], 'strategies': ['gamma, full']},
}


@dataclass(frozen=True)
class Walk:
    """How one walker ended.

    :param finished: whether it came to its last step.
    :param frames: graded frames worth learning from, in the order of MD.
    :param final: its last physical frame.
    """

    finished: bool
    frames: list[Atoms]
    final: Atoms | None


@dataclass
class Case:
    """One material and one seed: what all strategies share.

    :param judged: labelled sets to judge by: the anchors, and the independent snapshots by group.
    """

    name: str
    seed: int
    material: Material
    family: Family
    folder: Path
    options: argparse.Namespace
    judged: dict[str, list[Atoms]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.judged = {ANCHORS: [bare(atoms, labels=True) for _, atoms in self.material.seen]}
        for group, atoms in self.material.kept:
            self.judged.setdefault(group, []).append(bare(atoms, labels=True))
        self.carve = CarveSettings(**({'centres_per_snapshot': 6} | self.material.carve))
        self.thresholds = Thresholds()

    def walk(self, trained: Trained, walkers: Sequence[Walker], folder: Path) -> list[Walk]:
        """Run walkers by a potential."""
        walks = []
        for number, walker in enumerate(walkers):
            own = folder / f'walker_{number}'
            own.mkdir(parents=True)
            walks.append(self._walk(trained, walker, own, velocity_seed=1000 * (self.seed + 1) + number))
            shutil.rmtree(own)
        return walks

    def _walk(self, trained: Trained, walker: Walker, folder: Path, velocity_seed: int) -> Walk:
        settings = MdSettings.load({**walker.settings, 'velocity_seed': velocity_seed})
        elements = trained.learned['elements']
        box = LammpsBox(walker.atoms.cell.array, walker.atoms.pbc)
        write_structure(folder / STRUCTURE_FILE, box.equivalent(walker.atoms), elements)
        script = render_input(get_template('lammps/md.in.j2'), settings, forces='embedded', elements=elements)
        (folder / INPUT_FILE).write_text(script, encoding='utf-8')
        # whatever ended the run, a halt or an explosion, is in its log
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit, OodalError):
            run_md({'input': INPUT_FILE, 'potential': trained.learned}, folder)
        run = read_run(folder, target_step=settings.steps, thresholds=settings.thresholds)
        home = FramesHome(walker.atoms, elements)
        final = None if run.final is None else home.bring(run.final)
        finished = run.verdict.outcome is Outcome.COMPLETED
        return Walk(finished, [home.bring(frame) for frame in run.snapshots], final)

    def choose(
        self, strategy: Strategy, trained: Trained, walks: Sequence[Walk], known: Sequence[Atoms], most: int
    ) -> list[Atoms]:
        """Return what is to be labelled, unlabelled, the most wanted first."""
        halted = [walk.frames for walk in walks if not walk.finished]
        last = [physical[-1] for frames in halted if (physical := self._physical(frames))]
        if strategy.what in ('whole', 'small'):
            worst = sorted(last, key=lambda frame: -frame.arrays['gamma'].max())
            return [bare(frame) for frame in worst[: None if strategy.what == 'small' else most]]
        if strategy.what == 'random':
            return self._choose_random(trained, last, most, stream=len(known))
        return self._choose_by_grade(strategy.what, trained, halted, known, most)

    def _physical(self, frames: Iterable[Atoms]) -> list[Atoms]:
        return [frame for frame in frames if frame.arrays['gamma'].max() <= self.thresholds.gamma_ceiling]

    def _choose_random(self, trained: Trained, frames: Sequence[Atoms], most: int, stream: int) -> list[Atoms]:
        """Cut around random atoms of the frames that the other strategies cut from."""
        rng = np.random.default_rng([self.seed, stream])
        cut, chosen = self.carve.for_cutoff(trained.cutoff), []
        for turn in range(most if frames else 0):
            frame = frames[turn % len(frames)]
            chosen += [
                cell for cell in cut_each(frame, [int(rng.integers(len(frame)))], cut) if isinstance(cell, Atoms)
            ]
        return [bare(cluster) for cluster in chosen]

    def _choose_by_grade(
        self, method: str, trained: Trained, halted: Sequence[Sequence[Atoms]], known: Sequence[Atoms], most: int
    ) -> list[Atoms]:
        """Cut around the worst atoms, and choose among the cubes of all walkers, as a campaign does."""
        attempts = [
            attempt
            for frames in halted
            for attempt in cut_candidates(frames, self.carve, self.thresholds, trained.cutoff)
        ]
        grader = open_grader(trained.learned, Path())
        found = judge_candidates(attempts, self.carve, self.thresholds, grader.grade(cells_of(attempts)))
        grades = grader.grade([*found.clusters, *known], centres_only=True)
        settings = SelectSettings(method='farthest' if method == 'farthest' else 'auto', max_clusters=most)
        decisions = choose_clusters(
            found.clusters,
            grades[: len(found.clusters)],
            settings,
            self.thresholds,
            has_active_set=grader.has_active_set,
            known=known,
            known_grades=grades[len(found.clusters) :],
        )
        ranked = {decision.rank: decision.index for decision in decisions if decision.rank is not None}
        return [bare(found.clusters[ranked[rank]]) for rank in sorted(ranked)]

    def run(self, name: str, first: Trained) -> dict[str, Any]:
        """Heal by one strategy.

        :return: one row of the results, plain values.
        """
        strategy, folder = STRATEGIES[name], self.folder / name.replace(', ', '_')
        explorers = self.material.small if strategy.what == 'small' else self.material.walkers
        rounds: dict[str, list[Atoms]] = {'start': [bare(atoms, labels=True) for atoms in self.material.start]}
        trained, labels, started = first, Labels(self.material), time.process_time()
        curve, why, walks = [(0, force_error(first, self.judged))], 'out of rounds', []
        for number, most in enumerate(self.options.batches, start=1):
            walks = self.walk(trained, explorers, folder / f'md_{number}')
            if all(walk.finished for walk in walks):
                why = 'all walkers finish'
                break
            known = [atoms for label, frames in rounds.items() if label != 'start' for atoms in frames]
            with contextlib.redirect_stdout(io.StringIO()):
                chosen = self.choose(strategy, trained, walks, known, most)
            made = labels.make(chosen)
            if not made:
                why = 'nothing to learn from'
                break
            rounds[f'round_{number}'] = made
            trained = self.family.train(
                folder / f'fit_{number}', rounds, self.judged, strategy.weights, None if number == 1 else trained
            )
            curve.append((labels.n_atoms, force_error(trained, self.judged)))
        if explorers is not self.material.walkers or why != 'all walkers finish':
            walks = self.walk(trained, self.material.walkers, folder / 'md_end')
        return {
            'material': self.name,
            'family': self.options.family,
            'seed': self.seed,
            'strategy': name,
            'rounds': len(rounds) - 1,
            'why': why,
            'n_walkers': len(self.material.walkers),
            'n_finished': sum(walk.finished for walk in walks),
            LAST: self.audit(trained, walks, folder),
            'n_labelled': labels.n_structures,
            'n_failed': labels.n_failed,
            'n_atoms': labels.n_atoms,
            'label_seconds': labels.seconds,
            'seconds': time.process_time() - started,
            'curve': curve,
            'first': summary(first, self.judged),
            'end': summary(trained, self.judged),
            'worsened': sorted({each.part for each in find_worsened({'parts': first.parts}, {'parts': trained.parts})}),
        }

    def audit(self, trained: Trained, walks: Sequence[Walk], folder: Path) -> list[float]:
        """Return the force error on the last frame of each walker, meV/angstrom, infinite where there is none."""
        labels, errors = Labels(self.material), []
        for number, walk in enumerate(walks):
            made = [] if walk.final is None else labels.make([bare(walk.final)])
            own = folder / f'audit_{number}'
            errors.append(self.family.force_error(trained, own, made) if made else float('inf'))
        return errors


class Labels:
    """Labels structures and keeps count of what that cost.

    :ivar n_atoms: labelled so far.
    :ivar seconds: CPU time of the labeller.
    """

    def __init__(self, material: Material) -> None:
        self._calculator = material.calculator
        self.n_structures = self.n_atoms = self.n_failed = 0
        self.seconds = 0.0

    def make(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Label structures; those that the labeller cannot compute are counted."""
        made, started = [], time.process_time()
        for atoms in structures:
            try:
                made.append(label_structure(atoms, self._calculator))
            except OodalError:
                self.n_failed += 1
        self.seconds += time.process_time() - started
        self.n_structures += len(made)
        self.n_atoms += sum(len(atoms) for atoms in made)
        return made


def bare(atoms: Atoms, *, labels: bool = False) -> Atoms:
    """Return a structure with its mask, and with its labels if wanted, and nothing else."""
    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    for name in ('force_mask', FORCES) if labels else ('force_mask',):
        if name in atoms.arrays:
            plain.arrays[name] = atoms.arrays[name].copy()
    if labels:
        plain.info.update({name: atoms.info[name] for name in (ENERGY, STRESS) if name in atoms.info})
    return plain


def pool(parts: Iterable[Mapping[str, Any]], error: str, count: str) -> float:
    """Join root mean square errors of several sets."""
    own = [(part[error] ** 2, part[count]) for part in parts]
    return float(np.sqrt(sum(square * n for square, n in own) / sum(n for _, n in own)))


def independent(trained: Trained, judged: Sets) -> list[dict[str, Any]]:
    return [trained.parts[name] for name in judged if name != ANCHORS]


def force_error(trained: Trained, judged: Sets) -> float:
    """Return the force RMSE on all independent snapshots, meV/angstrom."""
    return pool(independent(trained, judged), 'force_rmse', 'n_atoms')


def summary(trained: Trained, judged: Sets) -> dict[str, Any]:
    """Return force errors (meV/angstrom) on anchors and snapshots, by group and element, and energies (meV/atom)."""
    parts = independent(trained, judged)
    elements = sorted({element for part in parts for element in part['by_element']})
    return {
        'force': force_error(trained, judged),
        'energy': pool(parts, 'energy_rmse', 'n_structures'),
        'by_element': {
            element: pool([part['by_element'][element] for part in parts if element in part['by_element']], *_FORCE)
            for element in elements
        },
        'by_group': {name: trained.parts[name]['force_rmse'] for name in judged if name != ANCHORS},
        ANCHORS: trained.parts[ANCHORS]['force_rmse'],
    }


_FORCE = ('force_rmse', 'n_atoms')


def run_case(name: str, seed: int, strategies: Sequence[str], options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """Run the strategies of one material and seed."""
    warnings.simplefilter('ignore')
    material = MATERIALS[name](seed, steps=options.steps)
    with tempfile.TemporaryDirectory(prefix='healing_') as folder:
        case = Case(name, seed, material, make_family(material, options), Path(folder), options)
        start = {'start': [bare(atoms, labels=True) for atoms in material.start]}
        first = case.family.train(case.folder / 'first', start, case.judged, 'full', None)
        for strategy in strategies:
            if STRATEGIES[strategy].what != 'small' or material.small:
                yield case.run(strategy, first)


def make_family(material: Material, options: argparse.Namespace) -> Family:
    if options.family == 'ace':
        return AceFamily('balanced' if options.long else 'quick', material.fit)
    warm = options.family == 'mace-warm'
    return MaceFamily(find_isolated_energies(material), options.updates, options.models, warm=warm)


def find_isolated_energies(material: Material) -> dict[str, float]:
    """Return what an isolated atom of each element has under the labeller, eV."""
    elements = sorted({element for atoms in material.start for element in atoms.symbols})
    return {
        element: label_structure(Atoms(element, cell=[12.0, 12.0, 12.0]), material.calculator).info[ENERGY]
        for element in elements
    }


def run_and_keep(name: str, seed: int, strategies: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run one material and seed; each row is told, and kept, when it is there."""
    rows = []
    for row in run_case(name, seed, strategies, options):
        rows.append(row)
        errors = ' -> '.join(f'{error:.0f}' for _, error in row['curve'])
        print(
            f'{name}, {options.family}, seed {seed}, {row["strategy"]}: {errors} meV/angstrom with {row["n_atoms"]} '
            f'atoms, {row["n_finished"]} of {row["n_walkers"]} walkers finish ({row["why"]}), {row["seconds"]:.0f} s',
            flush=True,
        )
        if options.keep:
            with options.keep.open('a', encoding='utf-8') as stream:
                stream.write(json.dumps(row) + '\n')
    return rows


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--long', action='store_true', help='a night instead of an hour')
    parser.add_argument('--family', choices=DEFAULTS, default='ace')
    parser.add_argument('--materials', nargs='+', choices=MATERIALS, help='all, or al of MACE')
    parser.add_argument('--strategies', nargs='+', choices=STRATEGIES, help='all, or the first four and whole of MACE')
    parser.add_argument('--seeds', type=int, help='3, or 5 in the long form')
    parser.add_argument('--steps', type=int, help='MD steps of a walker: 200, or 1500 in the long form')
    parser.add_argument('--batches', type=int, nargs='+', help='clusters to label in each round: 1 1 2 4 8, or more')
    most = 1000.0 * AuditSettings().tolerance
    parser.add_argument('--tolerance', type=float, default=most, help='force error of a last frame, meV/angstrom')
    parser.add_argument('--models', type=int, default=2, help='of an ensemble')
    parser.add_argument('--updates', type=int, default=400, help='of the training of a MACE model')
    parser.add_argument('--workers', type=int, default=2, help='materials and seeds at a time, each on one core')
    parser.add_argument('--keep', type=Path, help='file for the rows; those that are there are not run again')
    parser.add_argument('--report', action='store_true', help='only print the tables of the rows that are kept')
    options = parser.parse_args()
    for name, value in DEFAULTS[options.family].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name, (short, long) in {
        'seeds': (3, 5),
        'steps': (200, 1500),
        'batches': ([1, 1, 2, 4, 8], [1, 1, 2, 4, 8, 8, 8, 8]),
    }.items():
        if getattr(options, name) is None:
            setattr(options, name, long if options.long else short)
    if options.report and not (options.keep and options.keep.is_file()):
        parser.error('--report needs --keep FILE with the rows of earlier calls')
    return options


def main() -> None:
    options = read_options()
    rows = []
    if options.keep and options.keep.is_file():
        rows = [json.loads(line) for line in options.keep.read_text(encoding='utf-8').splitlines()]
    if not options.report:
        there = {(row['family'], row['material'], row['seed'], row['strategy']) for row in rows}
        orders = [
            (name, seed, [each for each in options.strategies if (options.family, name, seed, each) not in there])
            for seed in range(options.seeds)
            for name in options.materials
        ]
        # spawn: LAMMPS and torch are not to be forked
        with ProcessPoolExecutor(options.workers, get_context('spawn'), max_tasks_per_child=1) as executor:
            tasks = [executor.submit(run_and_keep, *order, options) for order in orders if order[2]]
            for task in as_completed(tasks):
                rows += task.result()
    print(
        '\nerrors: root mean square, forces in meV/angstrom, energies in meV/atom; mean ± standard deviation over seeds'
    )
    report(sorted(rows, key=lambda row: (row['family'], row['material'], row['seed'])), options.tolerance)


if __name__ == '__main__':
    main()
