"""The commands `fit-reference` and `score`, as a compute node runs them."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.candidates import CandidateOptions
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.fit_job import open_shards, read_label_forces
from aiida_oodal.engine.ood.fit_job import run_job as fit
from aiida_oodal.engine.ood.fitting import FitOptions
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.score_job import run_job as score
from aiida_oodal.engine.ood.scores import OodScores

MODELS = {f'w{k}': {'sha256': f'{k}' * 64, 'cutoff': 5.0, 'layers': 'all', 'name': None} for k in range(1, 5)}


def read_folder(folder) -> dict:
    return {path.stem: np.load(path, allow_pickle=False) for path in folder.glob('*.npy')}


def write(folder, latents: EnsembleLatents) -> dict:
    """Write latents as a latents job leaves them and return the shard."""
    folder.mkdir()
    for name in ('numbers', 'offsets', 'structure_index', 'fingerprints', 'isolated'):
        if (values := getattr(latents, name)) is not None:
            np.save(folder / f'{name}.npy', values)
    for k, label in enumerate(latents.labels):
        np.save(folder / f'latents_{label}.npy', np.asarray(latents.latents[k]))
        np.save(folder / f'energies_{label}.npy', latents.energies[k])
        np.save(folder / f'forces_{label}.npy', np.asarray(latents.forces[k]))
    return {'folder': folder.name, 'labels': list(latents.labels)}


def known(latents: EnsembleLatents, seed: int) -> EnsembleLatents:
    rng = np.random.default_rng(seed)
    return replace(
        latents, fingerprints=rng.normal(size=(len(latents), 6)), isolated=np.zeros(len(latents), dtype=bool)
    )


@pytest.fixture
def sets(made_up, tmp_path):
    """Return the latents and the shards of a reference set in two shards, a held-out set and two targets."""
    whole = known(made_up(60), 1)
    heldout = known(made_up(40, 1), 2)
    hot = EnsembleLatents.concatenate([known(made_up(20, 3, shift=1.5), 4), whole.select(np.arange(3))])
    hot = replace(hot, structure_index=np.arange(23))
    latents = {'reference': whole, 'heldout': heldout, 'hot': hot, 'cold': known(made_up(30, 5), 6)}
    shards = {name: [write(tmp_path / name, own)] for name, own in latents.items() if name != 'reference'}
    parts = whole.select(np.arange(25)), whole.select(np.arange(25, 60))
    shards['reference'] = [write(tmp_path / f'reference_{i}', part) for i, part in enumerate(parts)]
    return latents, shards


def run_fit(shards, folder, **changes):
    job = {
        'reference': shards['reference'],
        'heldout': shards['heldout'],
        'settings': FitOptions().plain(),
        'models': MODELS,
        **changes,
    }
    fit(json.loads(json.dumps(job)), folder)
    np.savez(folder / 'reference.npz', **read_folder(folder / 'reference'))
    return json.loads((folder / 'results.json').read_text())


def test_a_fitted_reference_is_the_same_as_in_memory(sets, tmp_path) -> None:
    latents, shards = sets
    results = run_fit(shards, tmp_path)
    again = OodReference.from_arrays(read_folder(tmp_path / 'reference'))
    expected = OodReference.fit(latents['reference'], latents['heldout'])
    for name, values in expected.to_arrays().items():
        if name != 'header':
            assert np.array_equal(again.to_arrays()[name], values, equal_nan=True), name
    assert again.models['w2'].sha256 == '2' * 64
    assert results['n_structures'] == 60
    assert results['n_heldout'] == 40
    assert results['judge'] == 'aligned_variance'
    assert 'overall' in results['metrics']
    assert results['settings']['metrics'] == list(FitOptions().for_models(4).metrics)


def test_labels_of_the_held_out_set_give_force_errors(sets, tmp_path) -> None:
    latents, shards = sets
    # The labelled set has two structures that could not be evaluated.
    heldout = latents['heldout']
    index = np.delete(np.arange(42), [0, 7])
    shards['heldout'] = [write(tmp_path / 'gaps', replace(heldout, structure_index=index))]
    labels = tmp_path / 'labels'
    labels.mkdir()
    sizes = np.full(42, 5)
    sizes[index] = np.diff(heldout.offsets)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    forces = np.random.default_rng(0).normal(size=(offsets[-1], 3))
    np.save(labels / 'offsets.npy', offsets)
    np.save(labels / 'REF_forces.npy', forces)
    assert 'predicted_error' in run_fit(shards, tmp_path, labels='labels')['metrics']
    opened = open_shards(tmp_path, shards['heldout'])
    rows = read_label_forces(labels, opened)
    assert np.array_equal(rows[: sizes[1]], forces[5 : 5 + sizes[1]])
    np.save(labels / 'offsets.npy', offsets[:30])
    with pytest.raises(OodalError, match='the labelled set has 29 structures, and the latents are of structure 41'):
        read_label_forces(labels, opened)
    sizes[3] += 1
    np.save(labels / 'offsets.npy', np.concatenate([[0], np.cumsum(sizes)]))
    with pytest.raises(OodalError, match='structure 3 of the labelled set has another number of atoms'):
        read_label_forces(labels, opened)


def test_all_sets_are_scored_and_candidates_chosen_in_one_job(sets, tmp_path) -> None:
    latents, shards = sets
    run_fit(shards, tmp_path)
    reference = OodReference.from_arrays(read_folder(tmp_path / 'reference'))
    job = {
        'sets': {name: shards[name] for name in ('hot', 'cold', 'heldout')},
        'candidates': CandidateOptions(level=0.95, n=5, method='farthest').plain(),
        'choose_from': ['hot', 'cold'],
    }
    score(json.loads(json.dumps(job)), tmp_path)
    results = json.loads((tmp_path / 'results.json').read_text())['sets']
    assert {name for name, found in results.items() if 'decisions' in found} == {'hot', 'cold'}
    for name in job['sets']:
        scores = OodScores.from_arrays(read_folder(tmp_path / 'scores' / name))
        expected = reference.score(latents[name])
        for metric, kinds in expected.per_structure.items():
            for kind, values in kinds.items():
                assert np.array_equal(scores.of(metric, kind), values)
    hot = results['hot']
    assert hot['n_known'] == 3
    assert hot['known'] == [[20, 'reference', 0], [21, 'reference', 1], [22, 'reference', 2]]
    assert results['heldout']['n_known'] == 40
    assert len(hot['decisions']['taken']) == 5
    assert {entry['structure'] for entry in hot['decisions']['taken']} <= set(range(20))
    assert hot['decisions']['left_out']['it is in the reference set'] == 3


def test_the_same_structure_is_not_a_candidate_twice(sets, tmp_path) -> None:
    latents, shards = sets
    run_fit(shards, tmp_path)
    again = EnsembleLatents.concatenate([latents['cold'].select(np.arange(2)), latents['hot'].select(np.arange(4))])
    twice = EnsembleLatents.concatenate([again, again.select([2])])
    shard = write(tmp_path / 'more', replace(twice, structure_index=np.arange(7)))
    job = {
        'sets': {'hot': shards['hot'], 'more': [shard]},
        'candidates': CandidateOptions(n=100).plain(),
        'choose_from': ['hot', 'more'],
    }
    score(json.loads(json.dumps(job)), tmp_path)
    results = json.loads((tmp_path / 'results.json').read_text())['sets']
    assert len(results['hot']['decisions']['taken']) == 20
    assert {entry['structure'] for entry in results['more']['decisions']['taken']} == {0, 1}
    assert results['more']['decisions']['left_out'] == {'it is in hot too': 5}


def test_what_is_wrong_is_named_with_its_set(sets, tmp_path, made_up) -> None:
    _, shards = sets
    run_fit(shards, tmp_path)
    one = made_up(5)
    two = EnsembleLatents.from_arrays(one.labels[:2], one.numbers, one.offsets, one.latents[:2])
    shard = write(tmp_path / 'two', replace(two, energies=one.energies[:2], forces=one.forces[:2]))
    with pytest.raises(OodalError, match='few: the reference was fitted to 12 latents of the models w1, w2, w3, w4'):
        score({'sets': {'few': [shard]}}, tmp_path)


def test_the_commands_run_where_there_is_no_pydantic(sets, tmp_path) -> None:
    _, shards = sets
    jobs = {
        'fit-reference': {**shards, 'settings': FitOptions(metrics=('aligned_variance', 'knn')).plain()},
        'score': {'sets': {'hot': shards['hot']}, 'candidates': CandidateOptions(n=2).plain(), 'choose_from': ['hot']},
    }
    for command, job in jobs.items():
        (tmp_path / 'job.json').write_text(json.dumps(job))
        code = (
            'import sys; sys.modules["pydantic"] = None; sys.modules["aiida"] = None\n'
            'from aiida_oodal.engine.__main__ import main\n'
            f'sys.exit(main(["{command}", "job.json"]))'
        )
        if command == 'score':
            np.savez(tmp_path / 'reference.npz', **read_folder(tmp_path / 'reference'))
        done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / 'results.json').read_text())['sets']['hot']['decisions']['taken']) == 2
