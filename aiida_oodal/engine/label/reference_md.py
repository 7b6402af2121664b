"""Engine command ``reference-md``: hot snapshots from MD driven by the labeller, an independent validation set."""

from __future__ import annotations

import functools
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError, suggest
from aiida_oodal.engine.files import LABELS_FILE, RESULTS_FILE
from aiida_oodal.engine.structures import StructureSet

from .calculators import label_structure, make_calculator

#: Settings of a job and their defaults; they are the keyword arguments of :func:`sample_md`.
DEFAULTS: dict[str, Any] = {
    'temperatures': [600.0, 1200.0, 1800.0, 2400.0],
    'samples_per_temperature': 6,
    'steps': 400,
    'timestep_fs': 3.0,
    'friction': 0.02,
    'seed': 1,
    'expansion': 2e-5,
}


def validate_reference_md_settings(settings: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the settings of :func:`sample_md`, or None if they are right."""
    unknown = sorted(set(settings) - set(DEFAULTS))
    if unknown:
        return f'{", ".join(unknown)}: not a setting of reference MD; {suggest(unknown[0], DEFAULTS)}'
    values = DEFAULTS | dict(settings)
    temperatures = values['temperatures']
    if isinstance(temperatures, str) or not isinstance(temperatures, Sequence) or not temperatures:
        return f'temperatures = {temperatures!r} must be a list of temperatures in kelvin'
    limits: list[tuple[str, Any, float, float]] = [('temperatures', value, 1.0, 1e5) for value in temperatures]
    limits += [
        ('samples_per_temperature', values['samples_per_temperature'], 1, 1e6),
        ('steps', values['steps'], values['samples_per_temperature'], 1e9),
        ('timestep_fs', values['timestep_fs'], 0.01, 20.0),
        ('friction', values['friction'], 1e-6, 1.0),
        ('seed', values['seed'], 0, 2**32 - 1),
        ('expansion', values['expansion'], -1e-3, 1e-3),
    ]
    for name, value, low, high in limits:
        whole = name in {'samples_per_temperature', 'steps', 'seed'}
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            return f'{name} = {value!r} must be {"a whole number" if whole else "a number"}'
        if not low <= value <= high:
            return f'{name} = {value!r} must be between {low:g} and {high:g}'
    return None


def sample_md(
    atoms: Atoms,
    calculator: Calculator,
    *,
    temperatures: Sequence[float],
    samples_per_temperature: int,
    steps: int,
    timestep_fs: float,
    friction: float,
    seed: int,
    expansion: float,
    streams: Sequence[int] | None = None,
) -> list[Atoms]:
    """Sample labelled snapshots by Langevin MD driven by the labeller, one run per temperature.

    Each run starts from ``atoms`` with its cell scaled by ``1 + expansion * T`` and velocities drawn at ``2 T``, of
    which a crystal keeps half as kinetic energy. Its masses are those of ``atoms``, and atoms that it holds are held.

    :param atoms: starting structure, near equilibrium.
    :param calculator: the labeller.
    :param temperatures: kelvin.
    :param samples_per_temperature: snapshots of each run, evenly spread; the last one is its end.
    :param steps: MD steps of each run.
    :param timestep_fs: femtoseconds.
    :param friction: of the Langevin thermostat, 1/fs.
    :param seed: of all random numbers; each temperature draws from a stream of its own.
    :param expansion: linear thermal expansion, 1/K.
    :param streams: positions in ``temperatures`` of the runs that are wanted; all when not given.
    :return: labelled snapshots with ``info['temperature']`` (K, of the thermostat) and ``info['step']``.
    :raises OodalError: if the calculator fails, or its MD explodes.
    """
    chosen = range(len(temperatures)) if streams is None else streams
    sampled = (
        _sample_stream(
            atoms,
            calculator,
            temperature=temperatures[stream],
            samples=samples_per_temperature,
            steps=steps,
            timestep_fs=timestep_fs,
            friction=friction,
            random=np.random.default_rng([seed, stream]),
            expansion=expansion,
        )
        for stream in chosen
    )
    return [snapshot for snapshots in sampled for snapshot in snapshots]


def _sample_stream(
    atoms: Atoms,
    calculator: Calculator,
    *,
    temperature: float,
    samples: int,
    steps: int,
    timestep_fs: float,
    friction: float,
    random: np.random.Generator,
    expansion: float,
) -> list[Atoms]:
    """Sample at one temperature (K), see :func:`sample_md`."""
    snapshots: list[Atoms] = []
    hot = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if atoms.has('masses'):
        hot.set_masses(atoms.get_masses())
    hot.set_cell(hot.cell * (1.0 + expansion * temperature), scale_atoms=True)
    hot.set_constraint(atoms.constraints)
    hot.calc = calculator
    # Labelling first makes a reference that does not know an element say so in plain words.
    label_structure(hot, calculator)
    hot.set_momenta(_thermal_momenta(hot.get_masses(), 2.0 * temperature, random))
    dynamics = Langevin(
        hot,
        timestep_fs * units.fs,
        temperature_K=temperature,
        friction=friction / units.fs,
        rng=random,
        fixcm=False,
    )
    for number in range(1, samples + 1):
        dynamics.run(steps * number // samples - dynamics.nsteps)
        reached = hot.get_temperature()
        if not reached < 20.0 * temperature + 1000.0:
            raise OodalError(
                f'reference MD at {temperature:g} K reached {reached:g} K by step {dynamics.nsteps}: it explodes; '
                f'use a timestep below {timestep_fs:g} fs or a relaxed starting structure'
            )
        snapshot = Atoms(numbers=hot.numbers, positions=hot.positions, cell=hot.cell, pbc=hot.pbc)
        snapshot.info.update(temperature=float(temperature), step=int(dynamics.nsteps))
        snapshots.append(label_structure(snapshot, calculator))
    return snapshots


def _thermal_momenta(
    masses: NDArray[np.float64], temperature: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Draw Maxwell-Boltzmann momenta without drift, shape ``(n_atoms, 3)``, in ASE's units."""
    momenta = random.normal(size=(len(masses), 3)) * np.sqrt(units.kB * temperature * masses)[:, np.newaxis]
    return np.asarray(momenta - np.outer(masses / masses.sum(), momenta.sum(axis=0)))


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Sample from ``job['structure']`` (its first entry) under ``job['calculator']`` with ``job['settings']``.

    Settings that are left out take :data:`DEFAULTS`. ``job['workers']`` (1) temperatures are sampled at a time; the
    snapshots do not depend on it. Writes ``labels.npz`` and ``results.json``.

    :raises OodalError: if a file, the calculator or a setting is wrong.
    """
    for key in ('structure', 'calculator'):
        if key not in job:
            raise OodalError(f'the reference-md job lacks {key!r}: it needs "structure" (a file) and "calculator"')
    settings = job.get('settings', {})
    problem = validate_reference_md_settings(settings)
    if problem is not None:
        raise OodalError(f'settings of the reference-md job: {problem}')
    structures = StructureSet.load(folder / job['structure'])
    if len(structures) == 0:
        raise OodalError(f'{job["structure"]}: the set is empty, reference MD has nothing to start from')
    values = DEFAULTS | dict(settings)
    snapshots = _sample_all(structures[0], job['calculator'], values, int(job.get('workers', 1)))
    StructureSet.from_atoms(snapshots).save(folder / LABELS_FILE)
    results = {'n_structures': len(snapshots), 'n_labelled': len(snapshots), 'failures': [], 'complete': True}
    (folder / RESULTS_FILE).write_text(json.dumps(results | {'settings': values}, indent=1), encoding='utf-8')
    print(f'{len(snapshots)} snapshots of {len(structures[0])} atoms sampled and labelled', flush=True)


def _sample_all(atoms: Atoms, calculator: Mapping[str, Any], values: Mapping[str, Any], workers: int) -> list[Atoms]:
    """Sample at all temperatures, several at a time, each in a process with a calculator of its own."""
    streams = range(len(values['temperatures']))
    sample = functools.partial(_sample_alone, atoms, calculator, values)
    if workers <= 1:
        return [snapshot for stream in streams for snapshot in sample(stream)]
    # fork: nothing here has threads, and a new Python would take a second to import what is needed
    with ProcessPoolExecutor(min(workers, len(streams)), multiprocessing.get_context('fork')) as pool:
        try:
            return [snapshot for snapshots in pool.map(sample, streams) for snapshot in snapshots]
        except BrokenProcessPool as error:
            raise OodalError(
                f'one of {workers} processes died, mostly for lack of memory: ask for more (`max_memory_kb`), or for '
                'fewer cores'
            ) from error


def _sample_alone(atoms: Atoms, calculator: Mapping[str, Any], values: Mapping[str, Any], stream: int) -> list[Atoms]:
    return sample_md(atoms, make_calculator(calculator), **values, streams=[stream])
