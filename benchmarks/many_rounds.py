"""A campaign of many rounds through a real daemon, and what each round cost.

Everything in it is as small as it can be: one walker of 32 hot atoms that always halts, at most two clusters of about
70 atoms, EMT, a linear ACE of 20 functions. What is left is what AiiDA and the campaign themselves need for a round.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from throughput import sizes

#: Seconds between two looks at the campaign.
POLL = 1.0
#: Over how many rounds a row of the table is averaged.
ROW = 5


@dataclass(frozen=True)
class Mark:
    """The state of things at the moment at which a round began.

    :param time: monotonic [s].
    :param cpu: of the workers since they were started [s]; jobs do not count.
    :param resident: largest resident memory of a worker [bytes].
    :param database: bytes.
    :param repository: bytes.
    :param checkpoint: of the campaign, bytes.
    """

    time: float
    cpu: float
    resident: float
    database: float
    repository: float
    checkpoint: float


def build_campaign(rounds: int, hours: float) -> Any:
    """Return the builder of the campaign.

    :param hours: after which no round begins.
    """
    from aiida.orm import Dict
    from ase.build import bulk

    from aiida_oodal.calculations.codes import get_engine_code
    from aiida_oodal.calculations.make_crystals import make_crystals
    from aiida_oodal.data import StructureSetData
    from aiida_oodal.operations.computers import find_computer
    from aiida_oodal.operations.launch import run_once
    from aiida_oodal.workchains.campaign import CampaignWorkChain

    return CampaignWorkChain.get_builder_from_protocol(
        code=get_engine_code(),
        computer=find_computer('localhost'),
        protocol='quick',
        initial_structures=run_once(make_crystals, settings=Dict({'count': 4})),
        walkers={
            'hot': {
                'structure': StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)]),
                'settings': {'ensemble': 'nvt', 'temperature': 3000, 'steps': 20000, 'gamma_every': 5},
            }
        },
        overrides={
            # An environment beyond all that were ever seen, by however little: a liquid always finds one.
            'thresholds': {'gamma_select': 1.005, 'gamma_break': 1.01, 'gamma_ceiling': 1000},
            'carve': {'radius': 3.0, 'buffer': 2.0, 'centres_per_snapshot': 2},
            'select': {'max_clusters': 2},
            'label': {'calculator': {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}},
            'train': {'number_of_functions': 20, 'max_functions': 20, 'cutoff': 4.5},
            'audit': {'frames': 0},
            'max_rounds': rounds,
            'budget': {'hours': hours},
        },
    )


def follow_rounds(campaign: Any) -> Iterator[Mark]:
    """Yield a mark whenever a round of the campaign begins, and one when it ends."""
    begun = 0
    while not campaign.is_terminated:
        count = count_begun(campaign)
        if count > begun:
            begun = count
            yield take_mark(campaign)
        time.sleep(POLL)
    yield take_mark(campaign)


def count_begun(campaign: Any) -> int:
    """Return how many rounds have begun."""
    from aiida import orm

    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': campaign.pk}, tag='campaign')
    query.append(orm.WorkChainNode, with_incoming='campaign', edge_filters={'label': {'like': 'explore_%_hot'}})
    return int(query.count())


def take_mark(campaign: Any) -> Mark:
    """Look at the workers, the database and the repository."""
    from aiida_oodal.operations.daemon import find_daemon_processes

    workers = [process for process in find_daemon_processes() if process.info['cmdline'][-1] == 'worker']
    times = [worker.cpu_times() for worker in workers]
    return Mark(
        time=time.monotonic(),
        cpu=sum(entry.user + entry.system for entry in times),
        resident=max((worker.memory_info().rss for worker in workers), default=0.0),
        database=sizes()[0],
        repository=sizes()[1],
        checkpoint=float(len(campaign.checkpoint or '')),
    )


def print_rounds(marks: Sequence[Mark]) -> None:
    """Print a table of rounds, and how what a round costs grows with its number."""
    columns = read_columns(marks)
    names = ', '.join(columns)
    print(f'\n{len(marks) - 1} rounds; means of {ROW} rounds: {names}')
    print(f'| rounds | {" | ".join(columns)} |')
    print(f'|{"---|" * (len(columns) + 1)}')
    count = len(marks) - 1
    for first in range(0, count, ROW):
        last = min(first + ROW, count)
        values = ' | '.join(f'{values[first:last].mean():.4g}' for values in columns.values())
        print(f'| {first + 1}-{last} | {values} |')
    if count > 2 * ROW:
        for name, values in columns.items():
            print(f'{name}: {describe_growth(values)}')


def read_columns(marks: Sequence[Mark]) -> dict[str, np.ndarray]:
    """Return what each round took, by name, shape (n_rounds,); of memory and checkpoint what there was at its end."""

    def read(name: str) -> np.ndarray:
        return np.array([getattr(mark, name) for mark in marks])

    return {
        'wall [s]': np.diff(read('time')),
        'CPU of workers [s]': np.diff(read('cpu')),
        'database [kB]': np.diff(read('database')) / 1e3,
        'repository [kB]': np.diff(read('repository')) / 1e3,
        'memory of the largest worker [MB]': read('resident')[1:] / 1e6,
        'checkpoint [kB]': read('checkpoint')[1:] / 1e3,
    }


def describe_growth(values: np.ndarray) -> str:
    """Say how a straight line through all rounds but the first few rises, relative to its begin."""
    numbers = np.arange(len(values))[ROW:]
    slope, start = np.polyfit(numbers, values[ROW:], 1)
    begin, end = (start + slope * numbers[[0, -1]]).tolist()
    return f'{begin:.4g} in round {ROW + 1}, {end:.4g} in round {len(values)} on the line of best fit'
