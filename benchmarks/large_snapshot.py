"""One walker of a million atoms through the daemon, from MD to clusters: what it asks of a worker.

    python benchmarks/large_snapshot.py --atoms 1000000

Hot fcc Al with a small disordered region is run for a few steps by the engine (ACE, gamma of every atom) until it
halts; then clusters are cut where MD left the frames. Prints the largest resident memory of a worker before anything
was submitted, after MD and after carving, the largest of the jobs, and times. Everything is made in a temporary folder
and removed. A million atoms take about a quarter of an hour and 10 GB of memory on one core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--atoms', type=int, default=1_000_000)
    parser.add_argument('--steps', type=int, default=2)
    parser.add_argument('--retrieve', action='store_true', help='Let the frames travel, as smaller ones do.')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='oodal-large-') as folder:
        os.environ['AIIDA_PATH'] = folder
        os.environ['PATH'] = f'{BIN}:{os.environ["PATH"]}'
        os.environ['OMP_NUM_THREADS'] = '1'
        (Path(folder) / '.aiida').mkdir()
        run('aiida-oodal', 'setup', 'profile')
        words = ['--label', 'bench', '--preset', 'local', '--venv', sys.prefix, '--work-dir', f'{folder}/run']
        run('aiida-oodal', 'setup', 'computer', *words)
        run('verdi', 'daemon', 'start', '1')
        try:
            measure(arguments)
        finally:
            run('verdi', 'daemon', 'stop')


def run(*command: str) -> None:
    subprocess.run([str(BIN / command[0]), *command[1:]], check=True, stdout=subprocess.DEVNULL, timeout=300)


def measure(arguments: argparse.Namespace) -> None:
    from aiida import load_profile, orm
    from aiida.engine import submit

    load_profile()
    time.sleep(10)  # the worker has imported what it needs to wait
    print(f'worker when idle: {worker_peak():.0f} MB', flush=True)
    begin = time.monotonic()
    walker = submit(*make_walker(arguments))
    stage, jobs = 0, 0.0
    while not walker.is_terminated:
        jobs = max(jobs, job_memory())
        carving = [child for child in walker.called if child.process_label == 'CarveWorkChain']
        if carving and not stage:
            stage = 1
            print(f'worker after MD: {worker_peak():.0f} MB, {time.monotonic() - begin:.0f} s', flush=True)
        time.sleep(1)
    print(f'worker after carving: {worker_peak():.0f} MB, {time.monotonic() - begin:.0f} s; jobs: {jobs:.0f} MB')
    if not walker.is_finished_ok or 'clusters' not in walker.outputs:
        said = walker.outputs.results['message'] if 'results' in walker.outputs else ''
        raise SystemExit(f'the walker left no clusters: {walker.exit_message or said}')
    outputs = walker.outputs
    atoms = [len(cluster.sites) for cluster in outputs.clusters.values()]
    print(f'{outputs.results["outcome"]} at step {outputs.results["last_step"]}; clusters of {atoms} atoms')
    frames = 'snapshots' in outputs
    folders = orm.QueryBuilder().append(orm.FolderData).all(flat=True)
    size = sum(node.base.repository.get_object_size(name) for node in folders for name in names(node))
    print(f'frames {"travelled" if frames else "stayed"}; retrieved files: {size / 1e6:.1f} MB')


def names(node: Any) -> list[str]:
    return [str(root / name) for root, _, files in node.base.repository.walk() for name in files]


def make_walker(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    import numpy as np
    from aiida import orm
    from ase.build import bulk

    from aiida_oodal.calculations.codes import get_engine_code
    from aiida_oodal.data import AcePotentialData, StructureSetData
    from aiida_oodal.workchains.explore import ExploreWorkChain

    cells = round((arguments.atoms / 4) ** (1 / 3))
    atoms = bulk('Al', 'fcc', a=4.0, cubic=True).repeat(cells)
    random = np.random.default_rng(0)
    atoms.positions += random.normal(scale=0.03, size=atoms.positions.shape)
    near = np.linalg.norm(atoms.positions - atoms.cell.sum(axis=0) / 2, axis=1) < 4.0
    atoms.positions[near] += random.normal(scale=0.5, size=(near.sum(), 3))
    atoms.wrap()
    print(f'{len(atoms):,} atoms, {near.sum()} of them disordered', flush=True)
    folder = ROOT / 'tests' / 'data' / 'ace-al'
    job = {'code': get_engine_code(), 'metadata': {'computer': orm.load_computer('bench')}}
    md = {
        **job,
        'potential': AcePotentialData(folder / 'Al.yaml', folder / 'Al.asi'),
        'structure': StructureSetData([atoms]),
        'settings': orm.Dict(
            {'temperature': 300, 'steps': arguments.steps, 'gamma_every': 1, 'sample_every': 1, 'restart_every': None}
        ),
    }
    if arguments.retrieve:
        md['retrieve_snapshots'] = orm.Bool(True)
    carve = {**job, 'settings': orm.Dict({'radius': 4.0, 'buffer': 4.0, 'tolerance': 0.01})}
    return ExploreWorkChain, {'md': md, 'carve': carve, 'thresholds': orm.Dict({'gamma_ceiling': 1e4})}


def worker_peak() -> float:
    """Return the largest resident memory that any worker ever had [MB]."""
    from aiida_oodal.operations.daemon import find_daemon_processes

    peaks = []
    for process in find_daemon_processes():
        if 'worker' in ' '.join(process.cmdline()):
            status = Path(f'/proc/{process.pid}/status').read_text()
            peaks += [int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith('VmHWM')]
    return max(peaks)


def job_memory() -> float:
    """Return the resident memory of the largest engine job [MB]."""
    found = psutil.process_iter(['cmdline', 'memory_info'])
    jobs = [process.info for process in found if 'job.json' in (process.info['cmdline'] or [])]
    return max((info['memory_info'].rss / 1e6 for info in jobs if info['memory_info']), default=0.0)


if __name__ == '__main__':
    main()
