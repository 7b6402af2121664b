import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_oodal.engine.content import are_same, fingerprint
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.embeddings import EmbeddingsName, read_embeddings, read_sha256, write_embeddings


def test_the_name_says_model_seed_and_data_set(tmp_path):
    name = EmbeddingsName.parse(tmp_path / 'embeddings_MACE_T1_large_w3_on_T3_OOD.extxyz.gz')
    assert name == EmbeddingsName('T1_large', 'w3', 'T3_OOD')
    assert str(name) == 'embeddings_MACE_T1_large_w3_on_T3_OOD.extxyz'


def test_another_name_is_refused_with_the_right_form(tmp_path):
    with pytest.raises(OodalError, match=r'latents\.extxyz.*rename it to embeddings_MACE_\{Model\}'):
        EmbeddingsName.parse(tmp_path / 'latents.extxyz')


@pytest.mark.parametrize('suffix', ['', '.gz', '.bz2', '.xz'])
@pytest.mark.parametrize('n_features', [1, 7])
def test_what_is_written_is_read_again(tmp_path, suffix, n_features):
    frames = [bulk('Al', cubic=True), molecule('H2O'), molecule('H2')]
    rng = np.random.default_rng(0)
    latents = [rng.normal(size=(len(atoms), n_features)) for atoms in frames]
    path = write_embeddings(tmp_path / f'embeddings_MACE_T_w1_on_D.extxyz{suffix}', frames, latents, [1.5, -2.0, 0.25])
    structures = read_embeddings(path, tmp_path, 'w1')
    for atoms, back in zip(frames, structures, strict=True):
        np.testing.assert_array_equal(back.numbers, atoms.numbers)
        np.testing.assert_allclose(back.positions, atoms.positions, atol=1e-8)
        np.testing.assert_array_equal(back.pbc, atoms.pbc)
    np.testing.assert_allclose(np.load(tmp_path / 'latents_w1.npy'), np.concatenate(latents), atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / 'offsets.npy'), [0, 4, 7, 9])
    np.testing.assert_array_equal(np.load(tmp_path / 'energies_w1.npy'), [1.5, -2.0, 0.25])
    expected = np.array([fingerprint(atoms) for atoms in frames])
    assert are_same(np.load(tmp_path / 'fingerprints.npy'), expected).all()
    assert read_sha256(path) is None


@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_a_file_says_which_model_it_is_of_and_which_atoms_are_isolated(tmp_path, suffix):
    frames = [bulk('Al', cubic=True), Atoms('Al', cell=[20.0] * 3, pbc=True), bulk('Al')]
    latents = [np.ones((len(atoms), 2)) for atoms in frames]
    digest = '0123456789abcdef' * 4
    path = write_embeddings(tmp_path / f'embeddings_MACE_T_w1_on_D.extxyz{suffix}', frames, latents, sha256=digest)
    assert read_sha256(path) == digest
    read_embeddings(path, tmp_path, 'w1')
    assert np.load(tmp_path / 'isolated.npy').tolist() == [False, True, False]


def test_a_frame_without_latents_is_named(tmp_path):
    path = tmp_path / 'embeddings_MACE_T_w1_on_D.extxyz'
    molecule('H2O').write(path, format='extxyz')
    with pytest.raises(OodalError, match="frame 0 has no per-atom array 'latent_scalars'"):
        read_embeddings(path, tmp_path, 'w1')


def test_a_cut_file_is_refused_and_says_where(tmp_path):
    path = tmp_path / 'embeddings_MACE_T_w1_on_D.extxyz'
    write_embeddings(path, [molecule('H2O')] * 3, [np.ones((3, 4))] * 3)
    path.write_text('\n'.join(path.read_text().splitlines()[:-2]) + '\n')
    with pytest.raises(OodalError, match=r'frame 2 cannot be read'):
        read_embeddings(path, tmp_path, 'w1')


def test_latents_that_change_in_number_are_refused(tmp_path):
    path = tmp_path / 'embeddings_MACE_T_w1_on_D.extxyz'
    write_embeddings(path, [molecule('H2O')] * 2, [np.ones((3, 4)), np.ones((3, 5))])
    with pytest.raises(OodalError, match='frame 1 has 5 latents an atom, those before 4'):
        read_embeddings(path, tmp_path, 'w1')


def test_labels_and_all_else_come_with_embeddings(tmp_path):
    frames = [bulk('Al', cubic=True), molecule('H2O')]
    frames[0].info['REF_energy'], frames[0].arrays['REF_forces'] = -1.5, np.ones((4, 3))
    path = write_embeddings(tmp_path / 'embeddings_MACE_T_w1_on_D.extxyz', frames, [np.ones((4, 2)), np.ones((3, 2))])
    structures = read_embeddings(path, tmp_path, 'w1')
    assert structures[0].info == {'REF_energy': -1.5}
    assert structures[0].arrays['REF_forces'].tolist() == np.ones((4, 3)).tolist()
    assert set(structures[1].arrays) == {'numbers', 'positions'}
    path.write_text(path.read_text().replace('REF_energy=-1.5', 'REF_energy=none a/b=3 MACE_energy=none'))
    structures = read_embeddings(path, tmp_path, 'w1')
    assert structures[0].info == {'a_b': 3}
    assert any(note.startswith(f"{path}: info 'REF_energy' is dropped in 1 of") for note in structures.notes)
