"""The commands of the DFT queue, timed on a queue of many entries.

    python benchmarks/dft_queue.py
    python benchmarks/dft_queue.py --storage postgresql

Makes a profile in a temporary folder, puts ``--entries`` structures with their entries into its database, and prints
the seconds that each command takes, the median of ``--repeats``, in a process that has imported AiiDA; the last line is
what a shell waits for one of them, which is mostly the import. PostgreSQL needs its server programs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from throughput import BIN, database, run

#: Of a hundred entries: how many have each status.
SHARES = {'PENDING_DFT': 20, 'SUBMITTED': 2, 'LABELLED': 70, 'FAILED': 5, 'REJECTED': 3}
CAMPAIGNS = 100
CHUNK = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--entries', type=int, default=100_000)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--storage', choices=('sqlite', 'postgresql'), default='sqlite')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='oodal-queue-') as folder, database(arguments.storage) as address:
        os.environ['AIIDA_PATH'] = folder
        os.environ['PATH'] = f'{BIN}:{os.environ["PATH"]}'
        (Path(folder) / '.aiida').mkdir()
        run('aiida-oodal', 'setup', 'profile', *(['--postgresql', address] if address else []))
        from aiida import load_profile
        from aiida.manage import get_manager

        load_profile()
        begin = time.monotonic()
        keys, campaigns = fill(arguments.entries)
        print(f'{arguments.entries} entries, {arguments.storage}; made in {time.monotonic() - begin:.0f} s')
        for name, command in commands(Path(folder), keys, campaigns):
            seconds = []
            for _ in range(arguments.repeats):
                begin = time.monotonic()
                command()
                seconds.append(time.monotonic() - begin)
            print(f'{name:58} {median(seconds):7.3f} s  (slowest {max(seconds):.3f})', flush=True)
        begin = time.monotonic()
        subprocess.run([str(BIN / 'aiida-oodal'), 'queue', 'show', keys[0]], check=True, stdout=subprocess.DEVNULL)
        print(f'{"aiida-oodal queue show KEY, from a shell":58} {time.monotonic() - begin:7.3f} s')
        get_manager().reset_profile()  # our connection ends before the server does


def fill(count: int, campaigns: list[str] | None = None) -> tuple[list[str], list[str]]:
    """Put structures and their entries into the database; return the keys of all, and the UUIDs of who asked.

    :param campaigns: UUIDs of processes that ask, in turns; without them processes are made that do nothing else.
    """
    from aiida import orm
    from aiida.manage import get_manager
    from aiida.orm.entities import EntityTypes
    from ase.build import bulk

    from aiida_oodal.queue import EXTRA, LevelOfTheory, enqueue

    storage: Any = get_manager().get_profile_storage()
    level = LevelOfTheory('oodal.label.pw', {'ecutwfc': 60}, 'PBE, 60 Ry')
    if campaigns is None:
        campaigns = [orm.WorkChainNode(label=f'campaign {number}').store().uuid for number in range(CAMPAIGNS)]
    atoms = bulk('Al', cubic=True).repeat(2)
    atoms.symbols[:8] = 'Cu'
    model = orm.StructureData(ase=atoms).store()
    entry = enqueue([model], level)[model.uuid].to_extra()  # makes the indexes
    attributes = model.base.attributes.all
    statuses = [status for status, share in SHARES.items() for _ in range(share)]
    keys = []
    for start in range(0, count, CHUNK):
        rows = []
        for number in range(start, min(start + CHUNK, count)):
            node = str(uuid.uuid4())
            key = f'q{number * 7919 % 16**6:06x}{number:018x}'
            keys.append(key)
            extra = {
                **entry,
                'node': node,
                'key': key,
                'status': statuses[number % len(statuses)],
                'campaigns': [campaigns[number // 100 % len(campaigns)]],
                'gamma': 2.0 + number % 1000 / 10,
                'elements': ['Al', 'Cu'] if number % 2 else ['Al'],
                'reason': 'the SCF did not converge' if number % 100 > 90 else None,
            }
            rows.append(
                {
                    'uuid': node,
                    'node_type': model.node_type,
                    'user_id': model.user.pk,
                    'attributes': attributes,
                    'extras': {EXTRA: extra},
                }
            )
        with storage.transaction():
            storage.bulk_insert(EntityTypes.NODE, rows, allow_defaults=True)
    return keys, campaigns


def commands(folder: Path, keys: list[str], campaigns: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is timed."""
    from aiida import orm
    from ase.build import bulk
    from click.testing import CliRunner

    from aiida_oodal.cli import main as command_line
    from aiida_oodal.data import StructureSetData
    from aiida_oodal.queue import claim, count_entries, release

    def call(*words: str) -> Callable[[], None]:
        def command() -> None:
            result = CliRunner().invoke(command_line, ['queue', *words])
            if result.exit_code:
                raise SystemExit(f'{words}: {result.output} {result.exception!r}')

        return command

    for words in (
        ('list',),
        ('list', '--status', 'FAILED', '--newer-than', '2d'),
        ('list', '--campaign', campaigns[0]),
        ('list', '--element', 'Cu', '--gamma-above', '50'),
        ('show', keys[len(keys) // 2][:12]),
        ('levels',),
        ('prioritise', '3', keys[1]),
        ('prioritise', '3', '--campaign', campaigns[3]),
        ('export', str(folder / 'out.extxyz'), '--campaign', campaigns[0], '--status', 'FAILED'),
        ('retry', '--campaign', campaigns[1]),
        ('reject', '--campaign', campaigns[2], '--status', 'PENDING_DFT', '--reason', 'too many'),
    ):
        shown = ' '.join('CAMPAIGN' if word in campaigns else 'KEY' if word.startswith('q') else word for word in words)
        yield f'aiida-oodal queue {shown.replace(str(folder) + "/", "")}', call(*words)
    numbers = iter(range(10**6))

    def add() -> None:
        frames = []
        for _ in range(100):
            frames.append(bulk('Cu', cubic=True))
            frames[-1].positions[1] += 1e-4 * next(numbers)
        call('add', str(StructureSetData(frames).store().pk))()

    yield 'aiida-oodal queue add SET of 100 structures', add

    def take() -> None:
        owner = str(uuid.uuid4())
        wanted = keys[:2000]
        release([entry.key for entry in claim(owner, keys=wanted, n=20)], owner)

    yield 'a labeller of 2000 structures takes 20, and lets go', take
    yield 'counts of all entries by status', count_entries
    yield (
        'the query of a user: entries by status, PKs',
        lambda: (
            orm.QueryBuilder()
            .append(orm.StructureData, filters={'extras.oodal_queue.status': 'FAILED'}, project='id')
            .all(flat=True)
        ),
    )


if __name__ == '__main__':
    sys.exit(main())
