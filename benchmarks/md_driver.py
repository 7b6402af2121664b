"""Cost of driving LAMMPS from Python: `python benchmarks/md_driver.py [--atoms 500 4000 32000]`.

Prints seconds per MD step of the embedded ACE driver against bare pyace, and what evaluating gamma on every tenth step
saves. Bare pyace is its calculators alone, on the same atoms, with a ready neighbour list that ends at the cutoff: no
skin, no conversion, no MD. Steps with and without gamma and bare evaluations take turns, and CPU time counts, so that a
busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase.build import bulk

from aiida_oodal.engine.md.ace_forces import AceForces
from aiida_oodal.engine.md.driver import Evaluation, LammpsDriver, Neighbours, open_lammps, read_commands
from aiida_oodal.engine.md.script import STRUCTURE_FILE, render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings

POTENTIAL = Path(__file__).resolve().parents[1] / 'tests' / 'data' / 'ace-al'
LATTICE = 4.05  # angstrom


class TimedEvaluator(AceForces):
    """Time each MD step, and after each the same evaluation without MD."""

    def __init__(self, yaml: Path, active_set: Path) -> None:
        super().__init__(yaml, active_set, ['Al'])
        self.steps: dict[bool, list[float]] = {True: [], False: []}
        self.bare: dict[bool, list[float]] = {True: [], False: []}
        self._tick: float | None = None

    def compute(self, positions: np.ndarray, *, gamma: bool) -> Evaluation:
        """Evaluate, then evaluate again from a tight list and note both times."""
        result = super().compute(positions, gamma=gamma)
        if self._tick is not None:
            self.steps[gamma].append(time.process_time() - self._tick)
            environment = bare_environment(self._neighbours, np.array(positions), self.cutoff)
            started = time.process_time()
            calculator = self._with_gamma if gamma else self._fast
            calculator.compute(environment, compute_projections=gamma)
            self.bare[gamma].append(time.process_time() - started)
        self._tick = time.process_time()
        return result


def bare_environment(neighbours: Neighbours, x: np.ndarray, cutoff: float) -> Any:
    """Give pyace the neighbours inside the cutoff, and no atom that nobody has for neighbour."""
    from pyace import ACEAtomicEnvironment

    n_local = len(neighbours.offsets) - 1
    centres = np.repeat(np.arange(n_local), np.diff(neighbours.offsets))
    inside = ((x[neighbours.indices] - x[centres]) ** 2).sum(axis=1) < cutoff**2
    used = np.union1d(np.arange(n_local), neighbours.indices[inside])
    new = np.full(len(x), -1)
    new[used] = np.arange(len(used))
    ends = np.cumsum(np.bincount(centres[inside], minlength=n_local))
    environment = ACEAtomicEnvironment()
    environment.x = x[used].tolist()
    environment.species_type = [0] * len(used)
    environment.neighbour_list = [part.tolist() for part in np.split(new[neighbours.indices[inside]], ends[:-1])]
    environment.origins = neighbours.origins[used].tolist()
    return environment


def measure(cells: int, steps: int) -> tuple[dict[bool, float], dict[bool, float], float]:
    """Give seconds per step with and without gamma, of the driver and of bare pyace, and neighbour lists per step."""
    # gamma on every second step: both kinds of step see the same moments of a busy machine
    settings = MdSettings(
        ensemble='nve',
        temperature=1000.0,
        initial_temperature=2000.0,
        gamma_every=2,
        gamma_break=90.0,
        restart_every=None,
    )
    evaluator = TimedEvaluator(POTENTIAL / 'Al.yaml', POTENTIAL / 'Al.asi')
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        atoms = bulk('Al', 'fcc', a=LATTICE, cubic=True) * (cells, cells, cells)
        Path(STRUCTURE_FILE).write_text(write_structure(atoms, ['Al']))
        Path('md.in').write_text(render_input(settings, forces='embedded', elements=['Al'], cutoff=evaluator.cutoff))
        commands = read_commands(Path('md.in'))
        setup = commands[: next(i for i, command in enumerate(commands) if command.startswith('run '))]
        Path('setup.in').write_text('\n'.join(setup) + '\n')
        driver = LammpsDriver(open_lammps('-log', 'none'), evaluator)
        driver.run_script(Path('setup.in'))
        driver.command(f'run {steps} post no')
        driver.lammps.close()
    lists = (driver.n_builds - 1) / steps
    times = (
        {kind: float(np.mean(values)) for kind, values in part.items()} for part in (evaluator.steps, evaluator.bare)
    )
    return next(times), next(times), lists


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--atoms', type=int, nargs='+', default=[500, 4000, 32000])
    parser.add_argument('--atom-steps', type=int, default=600_000, help='steps of a measurement = this / atoms')
    arguments = parser.parse_args()
    print('  atoms  gamma every  driver s/step  bare s/step  overhead  lists/step')
    for n_atoms in arguments.atoms:
        cells = round((n_atoms / 4) ** (1 / 3))
        n_atoms = 4 * cells**3
        driven, bare, lists = measure(cells, min(400, max(20, arguments.atom_steps // n_atoms // 2 * 2)))
        for every in (1, 10):
            cost, alone = ((part[True] + (every - 1) * part[False]) / every for part in (driven, bare))
            print(f'{n_atoms:7d}  {every:11d}  {cost:13.4f}  {alone:11.4f}  {cost / alone - 1:8.1%}  {lists:10.2f}')
        gain = 10 * driven[True] / (driven[True] + 9 * driven[False])
        print(f'{n_atoms:7d}  gamma every 10 steps instead of every step: {gain:.2f} times the speed', flush=True)


if __name__ == '__main__':
    main()
