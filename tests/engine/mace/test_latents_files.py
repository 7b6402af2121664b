from __future__ import annotations

import contextlib
import json
import shutil

import numpy as np
import pytest

from aiida_oodal.engine.content import N_NUMBERS
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.latents_files import Columns, LatentsFiles, finish_interrupted

SIZES = [2, 3, 1, 4]
FEATURES = 5
HEADER = {'models': {'w1': {}, 'w2': {}}, 'settings': {'forces': True}, 'start': 10}


def columns():
    return {'w1': Columns(FEATURES, np.dtype('f4'), forces=True), 'w2': Columns(FEATURES, np.dtype('f8'), forces=True)}


def rows(n_atoms, seed):
    random = np.random.default_rng(seed)
    arrays = {'numbers': random.integers(1, 30, n_atoms)}
    arrays |= {'fingerprints': random.normal(size=(1, N_NUMBERS)), 'isolated': np.array([seed == 2])}
    for label in ('w1', 'w2'):
        arrays |= {
            f'latents_{label}': random.normal(size=(n_atoms, FEATURES)),
            f'forces_{label}': random.normal(size=(n_atoms, 3)),
            f'energies_{label}': random.normal(size=1),
        }
    return arrays


def write_some(files, count=4):
    """Write structures 10, 12, 13, ...; 11 and the one after the last fail."""
    for place, size in enumerate(SIZES[:count]):
        files.append([10 if place == 0 else 11 + place], [size], rows(size, place))
        if place == 0:
            files.fail({'structure': 11, 'message': 'positions must be finite'})
    files.fail({'structure': 11 + count, 'message': 'the frame has no atoms'})


@pytest.fixture
def killed(tmp_path):
    """Return a folder as a killed job leaves it: nothing is closed."""
    folder = tmp_path / 'job'
    folder.mkdir()
    files = LatentsFiles(folder, columns(), HEADER)
    write_some(files)
    shutil.copytree(folder, tmp_path / 'killed')
    files._close()
    return tmp_path / 'killed'


def load(folder):
    return {path.stem: np.load(path, allow_pickle=False) for path in folder.glob('*.npy')}


def check(folder, n_structures):
    """Check that a folder holds the first structures, whole and true."""
    arrays = load(folder)
    assert len(arrays) == 11
    n_atoms = sum(SIZES[:n_structures])
    assert arrays['offsets'].tolist() == np.cumsum([0, *SIZES[:n_structures]]).tolist()
    assert arrays['structure_index'].tolist() == [10, 12, 13, 14][:n_structures]
    for name, array in arrays.items():
        if name in ('offsets', 'structure_index'):
            continue
        own = name.startswith('energies') or name in ('fingerprints', 'isolated')
        assert len(array) == (n_structures if own else n_atoms)
        expected = [rows(size, place)[name] for place, size in enumerate(SIZES[:n_structures])]
        np.testing.assert_allclose(array, np.concatenate(expected) if expected else array, rtol=1e-6)
    assert arrays['latents_w1'].dtype == np.float32
    assert arrays['latents_w2'].dtype == np.float64


def test_a_complete_job_is_whole_and_stays_as_it_is(tmp_path):
    with LatentsFiles(tmp_path, columns(), HEADER) as files:
        write_some(files)
        files.complete({'total': 1.5}, budget={'edges': 5})
    check(tmp_path, 4)
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['next_structure'] is None
    assert (results['n_structures'], results['n_atoms'], results['start']) == (4, 10, 10)
    assert [failure['structure'] for failure in results['failures']] == [11, 15]
    assert (results['timings'], results['budget']) == ({'total': 1.5}, {'edges': 5})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert finish_interrupted(tmp_path) == results
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert 'failures.jsonl' not in before


def test_what_a_killed_job_wrote_is_kept(killed):
    assert np.load(killed / 'numbers.npy').shape == (0,)  # the header was not final
    results = finish_interrupted(killed)
    check(killed, 4)
    assert results == json.loads((killed / 'results.json').read_text())
    assert (results['n_structures'], results['n_atoms'], results['next_structure']) == (4, 10, 15)
    # the job that goes on meets structure 15 again
    assert [failure['structure'] for failure in results['failures']] == [11]
    assert finish_interrupted(killed) == results


@pytest.mark.parametrize('name', ['latents_w2', 'forces_w1', 'energies_w1', 'numbers', 'offsets', 'structure_index'])
@pytest.mark.parametrize('missing_bytes', [1, 9])
def test_a_half_written_structure_is_cut_off(name, missing_bytes, killed):
    # killed while it wrote the last structure: files are written in the order in which they are listed here
    order = ['latents_w1', 'energies_w1', 'forces_w1', 'latents_w2', 'energies_w2', 'forces_w2', 'numbers']
    order += ['offsets', 'structure_index']
    sizes = {'latents_w1': 4 * 20, 'latents_w2': 4 * 40, 'forces_w1': 48, 'forces_w2': 96, 'numbers': 32}
    for later in order[order.index(name) :]:
        path = killed / f'{later}.npy'
        cut = min(missing_bytes, sizes.get(later, 8)) if later == name else sizes.get(later, 8)
        with path.open('r+b') as handle:
            handle.truncate(path.stat().st_size - cut)
    results = finish_interrupted(killed)
    assert results['n_structures'] == 3
    assert results['next_structure'] == 14
    check(killed, 3)


def test_a_job_killed_before_its_first_structure_begins_anew(tmp_path):
    files = LatentsFiles(tmp_path, columns(), HEADER)
    files.fail({'structure': 10, 'message': 'no atoms'})
    results = finish_interrupted(tmp_path)
    files._close()
    check(tmp_path, 0)
    assert (results['n_structures'], results['next_structure'], results['failures']) == (0, 10, [])


def test_a_line_of_failures_that_was_cut_is_left_out(killed):
    with (killed / 'failures.jsonl').open('a') as handle:
        handle.write('{"structure": 12, "mess')
    assert [failure['structure'] for failure in finish_interrupted(killed)['failures']] == [11]


def test_an_error_leaves_true_headers(tmp_path):
    with contextlib.suppress(KeyError), LatentsFiles(tmp_path, columns(), HEADER) as files:
        write_some(files, 2)
        raise KeyError('the job')
    check(tmp_path, 2)
    assert finish_interrupted(tmp_path)['next_structure'] == 13


def test_folders_without_a_job_and_damaged_files_are_refused(tmp_path, killed):
    with pytest.raises(OodalError, match=r'results.json is not that of a latents job'):
        finish_interrupted(tmp_path)
    with (killed / 'latents_w1.npy').open('r+b') as handle:
        handle.truncate(140)
    with pytest.raises(OodalError, match=r'latents_w1.npy is 140 bytes long where 10 rows need 328'):
        finish_interrupted(killed)
    (killed / 'offsets.npy').unlink()
    with pytest.raises(OodalError, match=r'before its files were begun \(offsets.npy is missing'):
        finish_interrupted(killed)
