"""Several structures at a time: the same labels, and whatever dies, dies alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.workers import label_all

EMT = {'calculator': 'emt', 'parameters': {}}
#: A calculator that remembers: each energy depends on how many structures it has seen.
MODULE = """
import os, signal, time
from ase.calculators.calculator import Calculator, all_changes

class Counting(Calculator):
    implemented_properties = ['energy', 'forces']
    default_parameters = {'die_at': None, 'sleep': 0.0}
    seen = 0

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if atoms.info.get('name', '') == self.parameters.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.parameters.sleep)
        self.seen += 1
        self.results = {'energy': float(self.seen), 'forces': atoms.positions * self.seen}

class Dying(Calculator):
    def __init__(self, **kwargs):
        os._exit(3)
"""


@pytest.fixture
def counting(tmp_path, monkeypatch):
    (tmp_path / 'remembering.py').write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda **more: {'calculator': 'remembering:Counting', **more}


def crystals(count):
    frames = []
    for seed in range(count):
        atoms = bulk('Al', cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.info['name'] = f'n{seed}'
        frames.append(atoms)
    return frames


def label(structures, spec, folder, workers):
    results = {result.index: result for result in label_all(structures, spec, folder=folder, workers=workers)}
    assert sorted(results) == list(range(len(structures)))
    return [results[index] for index in range(len(structures))]


def test_labels_do_not_depend_on_the_number_of_workers(tmp_path):
    structures = [*crystals(5), *(bulk(symbol, cubic=True) for symbol in ('Cu', 'Au'))]
    alone, together = (label(structures, EMT, tmp_path, workers) for workers in (1, 3))
    for one, other in zip(alone, together, strict=True):
        assert one.atoms.info['REF_energy'] == other.atoms.info['REF_energy']
        assert np.array_equal(one.atoms.arrays['REF_forces'], other.atoms.arrays['REF_forces'])
    assert list(tmp_path.iterdir()) == []


def test_a_calculator_that_remembers_labels_as_if_each_structure_were_the_first(tmp_path, counting):
    energies = [result.atoms.info['REF_energy'] for result in label(crystals(4), counting(), tmp_path, 2)]
    assert energies == [1.0] * 4
    # who says that it keeps nothing gets one for all
    energies = [r.atoms.info['REF_energy'] for r in label(crystals(4), counting(reuse=True), tmp_path, 1)]
    assert energies == [1.0, 2.0, 3.0, 4.0]


def test_xtb_labels_do_not_depend_on_what_was_labelled_before(tmp_path):
    require('tblite')
    spec = {'calculator': 'tblite.ase:TBLite', 'parameters': {'method': 'GFN1-xTB', 'verbosity': 0}}
    structures = []
    for seed in range(4):
        atoms = molecule('H2O')
        atoms.rattle(0.05, seed=seed)
        structures.append(atoms)
    alone = label(structures, spec, tmp_path, 1)
    together = label(structures[::-1], spec, tmp_path, 2)[::-1]
    for one, other in zip(alone, together, strict=True):
        assert one.atoms.info['REF_energy'] == other.atoms.info['REF_energy']
        assert np.array_equal(one.atoms.arrays['REF_forces'], other.atoms.arrays['REF_forces'])


@pytest.mark.parametrize('workers', [1, 2])
def test_a_structure_that_kills_the_calculator_costs_only_itself(tmp_path, counting, workers):
    results = label(crystals(4), counting(parameters={'die_at': 'n1'}), tmp_path, workers)
    assert [result.atoms is not None for result in results] == [True, False, True, True]
    assert 'the calculator died by signal 9 at structure 1 (4 atoms of Al)' in results[1].message


def test_a_calculator_that_cannot_be_made_is_told_at_once(tmp_path, counting):
    with pytest.raises(OodalError, match="'emtt' cannot be found"):
        list(label_all(crystals(3), {'calculator': 'emtt'}, folder=tmp_path, workers=2))
    with pytest.raises(OodalError, match='the process that makes the calculator died with status 3'):
        list(label_all(crystals(3), {'calculator': 'remembering:Dying'}, folder=tmp_path, workers=1))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name.startswith('worker')] == []


@pytest.mark.parametrize('name', ['gaussian', 'espresso', 'vasp'])
def test_a_program_that_is_missing_is_told_once_and_not_for_each_structure(tmp_path, monkeypatch, name):
    monkeypatch.setenv('PATH', '/usr/bin:/bin')
    with pytest.raises(OodalError, match=r"'\w+' has no program on this computer .*ASE_CONFIG_PATH"):
        list(label_all(crystals(3), {'calculator': name}, folder=tmp_path, workers=1))


def test_what_fails_fails_alone(tmp_path):
    structures = [*crystals(1), Atoms('Na2', positions=[[0, 0, 0], [0, 0, 3]]), *crystals(1)]
    results = label(structures, EMT, tmp_path, 2)
    assert [result.message == '' for result in results] == [True, False, True]
    assert 'structure 1 (2 atoms of Na)' in results[1].message


ENDLESS = """
import sys
from pathlib import Path
from ase.build import bulk
sys.path.insert(0, {module!r})
from aiida_oodal.engine.label.workers import label_all
spec = {{'calculator': 'remembering:Counting', 'parameters': {{'sleep': 0.5}}}}
for result in label_all([bulk('Al', cubic=True)] * 500, spec, folder=Path({folder!r}), workers=2):
    print(result.index, flush=True)
"""


def test_workers_end_when_their_job_is_killed(tmp_path, counting):
    root = str(Path(__file__).parents[3])
    script = ENDLESS.format(module=str(tmp_path), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, '-c', script], cwd=root, stdout=subprocess.PIPE, text=True) as job:
        job.stdout.readline()
        crew = psutil.Process(job.pid).children()
        assert len(crew) == 2
        os.kill(job.pid, signal.SIGKILL)
        end = time.monotonic() + 60
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in crew):
            assert time.monotonic() < end
            time.sleep(0.1)
