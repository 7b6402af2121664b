from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace import latents as latents_module
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.structures import StructureSet


@pytest.fixture
def crystals(alcu_crystals, tmp_path):
    """Return a file of 16 cells of 32 atoms."""
    write(tmp_path / 'set.extxyz', alcu_crystals)
    return tmp_path / 'set.extxyz'


def two(alcu_models):
    return {label: alcu_models[label] for label in ('w1', 'w2')}


def results_of(folder):
    return json.loads((folder / 'results.json').read_text())


def test_every_model_sees_every_structure_as_mace_does(
    crystals, alcu_crystals, alcu_models, calculator, run_latents, capsys
):
    folder = run_latents(crystals, alcu_models, forces=True)

    ensemble = EnsembleLatents.open(folder)
    assert ensemble.labels == ('w1', 'w2', 'w3', 'w4')
    assert ensemble.offsets.tolist() == list(range(0, 513, 32))
    assert ensemble.structure_index.tolist() == list(range(16))
    assert ensemble.numbers.tolist() == np.concatenate([atoms.numbers for atoms in alcu_crystals]).tolist()
    for k, label in enumerate(ensemble.labels):
        reference = calculator(alcu_models[label], 'float32')
        for i in (0, 9):
            atoms = slice(32 * i, 32 * (i + 1))
            expected = reference.get_descriptors(alcu_crystals[i], invariants_only=True)
            np.testing.assert_allclose(ensemble.latents[k][atoms], expected, rtol=0, atol=1e-6)
            forces = reference.get_forces(alcu_crystals[i])
            np.testing.assert_allclose(ensemble.forces[k][atoms], forces, rtol=0, atol=1e-5)
            energy = reference.get_potential_energy(alcu_crystals[i])
            assert ensemble.energies[k, i] == pytest.approx(energy, abs=1e-4)
    # trained on such crystals: near the reference, and near each other
    labels = [atoms.info['REF_energy'] for atoms in alcu_crystals]
    assert np.abs(ensemble.energies - labels).max() / 32 < 0.1

    results = results_of(folder)
    assert (results['n_structures'], results['n_atoms'], results['next_structure']) == (16, 512, None)
    assert results['failures'] == []
    assert results['models']['w3']['elements'] == ['Al', 'Cu']
    assert results['models']['w3']['n_features'] == 32
    assert {'graphs', 'models', 'writing', 'total'} <= set(results['timings'])
    assert '16 structures, 512 atoms x 4 models' in capsys.readouterr().out


def test_graphs_are_built_once_for_all_models(crystals, alcu_models, run_latents, monkeypatch):
    built = []

    def counting(atoms, cutoff):
        built.append(cutoff)
        return build_graph(atoms, cutoff)

    build_graph = latents_module.build_graph
    monkeypatch.setattr(latents_module, 'build_graph', counting)
    run_latents(crystals, alcu_models)
    assert built == [4.2] * 16


@pytest.mark.parametrize('values', [{'batch_size': 1}, {'batch_size': 5}, {'edges_per_batch': 1}, {'max_edges': 200}])
def test_how_it_is_batched_changes_nothing(values, crystals, alcu_models, run_latents):
    models = {'w1': alcu_models['w1']}
    default = run_latents(crystals, models, name='default', precision='float64')
    other = run_latents(crystals, models, name='other', precision='float64', **values)
    for name in ('latents_w1', 'energies_w1', 'numbers', 'offsets', 'structure_index'):
        mine, theirs = np.load(default / f'{name}.npy'), np.load(other / f'{name}.npy')
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10)
    assert np.load(other / 'latents_w1.npy').dtype == np.float64


def test_a_failure_names_structure_line_and_model_and_the_others_are_kept(
    tmp_path, alcu_crystals, alcu_models, run_latents
):
    frames = alcu_crystals[:7]
    frames[1].symbols[3] = 'Ag'
    frames[2].positions[7, 1] = np.nan
    frames[3].positions[5] = frames[3].positions[4]
    frames[4].cell[:] = 0.0
    write(tmp_path / 'set.extxyz', frames)
    lines = (tmp_path / 'set.extxyz').read_text().splitlines()
    lines[5 * 34 + 20] = 'Al here be dragons'
    (tmp_path / 'set.extxyz').write_text('\n'.join(lines) + '\n')

    folder = run_latents(tmp_path / 'set.extxyz', two(alcu_models))

    failures = {failure['structure']: failure for failure in results_of(folder)['failures']}
    assert sorted(failures) == [1, 2, 3, 4, 5]
    assert failures[1] == {
        'structure': 1,
        'line': 35,
        'model': 'w1',
        'message': 'the structure has Ag, but the models know Al, Cu only',
    }
    assert failures[2]['line'] == 2 * 34 + 3 + 7
    assert 'atom 7' in failures[2]['message']
    assert failures[3]['model'] == 'w1'
    assert 'not finite; atoms 4 and 5 are 0 angstrom apart' in failures[3]['message']
    assert 'they must be finite and independent' in failures[4]['message']
    assert failures[5]['line'] == 5 * 34 + 1
    ensemble = EnsembleLatents.open(folder)
    assert ensemble.structure_index.tolist() == [0, 6]
    alone = run_latents(tmp_path / 'set.extxyz', two(alcu_models), name='alone', start=6)
    np.testing.assert_allclose(
        ensemble.latents[1][32:64], EnsembleLatents.open(alone).latents[1][0:32], rtol=0, atol=1e-6
    )


def test_shards_make_up_the_whole(tmp_path, alcu_crystals, alcu_models, run_latents):
    path = tmp_path / 'set.npz'
    StructureSet.from_atoms(alcu_crystals).save(path)
    whole = EnsembleLatents.open(run_latents(path, two(alcu_models), name='whole'))
    ranges = [(0, 5), (5, 11), (11, None)]
    shards = [
        EnsembleLatents.open(run_latents(path, two(alcu_models), name=f'shard{start}', start=start, stop=stop))
        for start, stop in ranges
    ]
    joined = EnsembleLatents.concatenate(shards)
    assert joined.structure_index.tolist() == whole.structure_index.tolist()
    np.testing.assert_allclose(joined.latents[0][0:512], whole.latents[0][0:512], rtol=0, atol=1e-6)


@pytest.mark.parametrize('layers', ['first', 'last'])
def test_layers_are_stored_as_chosen(layers, crystals, alcu_models, run_latents):
    model = {'w1': alcu_models['w1']}
    every = np.load(run_latents(crystals, model, name='all', stop=2) / 'latents_w1.npy')
    chosen = np.load(run_latents(crystals, model, stop=2, layers=layers) / 'latents_w1.npy')
    assert chosen.shape == (64, 16)
    np.testing.assert_allclose(chosen, every[:, :16] if layers == 'first' else every[:, 16:], rtol=0, atol=1e-6)


def test_nothing_evaluated_is_an_error_that_says_why(tmp_path, alcu_models, run_latents):
    write(tmp_path / 'silver.extxyz', [bulk('Ag'), bulk('Au')])
    with pytest.raises(OodalError, match=r'no structure from 0 to the end .*; the first: the structure has Ag'):
        run_latents(tmp_path / 'silver.extxyz', two(alcu_models))
    assert len(results_of(tmp_path / 'job')['failures']) == 2
    with pytest.raises(OodalError, match='there are none in this range'):
        run_latents(tmp_path / 'silver.extxyz', two(alcu_models), name='beyond', start=5)


def test_single_atoms_and_molecules_in_vacuum_are_structures_too(tmp_path, alcu_models, calculator, run_latents):
    write(tmp_path / 'small.extxyz', [Atoms('Al'), Atoms('Cu2', [[0, 0, 0], [2.2, 0, 0]]), bulk('Al')])
    folder = run_latents(tmp_path / 'small.extxyz', two(alcu_models), forces=True)
    assert np.load(folder / 'offsets.npy').tolist() == [0, 1, 3, 4]
    expected = calculator(alcu_models['w1'], 'float32').get_potential_energy(Atoms('Al'))
    assert np.load(folder / 'energies_w1.npy')[0] == pytest.approx(expected, abs=1e-5)
    assert np.abs(np.load(folder / 'forces_w2.npy')[0]).max() == 0.0


def test_models_that_are_no_ensemble_are_refused(crystals, alcu_models, untrained, run_latents):
    with pytest.raises(OodalError, match=r'models w1 and other are no ensemble: cutoff 4.2 angstrom and 3.0 angstrom'):
        run_latents(crystals, {'w1': alcu_models['w1'], 'other': untrained()})
