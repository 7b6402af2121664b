"""Latents of an ensemble: opened, joined, selected, read in chunks, refused."""

from dataclasses import replace

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents


def save_job(latents: EnsembleLatents, folder, *, forces: bool = True) -> None:
    folder.mkdir()
    for name in ('numbers', 'offsets', 'structure_index'):
        np.save(folder / f'{name}.npy', getattr(latents, name))
    for k, label in enumerate(latents.labels):
        np.save(folder / f'latents_{label}.npy', np.asarray(latents.latents[k]).astype(np.float32))
        np.save(folder / f'energies_{label}.npy', latents.energies[k])
        if forces:
            np.save(folder / f'forces_{label}.npy', np.asarray(latents.forces[k]))


def test_a_job_folder_is_read_as_it_was_written(made_up, tmp_path) -> None:
    latents = made_up(20)
    save_job(latents, tmp_path / 'job')
    opened = EnsembleLatents.open(tmp_path / 'job')
    assert opened.labels == latents.labels
    assert len(opened) == 20
    assert np.array_equal(opened.energies, latents.energies)
    for one, other in zip(opened.chunks(11), latents.chunks(11), strict=True):
        assert one.atoms == other.atoms
        assert one.latents.dtype == np.float64
        assert np.allclose(one.latents, other.latents, atol=1e-6)
        assert np.array_equal(one.forces, other.forces)
    two = EnsembleLatents.open(tmp_path / 'job', ['w3', 'w1'])
    assert two.labels == ('w3', 'w1')
    assert np.array_equal(two.energies, latents.energies[[2, 0]])
    save_job(latents, tmp_path / 'plain', forces=False)
    assert EnsembleLatents.open(tmp_path / 'plain').forces is None
    assert EnsembleLatents.open(tmp_path / 'job', ['w1']).n_models == 1
    (tmp_path / 'empty').mkdir()
    with pytest.raises(OodalError, match='empty holds no latents'):
        EnsembleLatents.open(tmp_path / 'empty')
    with pytest.raises(OodalError, match=r'latents_w9\.npy cannot be read'):
        EnsembleLatents.open(tmp_path / 'job', ['w1', 'w9'])


@pytest.mark.parametrize('n_atoms', [1, 8, 20, 10**6])
def test_chunks_are_whole_structures_and_cover_the_set(made_up, n_atoms: int) -> None:
    latents = made_up(30)
    chunks = list(latents.chunks(n_atoms))
    assert [chunk.structures.start for chunk in chunks[1:]] == [chunk.structures.stop for chunk in chunks[:-1]]
    assert chunks[0].structures.start == 0
    assert chunks[-1].structures.stop == 30
    for chunk in chunks:
        size = len(chunk.numbers)
        assert chunk.atoms == slice(latents.offsets[chunk.structures.start], latents.offsets[chunk.structures.stop])
        assert size <= n_atoms or chunk.structures.stop == chunk.structures.start + 1
        assert chunk.latents.shape == (4, size, 12)
        assert chunk.forces.shape == (4, size, 3)
    together = np.concatenate([chunk.latents for chunk in chunks], axis=1)
    assert np.array_equal(together, np.stack([np.asarray(rows) for rows in latents.latents]))


def test_selected_and_joined_again(made_up) -> None:
    latents = replace(made_up(9), fingerprints=np.arange(54.0).reshape(9, 6), isolated=np.arange(9) == 4)
    odd, even = latents.select([1, 3, 4, 5]), latents.select([0, 2, 6, 7, 8])
    assert odd.structure_index.tolist() == [1, 3, 4, 5]
    again = EnsembleLatents.concatenate([odd, even])
    assert again.structure_index.tolist() == [1, 3, 4, 5, 0, 2, 6, 7, 8]
    for place, index in enumerate(again.structure_index):
        own = slice(again.offsets[place], again.offsets[place + 1])
        old = slice(latents.offsets[index], latents.offsets[index + 1])
        assert np.array_equal(again.numbers[own], latents.numbers[old])
        for k in range(4):
            assert np.array_equal(again.latents[k][own], latents.latents[k][old])
            assert np.array_equal(again.forces[k][own], latents.forces[k][old])
        assert np.array_equal(again.energies[:, place], latents.energies[:, index])
        assert np.array_equal(again.fingerprints[place], latents.fingerprints[index])
        assert again.isolated[place] == (index == 4)
    # Latents that were made before there were fingerprints have none, and so has what they are joined with.
    assert EnsembleLatents.concatenate([odd, replace(even, fingerprints=None)]).fingerprints is None
    for wrong in ([], [3, 1], [0, 9]):
        with pytest.raises(OodalError, match='ascending positions in a set of 9'):
            latents.select(wrong)


def test_what_does_not_fit_together_is_refused(made_up) -> None:
    rng = np.random.default_rng(0)
    numbers, offsets = np.full(6, 14), [0, 2, 6]
    rows = [rng.normal(size=(6, 4)) for _ in range(2)]

    def make(labels=('w1', 'w2'), offsets=offsets, latents=rows, **more) -> EnsembleLatents:
        return EnsembleLatents.from_arrays(labels, numbers, offsets, latents, **more)

    assert len(make()) == 2
    assert make(['w1'], latents=rows[:1]).n_models == 1
    with pytest.raises(OodalError, match=r"one model or more, with different labels; got \['w1', 'w1'\]"):
        make(['w1', 'w1'])
    with pytest.raises(OodalError, match=r'2 labels .* for 1 models'):
        make(latents=rows[:1])
    with pytest.raises(OodalError, match=r"'w1': \(6, 4\), 'w2': \(6, 3\).*same choice of layers"):
        make(latents=[rows[0], rows[1][:, :3]])
    with pytest.raises(OodalError, match='model w2: latents of 5 atoms where the set has 6'):
        make(latents=[rows[0], rows[1][:5]])
    for wrong in ([0, 2, 5], [0, 2, 2, 6], [1, 2, 6], []):
        with pytest.raises(OodalError, match=r'offsets must rise from 0 to the number of atoms \(6\)'):
            make(offsets=wrong)
    with pytest.raises(OodalError, match=r'energies have shape \(2, 3\)'):
        make(energies=np.zeros((2, 3)))
    with pytest.raises(OodalError, match='forces have shapes'):
        make(forces=[np.zeros((6, 3)), np.zeros((6, 4))])
    with pytest.raises(OodalError, match='3 entries in structure_index for 2 structures'):
        make(structure_index=[0, 1, 2])
    with pytest.raises(OodalError, match='1 entries in isolated for 2 structures'):
        make(isolated=np.array([True]))
    with pytest.raises(OodalError, match='differ in their energies'):
        EnsembleLatents.concatenate([make(), make(energies=np.zeros((2, 2)))])
    with pytest.raises(OodalError, match='differ in their models'):
        EnsembleLatents.concatenate([make(), make(['w1', 'w3'])])


@pytest.mark.parametrize('wrong', [np.nan, np.inf])
def test_numbers_that_are_none_are_named(made_up, wrong: float) -> None:
    latents = made_up(9)
    latents.latents[2][latents.offsets[4] + 1, 5] = wrong
    part = latents.select([2, 4, 5])
    with pytest.raises(OodalError, match=r'latents of model w3 are not finite in structure 4 \(its atom 1\)'):
        list(part.chunks(100))
    latents = made_up(9)
    latents.forces[1][3, 0] = wrong
    with pytest.raises(OodalError, match=r'forces of model w2 are not finite in structure 0'):
        list(latents.chunks(100))
