import numpy as np
import pytest

from aiida_oodal.data import LatentsData, open_ensemble
from aiida_oodal.data.latents import copy_shards, group_shards
from aiida_oodal.engine.errors import OodalError

RNG = np.random.default_rng(1)


def make_shard(folder, first, sizes, labels=('w1', 'w2')):
    """Write what a latents job leaves and return a node for each model."""
    folder.mkdir()
    n_atoms = sum(sizes)
    arrays = {
        'numbers': RNG.choice([13, 29], n_atoms),
        'offsets': np.concatenate([[0], np.cumsum(sizes)]),
        'structure_index': first + np.arange(len(sizes)),
    }
    for label in labels:
        arrays[f'latents_{label}'] = RNG.normal(size=(n_atoms, 3)).astype(np.float32)
        arrays[f'energies_{label}'] = RNG.normal(size=len(sizes))
    for name, array in arrays.items():
        np.save(folder / f'{name}.npy', array)
    information = {'elements': ['Al', 'Cu'], 'sha256': 'x', 'cutoff': 4.0, 'layers': 'all'}
    return arrays, [LatentsData.from_folder(folder, label, information).store() for label in labels]


def test_what_a_job_left_is_stored_as_it_is_and_queryable(tmp_path):
    from aiida.orm import QueryBuilder

    arrays, (node, _) = make_shard(tmp_path / 'a', 5, [2, 3])
    np.testing.assert_array_equal(node.get_array('latents'), arrays['latents_w1'])
    np.testing.assert_array_equal(node.get_array('energies'), arrays['energies_w1'])
    filters = {'attributes.n_features': 3, 'attributes.first_structure': 5, 'attributes.model_label': 'w1'}
    assert QueryBuilder().append(LatentsData, filters={'uuid': node.uuid, **filters}).count() == 1


def test_shards_are_joined_in_the_order_of_structures(tmp_path):
    late, late_nodes = make_shard(tmp_path / 'late', 3, [4])
    early, early_nodes = make_shard(tmp_path / 'early', 0, [2, 3, 1])
    with open_ensemble([*late_nodes, *reversed(early_nodes)]) as ensemble:
        assert ensemble.labels == ('w1', 'w2')
        np.testing.assert_array_equal(ensemble.structure_index, [0, 1, 2, 3])
        np.testing.assert_array_equal(ensemble.offsets, [0, 2, 5, 6, 10])
        for rows, label in zip(ensemble.latents, ensemble.labels, strict=True):
            expected = np.concatenate([early[f'latents_{label}'], late[f'latents_{label}']])
            np.testing.assert_array_equal(np.asarray(rows), expected)


def test_a_shard_that_a_model_lacks_is_named(tmp_path):
    _, whole = make_shard(tmp_path / 'whole', 0, [2])
    _, part = make_shard(tmp_path / 'part', 1, [2], labels=('w1',))
    with pytest.raises(OodalError, match='from structure 1 on lack the models w2'), open_ensemble([*whole, *part]):
        pass


def test_two_sets_are_not_taken_for_one(tmp_path):
    _, one = make_shard(tmp_path / 'one', 0, [2])
    _, two = make_shard(tmp_path / 'two', 0, [3])
    with pytest.raises(OodalError, match=r"both of model 'w1'.*of one set"), open_ensemble([*one, *two]):
        pass


def test_models_of_a_shard_are_of_the_same_structures(tmp_path):
    _, (one, _) = make_shard(tmp_path / 'one', 0, [2, 3])
    _, (_, other) = make_shard(tmp_path / 'other', 0, [3, 2])
    with pytest.raises(OodalError, match=r'of w1 and w2 are of different structures \(their (numbers|offsets) differ'):
        group_shards([one, other])


def test_a_job_gets_each_file_once(tmp_path):
    _, late = make_shard(tmp_path / 'late', 2, [4])
    _, early = make_shard(tmp_path / 'early', 0, [2, 3])
    copies, shards = copy_shards([*late, *early], 'hot')
    assert shards == [{'folder': 'hot_0', 'labels': ['w1', 'w2']}, {'folder': 'hot_1', 'labels': ['w1', 'w2']}]
    targets = [target for *_, target in copies]
    assert len(set(targets)) == len(targets) == 2 * 7
    assert {
        (early[1].uuid, 'latents.npy', 'hot_0/latents_w2.npy'),
        (late[0].uuid, 'numbers.npy', 'hot_1/numbers.npy'),
    } < set(copies)
    assert late[0].identity.sha256 == 'x'
