"""Fitting a reference and scoring sets, as jobs: inputs, files, outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Bool, Dict, List
from ase.build import molecule

from aiida_oodal.calculations.ood.fit_reference import FitReferenceCalculation
from aiida_oodal.calculations.ood.score_sets import ScoreSetsCalculation
from aiida_oodal.calculations.ood.take_candidates import take_candidates
from aiida_oodal.data import LatentsData, StructureSetData
from aiida_oodal.engine.content import fingerprint
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference

pytestmark = pytest.mark.slow
LABELS = ('w1', 'w2', 'w3')
WATER = molecule('H2O')


def rattled(n, width, seed):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = WATER.copy()
        atoms.positions += rng.normal(scale=width, size=(3, 3))
        atoms.arrays['REF_forces'] = rng.normal(size=(3, 3))
        frames.append(atoms)
    return frames


def embed(frames, folder, first=0, labels=LABELS):
    """Store what made-up models say of structures, as a latents job leaves it."""
    basis = np.random.default_rng(7)
    folder.mkdir()
    centred = np.concatenate([atoms.positions - WATER.positions for atoms in frames])
    numbers = np.tile(WATER.numbers, len(frames))
    hidden = np.column_stack([3.0 * centred, (numbers == 8), np.linalg.norm(centred, axis=1)])
    np.save(folder / 'numbers.npy', numbers)
    np.save(folder / 'offsets.npy', 3 * np.arange(len(frames) + 1))
    np.save(folder / 'structure_index.npy', first + np.arange(len(frames)))
    np.save(folder / 'fingerprints.npy', np.array([fingerprint(atoms) for atoms in frames]))
    np.save(folder / 'isolated.npy', np.zeros(len(frames), dtype=bool))
    rng = np.random.default_rng(first)
    guess = 0.02 + 0.5 * hidden[:, 4:]
    for label in LABELS:
        rotation = np.linalg.qr(basis.normal(size=(5, 5)))[0]
        own = (hidden + guess * rng.normal(size=hidden.shape)) @ rotation
        if label in labels:
            np.save(folder / f'latents_{label}.npy', own.astype(np.float32))
            np.save(folder / f'energies_{label}.npy', rng.normal(size=len(frames)))
            forces = np.concatenate([atoms.arrays['REF_forces'] for atoms in frames]) + guess * rng.normal(
                size=(len(own), 3)
            )
            np.save(folder / f'forces_{label}.npy', forces)
    information = {'elements': ['H', 'O'], 'cutoff': 5.0, 'layers': 'all'}
    return {
        f'{label}_{first}': LatentsData.from_folder(folder, label, information | {'sha256': label * 32}).store()
        for label in labels
    }


@pytest.fixture(scope='module')
def sets(aiida_profile, tmp_path_factory):
    """Return structures and latents of a reference set in two shards, a held-out set and a hot set."""
    folder = tmp_path_factory.mktemp('latents')
    frames = {'reference': rattled(40, 0.05, 0), 'heldout': rattled(30, 0.05, 1), 'hot': rattled(12, 0.4, 2)}
    frames['hot'].append(frames['reference'][5])
    latents = {name: embed(own, folder / name) for name, own in frames.items() if name != 'reference'}
    first, second = frames['reference'][:25], frames['reference'][25:]
    latents['reference'] = embed(first, folder / 'r0') | embed(second, folder / 'r25', 25)
    return frames, latents


@pytest.fixture(scope='module')
def fitted(sets, localhost):
    frames, latents = sets
    return run_get_node(FitReferenceCalculation, **fit_inputs(latents, localhost, frames))


def fit_inputs(latents, localhost, frames=None):
    from aiida_oodal.calculations.codes import get_engine_code

    inputs = {
        'code': get_engine_code(),
        'metadata': {'computer': localhost},
        'reference': latents['reference'],
        'heldout': latents['heldout'],
    }
    return inputs | ({'labelled': StructureSetData(frames['heldout'])} if frames else {})


def score_inputs(latents, localhost, reference, names=('hot', 'heldout')):
    from aiida_oodal.calculations.codes import get_engine_code

    return {
        'code': get_engine_code(),
        'metadata': {'computer': localhost},
        'reference': reference,
        'sets': {name: latents[name] for name in names},
    }


def opened(nodes, tmp_path):
    for number, node in enumerate(nodes.values()):
        (tmp_path / str(number)).mkdir(exist_ok=True, parents=True)
        node.write(tmp_path)
    return EnsembleLatents.open(tmp_path)


def test_a_reference_comes_with_its_models_and_notes(fitted, sets, tmp_path):
    outputs, node = fitted
    assert node.is_finished_ok, node.exit_message
    reference = outputs['reference']
    attributes = reference.base.attributes
    assert attributes.get('model_sha256') == {label: label * 32 for label in LABELS}
    assert attributes.get('cutoff') == 5.0
    assert attributes.get('layers') == 'all'
    assert attributes.get('judge') == 'aligned_variance'
    assert attributes.get('n_atoms') == 120
    assert outputs['results']['n_heldout'] == 30
    assert outputs['results']['notes'] == attributes.get('notes') == []
    content = reference.get_reference()
    assert content.error_scale is not None
    assert content.known.isolated.tolist() == []
    frames, latents = sets
    again = OodReference.fit(
        EnsembleLatents.concatenate(
            [
                opened({k: n for k, n in latents['reference'].items() if k.endswith('_0')}, tmp_path / 'a'),
                opened({k: n for k, n in latents['reference'].items() if k.endswith('_25')}, tmp_path / 'b'),
            ]
        ),
        opened(latents['heldout'], tmp_path / 'c'),
        reference_forces=np.concatenate([atoms.arrays['REF_forces'] for atoms in frames['heldout']]),
    )
    np.testing.assert_allclose(content.thresholds.of_structures, again.thresholds.of_structures, rtol=1e-9)
    # Latents are not kept a second time: neither in the repository of the job nor among what it brought back.
    assert node.base.repository.list_object_names() == ['.aiida', '_aiidasubmit.sh', 'job.json']
    assert 'reference' not in outputs['retrieved'].base.repository.list_object_names()


def test_sets_are_scored_and_candidates_chosen(fitted, sets, localhost):
    frames, latents = sets
    inputs = score_inputs(latents, localhost, fitted[0]['reference'])
    candidates = {'candidates': Dict({'level': 0.95, 'n': 4, 'method': 'farthest'}), 'choose_from': List(['hot'])}
    outputs, node = run_get_node(ScoreSetsCalculation, **inputs, **candidates)
    assert node.is_finished_ok, node.exit_message
    assert set(outputs['scores']) == {'hot', 'heldout'}
    assert set(outputs['decisions']) == {'hot'}
    scores = outputs['scores']['hot']
    assert scores.base.attributes.get('n_structures') == 13
    assert 'overall' in scores.base.attributes.get('metrics')
    assert scores.get_scores().flags('overall', 'either')[:12].all()
    found = outputs['results']['sets']['hot']
    assert found['known'] == [[12, 'reference', 5]]
    decisions = outputs['decisions']['hot']
    assert len(decisions['taken']) == 4
    assert decisions['left_out']['it is in the reference set'] == 1
    chosen = take_candidates(StructureSetData(frames['hot']), decisions)
    assert [atoms.info['set_index'] for atoms in chosen] == [entry['structure'] for entry in decisions['taken']]
    first = decisions['taken'][0]['structure']
    np.testing.assert_array_equal(chosen.get_atoms(0).positions, frames['hot'][first].positions)
    job = json.loads((Path(node.get_remote_workdir()) / 'job.json').read_text())
    assert job['choose_from'] == ['hot']
    assert (Path(node.get_remote_workdir()) / 'hot_0' / 'latents_w2.npy').is_file()


def test_latents_that_do_not_belong_together_are_refused_at_submission(fitted, sets, localhost, tmp_path):
    frames, latents = sets
    reference = fitted[0]['reference']
    few = embed(frames['hot'], tmp_path / 'few', labels=LABELS[:2])
    with pytest.raises(ValueError, match=r'reference has latents of w1, w2, w3, heldout of w1, w2'):
        run_get_node(FitReferenceCalculation, **(fit_inputs(latents, localhost) | {'heldout': few}))
    one = {key: node for key, node in latents['reference'].items() if node.model_label == 'w1'}
    alone = fit_inputs(latents, localhost) | {'reference': one, 'settings': Dict({'metrics': ['aligned_variance']})}
    del alone['heldout']
    with pytest.raises(ValueError, match='aligned_variance needs two models or more'):
        run_get_node(FitReferenceCalculation, **alone)
    inputs = score_inputs(latents, localhost, reference, ['hot'])
    with pytest.raises(ValueError, match='the reference was fitted for the models w1, w2, w3, not w1, w2'):
        run_get_node(ScoreSetsCalculation, **(inputs | {'sets': {'hot': few}}))
    other = {key: node.clone() for key, node in latents['hot'].items()}
    other['w2_0'].base.attributes.set('model_sha256', 'f' * 64)
    wrong = inputs | {'sets': {'hot': other}}
    with pytest.raises(ValueError, match='not of the same model w2: SHA-256'):
        run_get_node(ScoreSetsCalculation, **wrong)
    assert run_get_node(ScoreSetsCalculation, **wrong, insist=Bool(True))[1].is_finished_ok
    with pytest.raises(ValueError, match="choose_from: 'cold' is not among the sets; there is hot"):
        run_get_node(ScoreSetsCalculation, **inputs, choose_from=List(['cold']))
    with pytest.raises(ValueError, match='say which structures to take'):
        run_get_node(ScoreSetsCalculation, **inputs, candidates=Dict({}))


def test_too_few_atoms_end_the_job_with_the_reason(sets, localhost, tmp_path):
    frames, latents = sets
    few = embed(frames['reference'][:1], tmp_path / 'few')
    _, node = run_get_node(FitReferenceCalculation, **(fit_inputs(latents, localhost) | {'reference': few}))
    assert node.exit_status == 210
    assert 'has 3 atoms for 5 latents: more atoms than latents are needed' in node.exit_message
