"""Many MD jobs through daemon and Slurm: how fast, and what each costs AiiDA, against ``core.arithmetic.add``.

    python benchmarks/throughput.py --jobs 100
    python benchmarks/throughput.py --jobs 100 --storage postgresql

Needs the Slurm of ``tests/slurm/slurm_up.sh`` (or ``--preset local``) and, for PostgreSQL, its server programs.
Everything is made in a temporary folder and removed. A few jobs of each kind come first and let workers import what
they need; then series of both kinds take turns, as the speed of a machine that others use changes within minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--jobs', type=int, default=10)
    parser.add_argument('--rounds', type=int, default=4, help='Series of each kind that the jobs are split into.')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--storage', choices=('sqlite', 'postgresql'), default='sqlite')
    parser.add_argument('--preset', default='a100-slurm')
    parser.add_argument('--timeout', type=float, default=3600.0, help='Seconds for each series.')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='oodal-throughput-') as folder, database(arguments.storage) as address:
        os.environ['AIIDA_PATH'] = folder
        os.environ['PATH'] = f'{BIN}:{os.environ["PATH"]}'
        os.environ['OMP_NUM_THREADS'] = '1'
        (Path(folder) / '.aiida').mkdir()
        install(Path(folder), arguments, address)
        try:
            measure_all(arguments)
        finally:
            run('verdi', 'daemon', 'stop')
            from aiida.manage import get_manager

            # Our connection ends before the server does.
            get_manager().reset_profile()


@contextlib.contextmanager
def database(storage: str) -> Iterator[str | None]:
    """Yield the address of an empty PostgreSQL database, None for SQLite."""
    if storage == 'sqlite':
        yield None
        return
    import psycopg

    script = ROOT / 'tests' / 'postgres_server.py'
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())['port']
        login = f'host=localhost port={port} user=postgres dbname=postgres'
        with psycopg.connect(login, autocommit=True) as connection:
            connection.execute("create role oodal login password 'oodal'")
            connection.execute("create database oodal owner oodal encoding 'UTF8' template template0")
        yield f'postgresql://oodal:oodal@localhost:{port}/oodal'
        server.communicate()


def install(folder: Path, arguments: argparse.Namespace, address: str | None) -> None:
    run('aiida-oodal', 'setup', 'profile', *(['--postgresql', address] if address else []))
    options = ['--label', 'bench', '--venv', sys.prefix, '--work-dir', str(folder / 'run'), '--walltime', '00:30:00']
    run('aiida-oodal', 'setup', 'computer', '--preset', arguments.preset, *options, '--poll-interval', '2')
    run('verdi', 'daemon', 'start', str(arguments.workers))


def run(*command: str) -> None:
    subprocess.run([str(BIN / command[0]), *command[1:]], check=True, stdout=subprocess.DEVNULL, timeout=300)


def measure_all(arguments: argparse.Namespace) -> None:
    from aiida import load_profile

    load_profile()
    print(f'{arguments.jobs} jobs of each kind, {arguments.storage}, {arguments.workers} workers, {arguments.preset}')
    columns = ('submitted/s', 'jobs/s', 'daemon CPU s/job', 'submit CPU s/job', 'database kB/job', 'repository kB/job')
    print(' ' * 20 + ''.join(f'{name:>19}' for name in columns))
    kinds = {'core.arithmetic.add': make_add(), 'oodal.md': make_md()}
    for make in kinds.values():
        measure(make, 3 * arguments.workers, arguments.timeout)
    series: dict[str, list[Series]] = {name: [] for name in kinds}
    for count in split(arguments.jobs, min(arguments.jobs, arguments.rounds)):
        for name, make in kinds.items():
            series[name].append(measure(make, count, arguments.timeout))
    for name, rounds in series.items():
        print(f'{name:20}' + ''.join(f'{value:19.3g}' for value in total(rounds).columns()))
    add, md = (series[name] for name in kinds)
    ratios = [mine.cpu_per_job / theirs.cpu_per_job for mine, theirs in zip(md, add, strict=True)]
    print(
        f'CPU of oodal.md / core.arithmetic.add: {total(md).cpu_per_job / total(add).cpu_per_job:.2f} (at most 2); '
        f'by rounds: {", ".join(f"{ratio:.2f}" for ratio in ratios)}'
    )


def split(jobs: int, rounds: int) -> list[int]:
    """Return the jobs of each round, as equal as can be."""
    return [jobs * (i + 1) // rounds - jobs * i // rounds for i in range(rounds)]


@dataclass(frozen=True)
class Series:
    """What a number of jobs took: seconds of time and CPU, bytes."""

    jobs: int
    submit_s: float
    elapsed_s: float
    daemon_cpu_s: float
    submit_cpu_s: float
    database: float
    repository: float

    @property
    def cpu_per_job(self) -> float:
        """CPU of daemon and submission for each job [s]."""
        return (self.daemon_cpu_s + self.submit_cpu_s) / self.jobs

    def columns(self) -> tuple[float, ...]:
        """Return the columns of the table."""
        seconds = (self.daemon_cpu_s, self.submit_cpu_s)
        sizes = (self.database / 1e3, self.repository / 1e3)
        return self.jobs / self.submit_s, self.jobs / self.elapsed_s, *(x / self.jobs for x in (*seconds, *sizes))


def total(rounds: list[Series]) -> Series:
    """Return rounds of one kind as one series."""
    return Series(*(sum(values) for values in zip(*map(astuple, rounds), strict=True)))


def make_add() -> Callable[[], Any]:
    from aiida.calculations.arithmetic.add import ArithmeticAddCalculation
    from aiida.orm import InstalledCode, Int, load_computer

    computer = load_computer('bench')
    code = InstalledCode(label='bash', computer=computer, filepath_executable='/bin/bash').store()

    def make() -> Any:
        builder = ArithmeticAddCalculation.get_builder()
        builder.code, builder.x, builder.y = code, Int(1), Int(2)
        builder.metadata.options.update(options(computer))
        return builder

    return make


def make_md() -> Callable[[], Any]:
    from aiida.orm import Dict, load_computer
    from ase.build import bulk

    from aiida_oodal.calculations.codes import get_engine_code
    from aiida_oodal.calculations.md import MdCalculation
    from aiida_oodal.data import AcePotentialData, StructureSetData

    computer, code = load_computer('bench'), get_engine_code()
    folder = ROOT / 'tests' / 'data' / 'ace-al'
    potential = AcePotentialData(folder / 'Al.yaml', folder / 'Al.asi').store()
    structure = StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(3)]).store()
    seeds = iter(range(1, 10**6))

    def make() -> Any:
        builder = MdCalculation.get_builder()
        builder.code, builder.potential, builder.structure = code, potential, structure
        builder.settings = Dict({'temperature': 300, 'steps': 20, 'velocity_seed': next(seeds)})
        builder.metadata.computer = computer
        builder.metadata.options.update(options(computer))
        return builder

    return make


def options(computer: Any) -> dict[str, Any]:
    """Ask for the partition, the memory and the card of the preset."""
    from aiida_oodal.calculations.job.options import get_job_options

    return {'resources': {'num_machines': 1, 'num_mpiprocs_per_machine': 1}, **get_job_options(computer, 'md')}


def measure(make: Callable[[], Any], count: int, timeout: float) -> Series:
    """Run a series of jobs to its end."""
    from aiida.engine import submit

    before, cpu, own, begin = sizes(), daemon_cpu(), time.process_time(), time.monotonic()
    nodes = [submit(make()) for _ in range(count)]
    submitted, own = time.monotonic() - begin, time.process_time() - own
    while not all(node.is_terminated for node in nodes):
        if time.monotonic() - begin > timeout:
            raise SystemExit(f'not all done after {timeout:g} s: {[n.pk for n in nodes if not n.is_terminated]}')
        time.sleep(0.5)
    elapsed = time.monotonic() - begin
    failed = [node.pk for node in nodes if not node.is_finished_ok]
    if failed:
        raise SystemExit(f'jobs failed: {failed}, the first with: {nodes[0].exit_message}')
    grown = (new - old for new, old in zip(sizes(), before, strict=True))
    return Series(count, submitted, elapsed, daemon_cpu() - cpu, own, *grown)


def daemon_cpu() -> float:
    """Return the CPU seconds of the daemon: circus, workers, broker; not of the jobs."""
    from aiida_oodal.operations.daemon import find_daemon_processes

    times = [process.cpu_times() for process in find_daemon_processes()]
    return sum(entry.user + entry.system for entry in times)


def sizes() -> tuple[float, float]:
    """Return the bytes of database and repository."""
    from aiida.manage import get_manager

    storage = get_manager().get_profile_storage()
    config = storage.profile.storage_config
    if 'filepath' in config:
        folder = Path(config['filepath'])
        # Pages that hold data; the write-ahead log grows and shrinks as it likes.
        with sqlite3.connect(f'file:{folder / "database.sqlite"}?mode=ro', uri=True) as connection:
            pages, unused, size = (
                connection.execute(f'PRAGMA {name}').fetchone()[0]
                for name in ('page_count', 'freelist_count', 'page_size')
            )
        connection.close()
        base = float((pages - unused) * size)
        container = folder / 'container'
    else:
        from sqlalchemy import text

        base = float(storage.get_session().execute(text('select pg_database_size(current_database())')).scalar())
        container = Path(config['repository_uri'].removeprefix('file://')) / 'container'
    return base, float(sum(path.stat().st_size for path in container.rglob('*') if path.is_file()))


if __name__ == '__main__':
    main()
