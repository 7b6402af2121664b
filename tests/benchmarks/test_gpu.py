"""The benchmark for a GPU runs on a CPU with small sizes: who has a card finds a script that works."""

import subprocess
import sys
from pathlib import Path

import pytest
from machine import require

require('mace')

SCRIPT = Path(__file__).parents[2] / 'benchmarks' / 'gpu.py'


@pytest.mark.slow
def test_all_parts_run_and_what_is_asked_is_met():
    command = [sys.executable, '-W', 'ignore', str(SCRIPT), '--device', 'cpu', '--small']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith('all met')
    for part in ('get_descriptors', 'kB/edge', 'fallback: 241', 'MD of Al', 'training, protocol quick'):
        assert any(part in line for line in lines), part
    assert 'MISSED' not in done.stdout
