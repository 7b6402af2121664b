"""All that runs on a GPU, measured on one card in less than ten minutes; on a CPU with smaller sizes.

    python benchmarks/gpu.py                     # on a node with a GPU: about eight minutes
    python benchmarks/gpu.py --device cpu --small

It needs numpy, ASE, torch and mace-torch, no AiiDA, no LAMMPS and no files; models are untrained, since weights do not
change the time. Parts, each alone by its name:

- agree: latents, energies and forces against the CPU in float32; the largest difference over the largest value.
- latents: atoms per second of the engine (graphs, batches, results in the memory of the host), of a loop over MACE's
  own `get_descriptors`, and of the bare forward pass over ready batches, which nothing can beat.
- memory: peak memory per edge against the estimate by which batches are cut, and a batch as large as the budget allows.
- fallback: one batch that does not fit into what is left of the memory, against the same in small batches.
- md: steps per second of an ensemble of four at 500, 4,000 and 32,000 atoms, with gamma on every tenth step, and of one
  model alone. Without LAMMPS, whose neighbour lists would come on top; they are ready here.
- train: seconds per update and per epoch of 200 cells by the protocol `balanced`.

The last line says whether all that can be asked of any card is met: agreement, fallback, and that the estimate of
memory is not below what is needed. Times are told, not judged.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import logging
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from gpu_md import CUTOFF, compare_steps
from latents import SYSTEMS, cells, molecules, save_model

from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.mace.batches import evaluate_graphs
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.memory import Budget, free_memory
from aiida_oodal.engine.mace.models import MaceModel, open_model, pick_device
from aiida_oodal.engine.mace.train.job import run_job
from aiida_oodal.engine.mace.train.settings import MaceTrainSettings
from aiida_oodal.engine.structures import StructureSet

#: Largest difference that float32 explains, relative to the largest value.
FLOAT32 = 1e-4


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    :param models: hidden irreps.
    :param structures: molecules, and half as many cells, for the speed of latents.
    :param edges: numbers of edges of the batches whose memory is measured.
    :param atoms: sizes for MD.
    :param steps: MD steps, of which every tenth has gamma.
    :param cells: labelled cells for one epoch, each of ``repeat`` unit cells along its vectors.
    :param seconds: for each measurement of speed.
    :param limit: memory that is left for the fallback [bytes].
    :param too_many: four cells so often do not fit into it.
    """

    models: tuple[str, ...] = ('64x0e', '128x0e+128x1o')
    structures: int = 400
    edges: tuple[int, ...] = (20_000, 80_000, 320_000)
    atoms: tuple[int, ...] = (500, 4_000, 32_000)
    steps: int = 40
    cells: int = 200
    repeat: int = 3
    seconds: float = 10.0
    limit: int = 2 * 10**9
    too_many: int = 25
    protocol: str = 'balanced'


SMALL = Sizes(
    models=('8x0e',),
    structures=4,
    edges=(6_000, 48_000),
    atoms=(32, 108),
    steps=20,
    cells=8,
    repeat=1,
    seconds=0.2,
    limit=10**8,
    too_many=10,
    protocol='quick',
)


class Bench:
    """One run of all parts on one device."""

    def __init__(self, device: str, sizes: Sizes, folder: Path) -> None:
        import torch

        self.device, self.sizes, self.folder, self.torch = device, sizes, folder, torch
        self.met = True

    def judge(self, met: bool, asked: str) -> str:
        """Remember whether something that is asked for is met, and say so."""
        self.met &= met
        return f'{"met" if met else "MISSED"} (asked: {asked})'

    def model(self, irreps: str, system: str, device: str | None = None) -> MaceModel:
        """Open an untrained model in float32."""
        path = save_model(self.folder / f'{irreps}_{system}.model', irreps, SYSTEMS[system][1], CUTOFF)
        return open_model(path, device=device or self.device, precision='float32')

    def wait(self) -> None:
        """Wait until the GPU has done what it was given: it works on while Python goes on."""
        if self.device == 'cuda':
            self.torch.cuda.synchronize()

    def rate(self, work: Callable[[], int]) -> float:
        """Return how many of what ``work`` counts are done per second, after a first time that compiles."""
        work()
        self.wait()
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < self.sizes.seconds:
            count += work()
            self.wait()
        return count / (time.perf_counter() - started)

    def agree(self) -> None:
        """Compare with the CPU."""
        print(f'\n{"model":16}{"latents":>10}{"energies":>10}{"forces":>10}')
        for irreps in self.sizes.models:
            for system, make in (('molecule', molecules), ('cell', cells)):
                batch = merge_graphs([build_graph(atoms, CUTOFF) for atoms in make(2)])
                ours = self.model(irreps, system).evaluate(batch, forces=True)
                theirs = self.model(irreps, system, device='cpu').evaluate(batch, forces=True)
                differences = [
                    float(np.abs(mine - other).max() / np.abs(other).max())
                    for mine, other in (
                        (ours.latents, theirs.latents),
                        (ours.energies, theirs.energies),
                        (ours.forces, theirs.forces),
                    )
                ]
                words = ''.join(f'{value:10.1e}' for value in differences)
                print(
                    f'{irreps:16}{words}  {self.judge(max(differences) <= FLOAT32, f"at most {FLOAT32:g}")}', flush=True
                )

    def latents(self) -> None:
        """Print atoms per second."""
        print(f'\natoms/s\n{"model":16}{"system":10}{"get_descriptors":>16}{"here":>12}{"times":>8}{"bare pass":>12}')
        for irreps in self.sizes.models:
            for system, (make, _) in SYSTEMS.items():
                structures = list(make(self.sizes.structures if system == 'molecule' else self.sizes.structures // 2))
                model = self.model(irreps, system)
                budget = Budget.choose([model])
                theirs = self.descriptor_rate(irreps, system, structures)
                ours = self.rate(lambda: embed(model, structures, budget))  # noqa: B023
                bare = self.bare_rate(model, structures, budget)
                print(f'{irreps:16}{system:10}{theirs:16.0f}{ours:12.0f}{ours / theirs:8.1f}{bare:12.0f}', flush=True)

    def descriptor_rate(self, irreps: str, system: str, structures: Sequence[Atoms]) -> float:
        """Return the rate of MACE's own loop over structures."""
        from mace.calculators import MACECalculator

        path = self.folder / f'{irreps}_{system}.model'
        calculator = MACECalculator(model_paths=str(path), device=self.device, default_dtype='float32')
        waiting = itertools.cycle(structures)

        def one() -> int:
            atoms = next(waiting)
            calculator.get_descriptors(atoms)
            return len(atoms)

        return self.rate(one)

    def bare_rate(self, model: MaceModel, structures: Sequence[Atoms], budget: Budget) -> float:
        """Return the rate of the forward pass alone: tensors are ready, nothing is brought back."""
        graphs: list[Any] = []
        for atoms in structures:
            graph = build_graph(atoms, CUTOFF)
            if budget.is_full(graphs, graph):
                break
            graphs.append(graph)
        batch = merge_graphs(graphs)
        data = model.atom_tensors(batch.numbers, batch.sizes) | {
            'positions': self.torch.as_tensor(batch.positions, dtype=model.dtype, device=model.device),
            'edge_index': self.torch.as_tensor(batch.edges, device=model.device),
            'shifts': self.torch.as_tensor(batch.shifts, dtype=model.dtype, device=model.device),
        }

        def once() -> int:
            with self.torch.no_grad():
                model.forward(data)
            return len(batch.numbers)

        return self.rate(once)

    def memory(self) -> None:
        """Print peak memory per edge beside the estimate."""
        print(f'\n{"model":16}{"forces":>7}{"edges":>10}{"kB/edge":>10}{"estimate":>10}')
        for irreps in self.sizes.models:
            model = self.model(irreps, 'cell')
            (atoms,) = cells(1)
            graph = build_graph(atoms, CUTOFF)
            for forces in (False, True):
                for n_edges in self.sizes.edges:
                    graphs = [graph] * max(1, n_edges // graph.n_edges)
                    peak = self.peak_bytes(lambda: evaluate_graphs(model, graphs, Budget(10**9, 10**9), forces=forces))  # noqa: B023
                    per_edge, estimate = peak / (len(graphs) * graph.n_edges), model.bytes_per_edge(forces=forces)
                    # small batches are mostly what does not grow with them
                    words = ''
                    if self.device == 'cuda' and n_edges == max(self.sizes.edges):
                        words = self.judge(per_edge <= estimate, 'at most the estimate')
                    print(
                        f'{irreps:16}{forces!s:>7}{len(graphs) * graph.n_edges:10}{per_edge / 1e3:10.1f}'
                        f'{estimate / 1e3:10.1f}  {words}',
                        flush=True,
                    )
            if self.device == 'cuda':
                budget, free = Budget.choose([model]), free_memory('cuda')
                graphs = [graph] * max(1, budget.edges // graph.n_edges)
                peak = self.peak_bytes(lambda: evaluate_graphs(model, graphs, budget))  # noqa: B023
                print(
                    f'{irreps}: a batch of {budget.edges} edges takes {peak / free:.0%} of the free memory', flush=True
                )

    def peak_bytes(self, work: Callable[[], Any]) -> int:
        """Return by how much memory grows at most while ``work`` runs; on a CPU the process."""
        torch = self.torch
        if self.device == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            work()
            return int(torch.cuda.max_memory_allocated() - before)
        status = Path('/proc/self/status')
        Path('/proc/self/clear_refs').write_text('5')  # proc(5): the peak begins anew
        before = int(status.read_text().partition('VmRSS:')[2].split()[0])
        work()
        return 1024 * (int(status.read_text().partition('VmHWM:')[2].split()[0]) - before)

    def fallback(self) -> None:
        """Evaluate a batch that does not fit."""
        model = self.model(self.sizes.models[0], 'cell')
        graphs = [build_graph(atoms, CUTOFF) for atoms in cells(4)] * self.sizes.too_many
        expected = np.concatenate([model.evaluate(merge_graphs([graph])).latents for graph in graphs])
        budget = Budget(10**9, 10**9)
        with self.limited_memory():
            found = evaluate_graphs(model, graphs, budget).latents
        n_edges = sum(graph.n_edges for graph in graphs)
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        met = budget.edges < n_edges and difference <= FLOAT32
        words = self.judge(met, f'halved, and the same latents within {FLOAT32:g}')
        print(
            f'\nfallback: {n_edges} edges at once, then at most {budget.edges}: {difference:.1e}  {words}', flush=True
        )

    @contextlib.contextmanager
    def limited_memory(self) -> Iterator[None]:
        """Leave torch little memory."""
        torch = self.torch
        if self.device == 'cuda':
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(self.sizes.limit / total)
            yield
            torch.cuda.set_per_process_memory_fraction(1.0)
        else:
            unlimited = resource.getrlimit(resource.RLIMIT_AS)
            size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + self.sizes.limit, unlimited[1]))
            yield
            resource.setrlimit(resource.RLIMIT_AS, unlimited)

    def md(self) -> None:
        """Print MD steps per second."""
        compare_steps(self.folder, self.sizes.models[0], self.sizes.atoms, self.sizes.steps, self.device)

    def train(self) -> None:
        """Print what an update and an epoch of training take."""
        labelled = [
            label_structure(atoms, EMT(asap_cutoff=False))
            for atoms in strained_crystals(
                count=self.sizes.cells + 8, repeat=(3, 3, 3) if self.sizes.cells > 50 else (1, 1, 1)
            )
        ]
        folder = self.folder / 'train'
        folder.mkdir()
        StructureSet.from_atoms(labelled[8:]).save(folder / 'training.npz')
        StructureSet.from_atoms(labelled[:8]).save(folder / 'validation.npz')
        settings = MaceTrainSettings.load({'protocol': self.sizes.protocol, 'E0s': {'Al': 3.28}, 'device': self.device})
        per_epoch = self.sizes.cells // settings.batch_size
        values = settings.model_copy(update={'updates': 2 * per_epoch}).to_values()
        job = {'training': ['training.npz'], 'validation': 'validation.npz', 'seed': 1, 'settings': values}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            run_job(job, folder)
        (log,) = (folder / 'mace' / 'results').glob('*_train.txt')
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        # the first epoch compiles
        times = [line['time'] for line in lines if line['mode'] == 'opt' and line['epoch'] == 1]
        print(
            f'\ntraining, protocol {self.sizes.protocol}, {self.sizes.cells} cells of {len(labelled[8])} atoms: '
            f'{np.mean(times):.3f} s per update of {settings.batch_size} cells, {sum(times):.1f} s per epoch',
            flush=True,
        )


def embed(model: MaceModel, structures: Sequence[Atoms], budget: Budget) -> int:
    """Evaluate structures as a latents job does, and return the number of atoms."""
    waiting: list[Any] = []
    for atoms in structures:
        graph = build_graph(atoms, CUTOFF)
        if budget.is_full(waiting, graph):
            evaluate_graphs(model, waiting, budget)
            waiting = []
        waiting.append(graph)
    evaluate_graphs(model, waiting, budget)
    return sum(len(atoms) for atoms in structures)


PARTS = ('agree', 'latents', 'memory', 'fallback', 'md', 'train')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', default=list(PARTS), help=f'{", ".join(PARTS)}; default: all')
    parser.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    parser.add_argument('--small', action='store_true', help='sizes for a test on a CPU')
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f'{unknown.pop()!r} is none of {", ".join(PARTS)}')
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)  # MACECalculator tells of its dtype every time
    device = pick_device(arguments.device)
    import torch

    started = time.perf_counter()
    card = 'no GPU' if device == 'cpu' else torch.cuda.get_device_name(0)
    memory = free_memory(device) / 1e9
    print(f'{device}: {card}, {memory:.0f} GB free; torch {torch.__version__}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, SMALL if arguments.small else Sizes(), Path(folder))
        for part in arguments.parts:
            getattr(bench, part)()
    print(f'\n{"all met" if bench.met else "MISSED: see above"}, {time.perf_counter() - started:.0f} s on {card}')
    if not bench.met:
        sys.exit(1)


if __name__ == '__main__':
    main()
