"""Real trainings of a few seconds."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from ase.units import GPa
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import ERROR_FILE, MODEL_FILE, RESULTS_FILE
from aiida_oodal.engine.mace.train import job as command
from aiida_oodal.engine.mace.train.data import WORK_FOLDER
from aiida_oodal.engine.mace.train.job import EXIT_FAILED, run_job
from aiida_oodal.engine.structures import StructureSet

from .conftest import E0, label

require('mace')
torch = importlib.import_module('torch')

MACE_ALCU = Path(__file__).parents[3] / 'data' / 'mace_alcu'
TRAINED: dict[str, object] = {}


def load(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.load(path, weights_only=False)


def weights(folder):
    """Return the parameters of the model that a job wrote."""
    return {name: value.detach().numpy() for name, value in load(folder / MODEL_FILE).named_parameters()}


def same(one, other):
    return {name: bool(np.array_equal(one[name], other[name])) for name in one}


@pytest.fixture
def first(make_job, tmp_path_factory):
    """Return job and folder of one training from scratch that many tests look at."""
    if not TRAINED:
        job, folder = make_job()
        run_job(job, folder)
        TRAINED.update(job=job, folder=folder.rename(tmp_path_factory.mktemp('trained') / 'job'))
    return TRAINED['job'], TRAINED['folder']


def test_it_learns_and_says_so(first, results):
    job, folder = first
    found = results(folder)
    assert (found['complete'], found['outcome'], found['message']) == (True, 'completed', '')
    assert found['initial_loss'] > 20 * found['kept_loss']
    assert (found['updates_per_epoch'], found['epochs']) == (5, 10)
    assert found['updates'] == found['updates_here'] == found['target_updates'] == 50
    assert [updates for updates, _ in found['history']] == list(range(0, 55, 5))
    assert found['trained_on'] == ['energy', 'forces', 'stress']
    assert found['E0s'] == {'Al': E0}
    assert found['isolated_below_E0']['Al'] == pytest.approx(0.0, abs=1e-5)
    assert found['settings'] == job['settings']
    one, two = found['training_parts']
    assert (one['file'], one['n_structures'], two['n_structures']) == ('training_a.npz', 12, 8)
    assert found['training']['n_atoms'] == 80
    assert set(found['versions']) == {'mace-torch', 'torch', 'e3nn'}


@pytest.mark.filterwarnings('ignore')
def test_errors_are_those_of_the_written_model(first, results, calculator, cells):
    _, folder = first
    judge = calculator(folder / MODEL_FILE, 'float32')
    energies, forces, stresses = [], [], []
    for atoms in cells[20:]:
        asked = atoms.copy()
        asked.calc = judge
        energies.append((asked.get_potential_energy() - atoms.info['REF_energy']) / len(atoms))
        forces.append(asked.get_forces() - atoms.arrays['REF_forces'])
        stresses.append((asked.get_stress() - atoms.info['REF_stress']) / (1000 * GPa))
    judged = results(folder)['validation']
    for name, deviation in (('energy', energies), ('force', forces), ('stress', stresses)):
        assert judged[f'{name}_rmse'] == pytest.approx(1000 * np.sqrt(np.mean(np.square(deviation))), rel=1e-3), name
    assert judged['by_element']['Al']['force_rmse'] == pytest.approx(judged['force_rmse'])


def test_every_evaluation_prints_how_far_it_is(make_job, capsys, values):
    job, folder = make_job(settings=values(updates=10))
    run_job(job, folder)
    lines = capsys.readouterr().out.splitlines()
    assert '20 structures, 10 updates in 2 epochs, from scratch' in lines
    assert lines[-2].startswith('update 10 of 10 (epoch 2 of 2): validation loss=')
    assert lines[-1].startswith('completed after 10 updates in')


def masked(cells, spoilt):
    """Return cells of which half of the atoms are masked, their forces and the energies of these cells spoilt."""
    random = np.random.default_rng(0)
    for atoms in cells[:12]:
        atoms.arrays['force_mask'] = (np.arange(len(atoms)) < 2).astype(float)
        atoms.arrays['REF_forces'][2:] += spoilt * random.normal(size=(len(atoms) - 2, 3))
        atoms.info['REF_energy'] += spoilt
        atoms.info['REF_stress'] = atoms.info['REF_stress'] + spoilt * 0.01
    return cells


def test_masked_labels_do_not_matter_at_all(make_job, values, cells, results):
    found = {}
    for name, spoilt, mode in (('clean', 0.0, 'mask'), ('spoilt', 1.0, 'mask'), ('full', 1.0, 'full')):
        structures = masked([atoms.copy() for atoms in cells], spoilt)
        job, folder = make_job(name, structures, settings=values(updates=10, weights=mode))
        run_job(job, folder)
        found[name] = weights(folder)
    assert all(same(found['clean'], found['spoilt']).values())
    assert not all(same(found['clean'], found['full']).values())
    judged = results(folder)['training_parts'][0]
    assert (judged['core_fraction'], judged['core']['n_energies'], judged['n_energies']) == (0.5, 0, 12)
    assert judged['core']['force_rmse'] < judged['force_rmse']


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_checkpoint(make_job, values, results):
    job, folder = make_job(settings=values(updates=250, evaluations=50))
    (folder / 'job.json').write_text(json.dumps(job))
    run = [sys.executable, '-W', 'ignore', '-m', 'aiida_oodal.engine', 'train-mace', 'job.json']
    process = subprocess.Popen(run, cwd=folder, env=os.environ | {'OMP_NUM_THREADS': '1'})
    while not (folder / RESULTS_FILE).exists() or len(results(folder)['history']) < 4:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    left = results(folder)
    assert (left['complete'], left['outcome']) == (False, None)
    assert 0 < left['updates'] < left['target_updates']
    assert not (folder / MODEL_FILE).exists()

    run_job(job, folder)
    found = results(folder)
    assert found['resumed_at_epoch'] > 0
    assert found['updates_here'] == 5 * (found['epochs'] - found['resumed_at_epoch'])
    assert found['history'][: len(left['history'])] == left['history']
    assert [updates for updates, _ in found['history']].count(0) == 1
    assert found['kept_loss'] < left['history'][1][1]

    with pytest.raises(OodalError, match='the earlier job was another training'):
        run_job(job | {'seed': 2}, folder)


def start_from(first, folder):
    (folder / 'start.model').write_bytes((first[1] / MODEL_FILE).read_bytes())


@pytest.mark.parametrize(
    ('freeze', 'fixed'), [('nothing', ()), ('products', ('node_embedding', 'interactions', 'products'))]
)
def test_it_starts_where_another_model_ended(first, make_job, values, results, freeze, fixed):
    job, folder = make_job(start='start.model', settings=values(updates=10, learning_rate=0.01, freeze=freeze))
    start_from(first, folder)
    run_job(job, folder)
    assert results(folder)['initial_loss'] == pytest.approx(results(first[1])['kept_loss'], rel=1e-4)
    unchanged = {name for name, equal in same(weights(first[1]), weights(folder)).items() if equal}
    assert {name.split('.')[0] for name in unchanged} >= set(fixed)
    assert not any(name.startswith('readouts') for name in unchanged)


def test_multihead_fine_tuning_replays_what_the_model_knew(make_job, values, results):
    job, folder = make_job(
        start='start.model',
        replay='replay.npz',
        settings=values(updates=8, E0s='foundation', overrides={'max_ell': None, 'num_channels': None}),
    )
    (folder / 'start.model').write_bytes((MACE_ALCU / 'w1.model').read_bytes())
    StructureSet.from_atoms(read(MACE_ALCU / 'train.extxyz', ':6')).save(folder / 'replay.npz')
    run_job(job, folder)
    found = results(folder)
    assert found['model']['heads'] == ['pt_head', 'Default']
    assert found['elements'] == ['Al', 'Cu']
    assert found['updates_here'] == found['target_updates']
    assert found['learning_rate'] == 1e-4
    assert found['E0s']['Al'] == pytest.approx(E0, abs=1e-5)
    # the model that it started from is a ScaleShiftMACE: this is what the results warn of
    assert found['isolated_below_E0']['Al'] > 1.0


def test_a_label_that_cannot_be_true_ends_the_training_at_once(make_job, cells, results):
    cells[3].arrays['REF_forces'][1] = 1e25
    job, folder = make_job(structures=cells)
    with pytest.raises(SystemExit) as stopped:
        run_job(job, folder)
    assert stopped.value.code == EXIT_FAILED
    found = results(folder)
    assert found['outcome'] == 'diverged'
    assert 'the loss became' in found['message']
    assert found['updates_here'] < 5
    assert not (folder / MODEL_FILE).exists()


def test_a_training_that_made_it_worse_is_told(first, make_job, values, results):
    job, folder = make_job(start='start.model', settings=values(updates=5, learning_rate=1.0))
    start_from(first, folder)
    run_job(job, folder)
    found = results(folder)
    assert found['outcome'] == 'no_improvement'
    assert found['kept_loss'] > found['initial_loss']
    assert 'before training' in found['message']
    assert (folder / MODEL_FILE).exists()


def test_what_mace_raises_is_in_the_results(make_job, values, results):
    job, folder = make_job(
        settings=values(overrides={'hidden_irreps': '8x0e + 4x1o', 'num_channels': None, 'max_L': None})
    )
    with pytest.raises(SystemExit):
        run_job(job, folder)
    found = results(folder)
    assert found['outcome'] == 'failed'
    assert 'All channels must have the same dimension' in found['message']


UNDER_LIMIT = """
import json, resource, warnings
from pathlib import Path
warnings.simplefilter('ignore')
import mace.cli.run_train
from aiida_oodal.engine.mace.train.job import run_job
size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 3 * 10**8, resource.RLIM_INFINITY))
run_job(json.loads(Path('job.json').read_text()), Path('.'))
"""


def test_memory_that_runs_out_is_told(make_job, values, results):
    large = {'num_channels': 128, 'max_L': 1, 'max_ell': 3}
    job, folder = make_job(settings=values(batch_size=20, updates=1, overrides=large))
    (folder / 'job.json').write_text(json.dumps(job))
    done = subprocess.run([sys.executable, '-c', UNDER_LIMIT], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_FAILED, done.stderr
    assert results(folder)['outcome'] == 'out_of_memory'


def test_a_model_that_is_not_there_is_a_failure(first, make_job, results, monkeypatch):
    job, folder = make_job()
    ended = command.Ending('completed', '', 50)
    monkeypatch.setattr(command, 'run_mace', lambda *_, **__: ended)
    with pytest.raises(SystemExit):
        run_job(job, folder)
    assert results(folder)['message'] == 'mace_run_train ended without a model'


def test_a_model_of_nans_is_no_model(first, make_job, results, monkeypatch):
    job, folder = make_job()
    broken = load(first[1] / MODEL_FILE)
    with torch.no_grad():
        broken.readouts[0].linear.weight.fill_(float('nan'))

    def write_it(*_, **__):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.save(broken, folder / MODEL_FILE)
        return command.Ending('completed', '', 50)

    monkeypatch.setattr(command, 'run_mace', write_it)
    with pytest.raises(SystemExit):
        run_job(job, folder)
    assert results(folder)['outcome'] == 'diverged'
    assert 'not finite' in results(folder)['message']


def copper(folder):
    StructureSet.from_atoms([label(bulk('Cu', cubic=True))]).save(folder / 'copper.npz')


def unlabelled(folder):
    StructureSet.from_atoms([bulk('Al', cubic=True)]).save(folder / 'unlabelled.npz')


def isolated(folder):
    StructureSet.from_atoms([label(Atoms('Al'))]).save(folder / 'isolated.npz')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'training': []}, "lacks 'training'"),
        ({'training': 'training_a.npz'}, '"training" must be a list'),
        ({'seed': None}, "lacks 'seed'"),
        ({'settings': {'updates': 3}}, r'settings of the train-mace job lack .*MaceTrainSettings\(...\).to_values'),
        ({'training': ['none.npz']}, r'none\.npz cannot be read'),
        ({'validation': 'copper.npz'}, r'copper\.npz has Cu, which the training data \(Al\) lack'),
        ({'training': ['training_a.npz', 'copper.npz']}, 'no energy of an isolated atom of Cu'),
        ({'training': ['unlabelled.npz']}, r'unlabelled\.npz: structure 0 has neither REF_energy nor REF_forces'),
        ({'training': ['isolated.npz']}, r'isolated\.npz: the set has no structure to train on'),
        ({'replay': 'training_b.npz'}, 'need a model to start from'),
        ({'start': 'none.model'}, r'none\.model does not exist'),
        ({'change': {'batch_size': 21}}, r'batch_size = 21 is larger than the training set \(20 structures\)'),
        ({'change': {'E0s': {'Al': -500.0}}}, 'labels and E0s are not of the same method'),
        ({'change': {'device': 'cuda'}}, 'torch sees no GPU'),
    ],
)
def test_wrong_jobs_are_explained(make_job, values, change, message):
    settings = values(**change.pop('change', {}))
    job, folder = make_job(settings=settings)
    for write in (copper, unlabelled, isolated):
        write(folder)
    if 'cuda' in settings['device']:
        require('no_gpu')
    with pytest.raises(OodalError, match=message):
        run_job(job | change, folder)
    assert not (folder / MODEL_FILE).exists()


def test_the_command_is_one_of_the_engine(make_job, values):
    job, folder = make_job(settings=values(batch_size=50))
    (folder / 'job.json').write_text(json.dumps(job))
    run = [sys.executable, '-W', 'ignore', '-m', 'aiida_oodal.engine', 'train-mace', 'job.json']
    assert subprocess.run(run, cwd=folder, check=False, capture_output=True).returncode == 1
    assert 'batch_size = 50' in json.loads((folder / ERROR_FILE).read_text())['message']


def test_nothing_of_the_run_stays_in_this_process(first, tmp_path):
    import logging

    from mace.cli import run_train

    assert torch.get_default_dtype() == torch.float32
    assert not [
        handler for handler in logging.getLogger().handlers if WORK_FOLDER in getattr(handler, 'baseFilename', '')
    ]
    assert run_train.get_loss_fn.__module__ == 'mace.tools.scripts_utils'
