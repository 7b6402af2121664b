"""What a long life costs: commands on a large profile, and rounds of a long campaign.

    python benchmarks/scale.py rounds --rounds 50 --export many.aiida
    python benchmarks/scale.py profile --archive many.aiida
    python benchmarks/scale.py profile --storage postgresql

`rounds` runs a real campaign of the smallest parts through a real daemon (``many_rounds.py``) and prints what a round
took: time, CPU of the workers, bytes of database and repository, memory of the workers.

`profile` takes a campaign from an archive, or runs a small one, and makes the profile large: nodes, links and logs are
copied in bulk in the database, instead of being run, until there are ``--processes`` processes (``large_profile.py``);
structures with entries of the queue are stored in bulk, each asked for by one of the campaigns, until there are
``--entries``. Printed are for each command, medians of ``--repeats``: the seconds that a shell waits and the CPU
seconds of these processes, and both for the same command in a process that has imported AiiDA. The first rows are AiiDA
alone. A temporary profile is made for both; PostgreSQL needs its server programs.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from dft_queue import fill
from throughput import BIN, ROOT, database, run, sizes

#: AiiDA with nothing of ours: import it, load the profile, ask the database once.
BARE = """
from aiida import load_profile, orm
load_profile()
orm.QueryBuilder().append(orm.WorkChainNode, filters={'uuid': '%s'}).one()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    rounds = commands.add_parser('rounds', help='Run a long campaign, and print what each round took.')
    rounds.add_argument('--rounds', type=int, default=50)
    rounds.add_argument('--hours', type=float, default=24.0, help='No round begins later than this.')
    rounds.add_argument('--workers', type=int, default=1)
    rounds.add_argument('--export', type=Path, help='Archive to write the campaign to.')
    profile = commands.add_parser('profile', help='Time the commands on a large profile.')
    profile.add_argument('--processes', type=int, default=10_000)
    profile.add_argument('--entries', type=int, default=100_000)
    profile.add_argument('--repeats', type=int, default=5)
    profile.add_argument('--archive', type=Path, help='With a campaign, instead of running one.')
    profile.add_argument('--here', action='store_true', help='Without what a shell waits, mostly imports of AiiDA.')
    for command in (rounds, profile):
        command.add_argument('--storage', choices=('sqlite', 'postgresql'), default='sqlite')
    arguments = parser.parse_args()
    with make_profile(arguments.storage) as folder:
        if arguments.command == 'rounds':
            run_rounds(arguments)
        else:
            time_commands(arguments, folder)


@contextmanager
def make_profile(storage: str) -> Iterator[Path]:
    """Load a profile of its own, in a temporary folder, with the computer ``localhost``."""
    with tempfile.TemporaryDirectory(prefix='oodal-scale-') as folder, database(storage) as address:
        os.environ['AIIDA_PATH'] = folder
        os.environ['PATH'] = f'{BIN}:{os.environ["PATH"]}'
        os.environ['OMP_NUM_THREADS'] = '1'
        (Path(folder) / '.aiida').mkdir()
        run('aiida-oodal', 'setup', 'profile', *(['--postgresql', address] if address else []))
        from aiida import load_profile
        from aiida.manage import get_manager

        from aiida_oodal.operations.computers import make_computer
        from aiida_oodal.operations.presets import ComputerSettings

        load_profile()
        settings = ComputerSettings(
            label='localhost', work_dir=str(Path(folder) / 'scratch'), path=(str(BIN),), poll_interval=0.5
        )
        make_computer('local', settings, lambda _: None)
        try:
            yield Path(folder)
        finally:
            get_manager().reset_profile()  # our connection ends before the server does


@contextmanager
def daemon(workers: int) -> Iterator[None]:
    """Have a daemon."""
    run('verdi', 'daemon', 'start', str(workers))
    try:
        yield
    finally:
        run('verdi', 'daemon', 'stop')


def run_rounds(arguments: argparse.Namespace) -> None:
    """Run the long campaign and print its rounds."""
    from many_rounds import build_campaign, follow_rounds, print_rounds

    from aiida_oodal.operations.campaign.archive import export_campaign
    from aiida_oodal.operations.launch import submit_process

    marks = []
    with daemon(arguments.workers):
        campaign: Any = submit_process(build_campaign(arguments.rounds, arguments.hours))
        for mark in follow_rounds(campaign):
            marks.append(mark)
            print(f'{len(marks)} begun or ended after {mark.time - marks[0].time:.0f} s', file=sys.stderr, flush=True)
    print(f'{arguments.storage}, {arguments.workers} workers; the campaign ended: {campaign.exit_message or "healed"}')
    print_rounds(marks)
    if arguments.export:
        export_campaign(campaign, arguments.export, overwrite=True)


def time_commands(arguments: argparse.Namespace, folder: Path) -> None:
    """Make the profile large and time the commands."""
    from large_profile import copy_campaign, let_wait

    campaign = import_campaign(arguments.archive) if arguments.archive else run_small_campaign()
    rounds = read_status(campaign).round
    print(f'{arguments.storage}; a campaign of {rounds} rounds and {1 + len(campaign.called_descendants)} processes')
    before, begin = sizes(), time.monotonic()
    campaigns = copy_campaign(campaign, arguments.processes)
    if len(campaigns) > 1:
        copied = (sizes()[0] - before[0]) / (len(campaigns) - 1) / rounds
        print(f'{len(campaigns) - 1} copies: {copied / 1e3:.0f} kB of database for each round')
    require_same(campaign.uuid, campaigns[-1])
    missing = arguments.entries - count_entries()
    if missing > 0:
        fill(missing, campaigns)
    describe(time.monotonic() - begin)
    let_wait(campaigns[-1])
    measure(campaign, campaigns[-1], arguments.repeats, shell=not arguments.here)


def import_campaign(archive: Path) -> Any:
    """Import an archive and return the last campaign in it."""
    from aiida import orm
    from aiida.tools.archive import import_archive

    from aiida_oodal.queue import enqueue
    from aiida_oodal.workchains.calls import CAMPAIGN

    import_archive(archive)
    enqueue([], None)  # makes the indexes, as the first change of the queue does
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'process_type': CAMPAIGN}, tag='campaign')
    return query.order_by({'campaign': {'ctime': 'desc'}}).first(flat=True)


def run_small_campaign() -> Any:
    """Run the small campaign of the tests through the daemon and return it."""
    from aiida_oodal.operations.launch import wait_for

    with daemon(2):
        script = ROOT / 'tests' / 'workchains' / 'small_campaign.py'
        return wait_for(runpy.run_path(str(script))['campaign'])


def read_status(campaign: Any) -> Any:
    from aiida_oodal.operations.campaign.status import read_status as read

    return read(campaign)


def count_entries() -> int:
    from aiida_oodal.queue import count_entries as count

    return sum(count().values())


def require_same(first: str, copy: str) -> None:
    """Refuse a copy of which `status` does not say what it says of the first.

    :raises SystemExit: with what differs.
    """
    from dataclasses import replace

    from aiida import orm

    told = [
        replace(read_status(orm.load_node(uuid)), pk=0, learned='', failed=[], reports=[], advice=[])
        for uuid in (first, copy)
    ]
    if told[0] != told[1]:
        raise SystemExit(f'the copy is not what was copied: {told[0]} {told[1]}')


def describe(seconds: float) -> None:
    """Print what there is."""
    from aiida import orm

    nodes, processes = (orm.QueryBuilder().append(kind).count() for kind in (orm.Node, orm.ProcessNode))
    print(
        f'{nodes} nodes, {processes} processes, {count_entries()} entries of the queue, database '
        f'{sizes()[0] / 1e6:.0f} MB; made in {seconds:.0f} s'
    )


def measure(campaign: Any, running: str, repeats: int, *, shell: bool) -> None:
    """Print the table.

    :param running: UUID of another campaign, which has not ended.
    """
    cluster, potential, key = find_asked(campaign)
    labels = min(campaign.outputs.labels.values(), key=lambda node: node.ctime)
    shown = {
        campaign.uuid: 'CAMPAIGN',
        running: 'RUNNING',
        cluster: 'CLUSTER',
        potential: 'POTENTIAL',
        labels.uuid: 'LABELS',
        key: 'KEY',
        key[:12]: 'BEGINNING_OF_KEY',
    }
    print(f'\n| {"command":<42} | a shell waits [s] | its CPU [s] | AiiDA imported [s] | its CPU [s] |')
    print(f'|{"-" * 44}|---|---|---|---|')
    aiida = {
        'AiiDA: import, load_profile, one query': [sys.executable, '-c', BARE % campaign.uuid],
        'verdi process show CAMPAIGN': [str(BIN / 'verdi'), 'process', 'show', campaign.uuid],
    }
    for name, words in aiida.items() if shell else ():
        print_row(name, time_shell(words, repeats), ())
    for words in (
        ('campaign', 'status', campaign.uuid),
        ('campaign', 'status', running),
        ('campaign', 'list'),
        ('watch', campaign.uuid),
        ('queue', 'list'),
        ('queue', 'list', '--campaign', campaign.uuid),
        ('queue', 'show', key),
        ('queue', 'show', key[:12]),
        ('why', cluster),
        ('why', labels.uuid),
        ('why', potential),
    ):
        name = ' '.join(shown.get(word, word) for word in words)
        waited = time_shell([str(BIN / 'aiida-oodal'), *words], repeats) if shell else ()
        print_row(name, waited, time_here(words, repeats))


def find_asked(campaign: Any) -> tuple[str, str, str]:
    """Return the UUIDs of a cluster and a potential of a campaign, and the key of that cluster in the queue."""
    key, cluster = min(read_first_labels(campaign).inputs.clusters.items())
    return cluster.uuid, campaign.outputs.potential.uuid, key


def read_first_labels(campaign: Any) -> Any:
    """Return the labeller of the first round."""
    from aiida_oodal.report.campaign.left import read_calls
    from aiida_oodal.workchains.calls import Call, Stage

    return read_calls(campaign)[Call(Stage.LABEL, 1)]


def time_shell(words: list[str], repeats: int) -> tuple[float, float]:
    """Return the seconds that a shell waits for a command, and the CPU seconds of it, medians."""
    seconds, cpu = [], []
    for _ in range(repeats):
        begin, before = time.monotonic(), os.times()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        seconds.append(time.monotonic() - begin)
        cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return median(seconds), median(cpu)


def time_here(words: tuple[str, ...], repeats: int) -> tuple[float, float]:
    """Return the seconds of a command in this process, and its CPU seconds, medians."""
    from click.testing import CliRunner

    from aiida_oodal.cli import main as command_line

    seconds, cpu = [], []
    for _ in range(repeats):
        begin, before = time.monotonic(), time.process_time()
        result = CliRunner().invoke(command_line, list(words))
        cpu.append(time.process_time() - before)
        seconds.append(time.monotonic() - begin)
        if result.exit_code:
            raise SystemExit(f'{words}: {result.output} {result.exception!r}')
    return median(seconds), median(cpu)


def print_row(name: str, shell: Sequence[float], here: Sequence[float]) -> None:
    texts = [f'{value:.2f}' for value in shell] or ['', '']
    texts += [f'{value:.3f}' for value in here] or ['', '']
    print(f'| {name:<42} | {" | ".join(texts)} |', flush=True)


if __name__ == '__main__':
    main()
