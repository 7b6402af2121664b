"""Cost of carving against the size of the snapshot: `python benchmarks/carve.py [--atoms 1000 ... 1000000]`.

Prints, for each size, the time of one cluster, of many clusters one by one and all at once, and of `matscipy`'s
neighbour list of the snapshot, beside that of one pass over all positions; draws times against size (`--plot
FILE.html`). Times are CPU times, the best of several runs (the clusters one by one are run once); memory is what numpy
and Python allocate on top of the snapshot (`tracemalloc`). Clusters are finished ones: searched in the periodic cell,
checked for overlaps, mended, with all their arrays.

One pass is what the ratios are taken against: `numpy.linalg.norm(positions - centre, axis=1)`, without periodicity. It
is the plain way to write it and not the fastest: squares only, by `numpy.einsum`, are given beside it.
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_oodal.engine.carve.cluster import extract_cluster, extract_clusters

RADIUS, BUFFER, CUTOFF = 4.0, 3.0, 6.0  # angstrom
CUT: dict[str, Any] = {'cutoff': CUTOFF, 'shape': 'cube', 'bond_scale': 0.75, 'repair': 'drop'}


def snapshot(n_atoms: int) -> Atoms:
    """Make hot-looking fcc Al with at least so many atoms, with gamma and momenta as MD leaves them."""
    cells = int(np.ceil((n_atoms / 4) ** (1 / 3)))
    atoms = bulk('Al', 'fcc', a=4.05, cubic=True) * (cells, cells, cells)
    rng = np.random.default_rng(0)
    atoms.positions += rng.normal(scale=0.15, size=(len(atoms), 3))
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)))
    atoms.arrays['gamma'] = rng.random(len(atoms))
    atoms.wrap()
    return atoms


def distances(positions: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Compute all distances to a point in the plainest vectorised way, without periodicity."""
    return np.asarray(np.linalg.norm(positions - centre, axis=1))


def squares(positions: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Compute the squares of all distances in the fastest way that numpy has."""
    vectors = positions - centre
    return np.asarray(np.einsum('ij,ij->i', vectors, vectors))


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Return the shortest of several CPU times in seconds: other users of the machine do not count."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def peak_memory(function: Callable[[], object]) -> float:
    """Return the peak of the memory allocated by a call, in MB."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure(n_atoms: int, n_centres: int, repeats: int, *, neighbour_list: bool) -> dict[str, float]:
    """Measure one size; times in ms, memory in MB."""
    atoms = snapshot(n_atoms)
    positions = atoms.positions
    centres = np.random.default_rng(1).choice(len(atoms), n_centres, replace=False)

    def one() -> Atoms:
        return extract_cluster(atoms, int(centres[0]), RADIUS, BUFFER, **CUT)

    def together() -> list[Atoms]:
        return extract_clusters(atoms, centres, RADIUS, BUFFER, **CUT)

    def one_by_one() -> list[Atoms]:
        return [extract_cluster(atoms, int(centre), RADIUS, BUFFER, **CUT) for centre in centres]

    row = {
        'atoms': float(len(atoms)),
        'cluster_atoms': float(len(one())),
        'distances': 1e3 * best_time(lambda: distances(positions, positions[centres[0]]), 2 * repeats),
        'squares': 1e3 * best_time(lambda: squares(positions, positions[centres[0]]), 2 * repeats),
        'one': 1e3 * best_time(one, 2 * repeats),
        'together': 1e3 * best_time(together, repeats),
        'one_by_one': 1e3 * best_time(one_by_one, 1),
        'memory_snapshot': sum(array.nbytes for array in atoms.arrays.values()) / 1e6,
        'memory_distances': peak_memory(lambda: distances(positions, positions[0])),
        'memory_one': peak_memory(one),
        'memory_together': peak_memory(together),
        'neighbour_list': float('nan'),
    }
    if neighbour_list:
        from matscipy.neighbours import neighbour_list as matscipy_list

        row['neighbour_list'] = 1e3 * best_time(lambda: matscipy_list('i', atoms, CUTOFF), 1)
    return row


def report(rows: list[dict[str, float]], n_centres: int) -> None:
    print(f'Cube of {2 * (RADIUS + BUFFER) + 0.5:g} angstrom, {rows[-1]["cluster_atoms"]:.0f} atoms. Times in ms.')
    print(
        f'{"atoms":>9} {"distances":>10} {"squares":>8} {"1 cluster":>10} {f"{n_centres} at once":>12} '
        f'{f"{n_centres} singly":>12} '
        f'{"neigh. list":>12} | {"cluster/dist":>12} {"list/cluster":>12} {"singly/once":>11} {"once/dist":>9}'
    )
    for row in rows:
        print(
            f'{row["atoms"]:9.0f} {row["distances"]:10.2f} {row["squares"]:8.2f} {row["one"]:10.2f} '
            f'{row["together"]:12.1f} {row["one_by_one"]:12.1f} {row["neighbour_list"]:12.0f} | '
            f'{row["one"] / row["distances"]:12.2f} '
            f'{row["neighbour_list"] / row["one"]:12.0f} {row["one_by_one"] / row["together"]:11.1f} '
            f'{row["together"] / row["distances"]:9.1f}'
        )
    print('\nPeak memory in MB, on top of the snapshot.')
    print(f'{"atoms":>9} {"snapshot":>9} {"distances":>10} {"1 cluster":>10} {f"{n_centres} at once":>12}')
    for row in rows:
        print(
            f'{row["atoms"]:9.0f} {row["memory_snapshot"]:9.1f} {row["memory_distances"]:10.1f} '
            f'{row["memory_one"]:10.1f} {row["memory_together"]:12.1f}'
        )


def draw(rows: list[dict[str, float]], n_centres: int, path: Path) -> None:
    import plotly.graph_objects as go

    names = {
        'neighbour_list': 'neighbour list (matscipy)',
        'one_by_one': f'{n_centres} clusters, one by one',
        'together': f'{n_centres} clusters at once',
        'distances': 'one distance computation',
        'one': 'one cluster',
    }
    figure = go.Figure()
    for key, name in names.items():
        figure.add_scatter(
            x=[row['atoms'] for row in rows], y=[row[key] for row in rows], name=name, mode='lines+markers'
        )
    figure.update_xaxes(type='log', title='atoms in the snapshot')
    figure.update_yaxes(type='log', title='time (ms)')
    figure.update_layout(title='Cost of carving', template='plotly_white')
    figure.write_html(path, include_plotlyjs=True)
    print(f'\nplot: {path}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--atoms', type=int, nargs='+', default=[1000, 10000, 100000, 1000000])
    parser.add_argument('--centres', type=int, default=100)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--no-neighbour-list', action='store_true', help='leave matscipy out (2 GB at 1,000,000 atoms)')
    parser.add_argument('--plot', type=Path, default=Path('carve.html'))
    options = parser.parse_args()
    rows = [
        measure(n_atoms, options.centres, options.repeats, neighbour_list=not options.no_neighbour_list)
        for n_atoms in options.atoms
    ]
    report(rows, options.centres)
    draw(rows, options.centres, options.plot)


if __name__ == '__main__':
    main()
