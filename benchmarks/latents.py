"""Latents: atoms per second against MACE's own `get_descriptors`, memory, and one structure in domains.

`python benchmarks/latents.py` (about half an hour on one idle core; a quick look: `--seconds 2 --structures 200,1000
--atoms 4000`). Models are untrained: weights do not change the time. One part alone: `--part speed`, and so on.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')
warnings.simplefilter('ignore')

import numpy as np  # noqa: E402  threads are counted when numpy is imported
from ase import Atoms  # noqa: E402
from ase.build import bulk  # noqa: E402
from ase.io import write  # noqa: E402

from aiida_oodal.engine.mace.batches import evaluate_graphs  # noqa: E402
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs  # noqa: E402
from aiida_oodal.engine.mace.latents_job import run_job  # noqa: E402
from aiida_oodal.engine.mace.latents_settings import LatentsSettings  # noqa: E402
from aiida_oodal.engine.mace.memory import CPU_EDGES, Budget, free_memory, keep_freed_memory  # noqa: E402
from aiida_oodal.engine.mace.models import MaceModel, open_model  # noqa: E402
from aiida_oodal.engine.structures import StructureSet  # noqa: E402

#: Hidden irreps, precision, system, and how many times faster than `get_descriptors` the issue asks for.
SPEED = [
    ('64x0e', 'float32', 'molecule', 3.0),
    ('64x0e', 'float64', 'molecule', 3.0),
    ('64x0e', 'float32', 'cell', 2.5),
    ('64x0e', 'float64', 'cell', 2.5),
    ('128x0e+128x1o', 'float64', 'molecule', 2.2),
    ('128x0e+128x1o', 'float64', 'cell', 2.2),
]
PARTS = ['pages', 'speed', 'batch', 'bytes', 'memory', 'domains']
SETTINGS = LatentsSettings(device='cpu').plain()


def save_model(path: Path, irreps: str, elements: list[int], cutoff: float) -> Path:
    """Save an untrained MACE of two layers with the defaults of `mace_run_train`."""
    if path.exists():
        return path
    import mace.modules as mm
    import torch
    from e3nn import o3

    interaction = mm.interaction_classes['RealAgnosticResidualInteractionBlock']
    model = mm.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction,
        interaction_cls_first=interaction,
        num_interactions=2,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps(irreps),
        MLP_irreps=o3.Irreps('16x0e'),
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=15.0,
        atomic_numbers=elements,
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    torch.save(model, path)
    return path


def molecules(count: int) -> Iterator[Atoms]:
    """Yield molecules of 27 atoms of H, C, N, O, with 20 neighbours each within 5 angstrom (3BPA has 16)."""
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) * [1.55, 1.55, 2.6]
    for _ in range(count):
        yield Atoms(random.choice([1, 1, 6, 7, 8], 27), grid + random.normal(scale=0.1, size=(27, 3)))


def cells(count: int) -> Iterator[Atoms]:
    """Yield periodic cells of 216 atoms of silicon."""
    for seed in range(count):
        atoms = bulk('Si', cubic=True).repeat(3)
        atoms.rattle(0.1, seed=seed)
        yield atoms


SYSTEMS: dict[str, tuple[Callable[[int], Iterator[Atoms]], list[int]]] = {
    'molecule': (molecules, [1, 6, 7, 8]),
    'cell': (cells, [14]),
}


def pages(folder: Path) -> None:
    """Print what `keep_freed_memory` saves: seconds for one batch, those spent in the kernel among them."""
    print(f'\n{"model":15} {"type":8} {"freed memory":13}{"seconds":>9}{"in kernel":>10}{"peak MB":>9}')
    for irreps, precision in (('64x0e', 'float32'), ('128x0e+128x1o', 'float64')):
        path = save_model(folder / f'{irreps}_cell.model', irreps, [14], 5.0)
        for keep in (False, True):
            total, kernel, peak = in_child(page_seconds, path, precision, keep)
            name = 'is kept' if keep else 'is given back'
            print(f'{irreps:15} {precision:8} {name:13}{total:9.2f}{kernel:10.2f}{peak:9.0f}', flush=True)


def page_seconds(path: Path, precision: str, keep: bool) -> tuple[float, float, float]:
    """Return CPU seconds of one batch, those in the kernel, and peak memory [MB]; the best of five."""
    if keep:
        keep_freed_memory()
    model = open_model(path, precision=precision, device='cpu')
    graphs = merge_graphs([build_graph(atoms, 5.0) for atoms in cells(1)])
    best = (np.inf, np.inf)
    for _ in range(6):
        before = os.times()
        model.evaluate(graphs)
        after = os.times()
        kernel = after.system - before.system
        best = min(best, (after.user - before.user + kernel, kernel))
    return *best, peak_mb()


def rate(evaluate: Callable[[list[Atoms]], Any], structures: list[Atoms], seconds: float) -> float:
    """Return atoms per CPU second, best of three: other work on the machine counts less than by the clock."""
    evaluate(structures[:2])  # TorchScript compiles on the first calls
    best, n_atoms = 0.0, sum(len(atoms) for atoms in structures)
    for _ in range(3):
        started, passes = time.process_time(), 0
        while time.process_time() - started < seconds / 3:
            evaluate(structures)
            passes += 1
        best = max(best, passes * n_atoms / (time.process_time() - started))
    return best


def speed(folder: Path, seconds: float) -> None:
    """Compare with a loop over `get_descriptors` in a process of its own; graph building is in both.

    One thread, same precision, CPU time. This side keeps freed memory, as a job does; the other is as MACE leaves it.
    """
    heads = ('edges/atom', 'descriptors', 'here', 'times', 'asked')
    print(f'\n{"model":15} {"type":8} {"system":9}' + ''.join(f'{head:>12}' for head in heads))
    for irreps, precision, system, asked in SPEED:
        make, elements = SYSTEMS[system]
        path = save_model(folder / f'{irreps}_{system}.model', irreps, elements, 5.0)
        # two or more full batches of the small model, one of the large one, which is ten times slower
        count = (9 if irreps.startswith('128') else 40) if system == 'molecule' else 2
        theirs, ours = (in_child(side, path, precision, system, count, seconds) for side in (loop_rate, batch_rate))
        (atoms,) = make(1)
        edges = build_graph(atoms, 5.0).n_edges / len(atoms)
        print(
            f'{irreps:15} {precision:8} {system:9}{edges:12.1f}{theirs:12.0f}{ours:12.0f}{ours / theirs:12.2f}'
            f'{asked:12.1f}',
            flush=True,
        )


def loop_rate(path: Path, precision: str, system: str, count: int, seconds: float) -> float:
    """Return atoms per second of a loop over `get_descriptors`."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(path), device='cpu', default_dtype=precision)
    structures = list(SYSTEMS[system][0](count))
    return rate(lambda part: [calculator.get_descriptors(atoms) for atoms in part], structures, seconds)


def batch_rate(path: Path, precision: str, system: str, count: int, seconds: float) -> float:
    """Return atoms per second of batches without gradients."""
    keep_freed_memory()
    model = open_model(path, precision=precision, device='cpu')
    budget = Budget.choose([model])
    return rate(lambda part: embed(model, part, budget), list(SYSTEMS[system][0](count)), seconds)


def embed(model: MaceModel, structures: list[Atoms], budget: Budget) -> None:
    waiting: list[Any] = []
    for atoms in structures:
        graph = build_graph(atoms, model.info.cutoff)
        if budget.is_full(waiting, graph):
            evaluate_graphs(model, waiting, budget)
            waiting = []
        waiting.append(graph)
    evaluate_graphs(model, waiting, budget)


def batch(folder: Path, seconds: float) -> None:
    """Find the number of edges at which a batch is fastest on this CPU."""
    keep_freed_memory()
    print(f'\natoms/s by edges per batch (default {CPU_EDGES})')
    sizes = (500, 1000, 2000, 3500, 5000, 7000, 10_000, 20_000)
    print(f'{"model":15} {"type":8} {"system":9}' + ''.join(f'{size:8}' for size in sizes))
    structures = list(molecules(60))
    for irreps, precision in (('64x0e', 'float32'), ('64x0e', 'float64'), ('128x0e+128x1o', 'float64')):
        path = save_model(folder / f'{irreps}_molecule.model', irreps, SYSTEMS['molecule'][1], 5.0)
        model = open_model(path, precision=precision, device='cpu')
        rates = [rate(lambda part: embed(model, part, Budget(size, 10**9)), structures, seconds) for size in sizes]  # noqa: B023
        print(f'{irreps:15} {precision:8} {"molecule":9}' + ''.join(f'{value:8.0f}' for value in rates), flush=True)


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a fresh process, so that peak memory is its own."""
    context = multiprocessing.get_context('spawn')
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_mb() -> float:
    """Return the largest resident size of this process so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bytes_of(path: Path, precision: str, forces: bool) -> tuple[float, int]:
    """Measure peak memory per edge of one model, and say what is estimated [bytes]."""
    model = open_model(path, precision=precision, device='cpu')
    (atoms,) = cells(1)
    small, large = ([build_graph(atoms, 5.0)] * count for count in (2, 6))
    model.evaluate(merge_graphs(small), forces=forces)
    before = peak_mb()
    model.evaluate(merge_graphs(large), forces=forces)
    more = sum(graph.n_edges for graph in large[len(small) :])
    return (peak_mb() - before) * 2**20 / more, model.bytes_per_edge(forces=forces)


def edge_bytes(folder: Path) -> None:
    """Print peak memory per edge, which decides on batches on a GPU and on domains everywhere."""
    print(f'\n{"model":15} {"type":8} {"forces":6} {"kB/edge":>8} {"estimate":>9}')
    for irreps in ('64x0e', '128x0e+128x1o'):
        path = save_model(folder / f'{irreps}_cell.model', irreps, [14], 5.0)
        for precision, forces in (('float32', False), ('float64', False), ('float32', True)):
            measured, estimate = in_child(bytes_of, path, precision, forces)
            print(f'{irreps:15} {precision:8} {forces!s:6} {measured / 1e3:8.1f} {estimate / 1e3:9.1f}', flush=True)


def job_peak(folder: Path, model: Path, count: int) -> tuple[float, float]:
    """Run a job over so many molecules and return its peak memory [MB] and atoms per second."""
    path = folder / f'{count}.extxyz'
    for chunk in range(0, count, 500):
        write(path, list(molecules(min(500, count - chunk))), append=chunk > 0)
    job_folder = folder / f'job_{count}'
    job_folder.mkdir()
    started = time.perf_counter()
    run_job({'structures': str(path), 'models': {'w1': str(model)}, 'settings': SETTINGS}, job_folder)
    return peak_mb(), 27 * count / (time.perf_counter() - started)


def memory(folder: Path, counts: list[int]) -> None:
    """Print the peak memory of jobs of different length."""
    model = save_model(folder / '64x0e_molecule.model', '64x0e', SYSTEMS['molecule'][1], 5.0)
    print(f'\n{"structures":>10} {"peak MB":>8} {"atoms/s":>8}')
    first = 0.0
    for count in counts:
        peak, per_second = in_child(job_peak, folder, model, count)
        first = first or peak
        growth = f'{100 * (peak / first - 1):+.1f} % (asked: below 5 %)'
        print(f'{count:10} {peak:8.0f} {per_second:8.0f}  {growth}', flush=True)


def large_structure(folder: Path, n_atoms: int) -> Atoms:
    """Make a periodic block of silicon, and write it for a job."""
    size = round((n_atoms / 8) ** (1 / 3))
    atoms = bulk('Si', cubic=True).repeat((size, size, max(1, round(n_atoms / 8 / size**2))))
    atoms.rattle(0.1, seed=1)
    StructureSet.from_atoms([atoms]).save(folder / 'large.npz')
    return atoms


def domain_run(folder: Path, model: Path, limit: int) -> dict[str, float]:
    """Run a job over one structure with the address space of the process limited to ``limit`` bytes."""
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    started = time.process_time()
    run_job({'structures': 'large.npz', 'models': {'w1': str(model)}, 'settings': SETTINGS}, folder)
    seconds = time.process_time() - started
    results = json.loads((folder / 'results.json').read_text(encoding='utf-8'))
    return {
        'atoms': results['n_atoms'],
        'failures': len(results['failures']),
        'edges of a domain': results['budget']['domain_edges'],
        'peak MB': peak_mb(),
        'atoms/s': results['n_atoms'] / seconds,
    }


def whole_run(model_path: Path, atoms: Atoms, out: Path) -> dict[str, float]:
    """Evaluate one structure as a whole, by one call of the model, and keep its latents."""
    model = open_model(model_path, device='cpu')
    graph = build_graph(atoms, model.info.cutoff)
    started = time.process_time()
    np.save(out, model.evaluate(merge_graphs([graph])).latents)
    seconds = time.process_time() - started
    return {'atoms': len(atoms), 'edges': graph.n_edges, 'peak MB': peak_mb(), 'atoms/s': len(atoms) / seconds}


def domains(folder: Path, n_atoms: int) -> None:
    """Evaluate one large structure under 2 GB of address space, and compare all its latents with those of the whole."""
    path = save_model(folder / '64x0e_cell.model', '64x0e', [14], 5.0)
    atoms = large_structure(folder, n_atoms)
    limited = in_child(domain_run, folder, path, 2 * 10**9)
    print('\none structure in domains, RLIMIT_AS 2 GB: ' + _described(limited), flush=True)
    needed = open_model(path, device='cpu').bytes_per_edge() * build_graph(atoms, 5.0).n_edges
    if needed > free_memory():
        print(f'not compared with the whole: it needs {needed / 1e9:.1f} GB, {free_memory() / 1e9:.1f} GB are free')
        return
    whole = in_child(whole_run, path, atoms, folder / 'whole.npy')
    print('as a whole, no limit: ' + _described(whole))
    parts, expected = np.load(folder / 'latents_w1.npy'), np.load(folder / 'whole.npy')
    difference = float(np.abs(parts - expected).max())
    print(f'{len(expected)} atoms x {expected.shape[1]} latents differ by {difference:.1e} at most', end='')
    print(f' (asked: 1e-6; latents are up to {np.abs(expected).max():.2g})', flush=True)


def _described(values: dict[str, float]) -> str:
    return ', '.join(f'{name} {value:.5g}' for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--part', choices=PARTS, action='append')
    parser.add_argument('--seconds', type=float, default=20.0, help='per measurement of speed')
    parser.add_argument('--structures', default='1000,20000', help='lengths of the jobs whose memory is compared')
    parser.add_argument('--atoms', type=int, default=20_000, help='of the structure in domains')
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # MACECalculator tells of its dtype every time
    import torch

    torch.set_num_threads(1)
    parts = arguments.part or PARTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if 'pages' in parts:
            pages(folder)
        if 'speed' in parts:
            speed(folder, arguments.seconds)
        if 'batch' in parts:
            batch(folder, arguments.seconds)
        if 'bytes' in parts:
            edge_bytes(folder)
        if 'memory' in parts:
            memory(folder, [int(count) for count in arguments.structures.split(',')])
        if 'domains' in parts:
            domains(folder, arguments.atoms)


if __name__ == '__main__':
    main()
