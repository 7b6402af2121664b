"""Read the last frame of LAMMPS dumps: time and memory against ``ase.io.read``.

    python benchmarks/md_reading.py --folder /scratch/dumps

writes a dump of one large frame and a dump of many frames, in the columns and digits of our own dumps, and reads the
last frame of each as structure. Every measurement runs in a process of its own and counts from after the imports; the
memory is what the process grew by at its peak. ``--frame-atoms`` and ``--megabytes`` set the sizes, ``--keep`` leaves
the dumps there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

COLUMNS = 'id type element x y z vx vy vz gamma'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, help='where the dumps are written')
    parser.add_argument('--frame-atoms', type=int, default=1_000_000, help='atoms of the dump of one frame')
    parser.add_argument('--megabytes', type=int, default=2_048, help='size of the dump of many frames')
    parser.add_argument('--many-atoms', type=int, default=4_000, help='atoms in each frame of that dump')
    parser.add_argument('--repeat', type=int, default=3, help='measurements of each reader; the best one counts')
    parser.add_argument('--keep', action='store_true', help='do not delete the dumps')
    parser.add_argument('--measure', nargs=2, metavar=('READER', 'PATH'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]))))
        return
    if arguments.folder is None:
        parser.error('--folder is needed: the dumps are large')
    arguments.folder.mkdir(parents=True, exist_ok=True)
    one, many = arguments.folder / 'one_frame.dump', arguments.folder / 'many_frames.dump'
    write_frames(one, arguments.frame_atoms, n_bytes=0)
    write_frames(many, arguments.many_atoms, n_bytes=arguments.megabytes << 20)
    try:
        compare(f'one frame of {arguments.frame_atoms} atoms', one, arguments.repeat)
        compare(f'frames of {arguments.many_atoms} atoms', many, arguments.repeat)
    finally:
        if not arguments.keep:
            one.unlink()
            many.unlink()


def write_frames(path: Path, n_atoms: int, n_bytes: int) -> None:
    """Write one frame, and as many more as make a file of ``n_bytes``."""
    generator = np.random.default_rng(0)
    side = (16.0 * n_atoms) ** (1 / 3)
    header = f'ITEM: NUMBER OF ATOMS\n{n_atoms}\nITEM: BOX BOUNDS pp pp pp\n' + f'0.0 {side:.16e}\n' * 3
    row = '{} 1 Al' + ' {:.17g}' * 7 + '\n'
    step = 0
    with path.open('w', encoding='ascii') as stream:
        while not step or stream.tell() < n_bytes:
            stream.write(f'ITEM: TIMESTEP\n{step}\n{header}ITEM: ATOMS {COLUMNS}\n')
            for start in range(0, n_atoms, 10_000):  # the process stays small
                n_rows = min(10_000, n_atoms - start)
                positions, velocities = generator.uniform(0, side, (n_rows, 3)), generator.normal(0, 5, (n_rows, 3))
                values = np.hstack([positions, velocities, generator.random((n_rows, 1))]).tolist()
                stream.writelines(row.format(i, *value) for i, value in enumerate(values, start=start + 1))
            step += 10


def compare(what: str, path: Path, repeat: int) -> None:
    best = {}
    for reader in ('aiida_oodal', 'ase'):
        command = [sys.executable, __file__, '--measure', reader, str(path)]
        runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(repeat)]
        best[reader] = min(runs, key=lambda run: run['seconds'])
    assert best['ase']['positions'] == best['aiida_oodal']['positions'], 'the two readers do not agree'
    ratio = best['ase']['seconds'] / best['aiida_oodal']['seconds']
    print(f'last frame, {what}, {path.stat().st_size / 1e6:.0f} MB: {ratio:.1f} times faster than ase.io.read')
    for reader, run in best.items():
        times = f'{run["seconds"]:8.3f} s ({run["cpu"]:.3f} s of CPU)'
        print(f'    {reader:12} {times}, {run["megabytes"]:6.0f} MB of memory', flush=True)


def measure(reader: str, path: Path) -> dict[str, float]:
    """Read the last frame as structure and return time, growth of the process, and a sum that tells what was read."""
    read = {'aiida_oodal': read_with_aiida_oodal, 'ase': read_with_ase}[reader]()
    before = peak_megabytes()
    start, cpu_start = time.perf_counter(), time.process_time()
    positions = read(path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return {'seconds': seconds, 'cpu': cpu, 'megabytes': peak_megabytes() - before, 'positions': float(positions.sum())}


def peak_megabytes() -> float:
    """Return the peak memory of this process; that of ``getrusage`` begins with the peak of the parent."""
    status = Path('/proc/self/status').read_text(encoding='ascii')
    return int(status.partition('VmHWM:')[2].split()[0]) * 1024 / 1e6


def read_with_aiida_oodal() -> Callable[[Path], np.ndarray]:
    import scipy.io  # noqa: F401  (imported on first use otherwise)

    from aiida_oodal.engine.md.dump import read_frame

    return lambda path: read_frame(path).to_atoms().positions


def read_with_ase() -> Callable[[Path], np.ndarray]:
    import ase.io
    import ase.io.lammpsrun  # imported on first use otherwise

    return lambda path: ase.io.read(path, format='lammps-dump-text', index=-1).positions


if __name__ == '__main__':
    main()
