import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.train.labels import (
    ATOM_WEIGHTS,
    check_energies,
    find_isolated_energies,
    read_part,
    weigh_parts,
    write_frames,
)
from aiida_oodal.engine.structures import StructureSet

from .conftest import E0, label


@pytest.fixture
def part_of(tmp_path):
    """Return a function that reads structures as a part."""

    def make(*structures, name='set.npz'):
        StructureSet.from_atoms(structures).save(tmp_path / name)
        return read_part(tmp_path, name)

    return make


def cluster(atoms, core):
    atoms.arrays['force_mask'] = (np.arange(len(atoms)) < core).astype(float)
    return atoms


def test_isolated_atoms_are_taken_out(part_of, cells):
    free = label(Atoms('Al'))
    boxed = label(Atoms('Cu', cell=[20, 20, 20], pbc=True))
    boxed.info['config_type'] = 'IsolatedAtom'
    primitive = label(bulk('Al', a=4.0))
    part = part_of(cells[0], free, boxed, primitive)
    assert [len(atoms) for atoms in part.frames] == [4, 1]
    assert part.isolated == pytest.approx({'Al': E0, 'Cu': 3.51}, abs=1e-2)
    assert part.elements == {'Al'}


@pytest.mark.parametrize(
    ('mode', 'outside', 'weights'),
    [('full', 1.0, None), ('mask', 0.0, (8 / 6, 0.0)), ('downweight', 0.25, (8 / 6.5, 0.25 * 8 / 6.5))],
)
def test_weights_of_atoms_and_structures(part_of, cells, mode, outside, weights):
    cells[1].info['config_energy_weight'] = 3.0
    cells[0].info['config_energy_weight'] = 5.0
    part = part_of(cells[0], cluster(cells[1], 2))
    weigh_parts([part], mode, 0.25)
    whole, masked = part.frames
    if weights is None:
        assert not part.is_weighted
    else:
        np.testing.assert_allclose(whole.arrays[ATOM_WEIGHTS], weights[0])
        np.testing.assert_allclose(masked.arrays[ATOM_WEIGHTS], [weights[0]] * 2 + [weights[1]] * 2)
        assert np.mean([whole.arrays[ATOM_WEIGHTS], masked.arrays[ATOM_WEIGHTS]]) == pytest.approx(1.0)
        assert masked.info['config_stress_weight'] == outside
        assert 'config_stress_weight' not in whole.info
    assert (whole.info['config_energy_weight'], masked.info['config_energy_weight']) == (5.0, 3.0 * outside)


def test_what_is_written_is_what_mace_reads(part_of, cells, tmp_path):
    require('mace')
    from mace import data

    cells[1].arrays['momenta'] = np.ones((4, 3))
    cells[1].info['note'] = 'anything'
    del cells[2].info['REF_energy'], cells[2].info['REF_stress']
    part = part_of(cells[0], cluster(cells[1], 2), cells[2])
    weigh_parts([part], 'mask', 0.1)
    write_frames(tmp_path / 'train.extxyz', [part])
    again = read(tmp_path / 'train.extxyz', ':')
    assert set(again[1].info) == {'REF_energy', 'REF_stress', 'config_energy_weight', 'config_stress_weight'}
    assert 'momenta' not in again[1].arrays
    keys = data.KeySpecification.from_defaults()
    keys.update(arrays_keys={'forces_atomic_weights': ATOM_WEIGHTS})
    one, two, three = data.config_from_atoms_list(again, keys)
    assert [config.property_weights['energy'] for config in (one, two, three)] == [1.0, 0.0, 0.0]
    assert [config.property_weights['stress'] for config in (one, two, three)] == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(two.properties['forces'], cells[1].arrays['REF_forces'], atol=1e-8)
    np.testing.assert_allclose(two.properties['forces_atomic_weights'], [1.2, 1.2, 0, 0], atol=1e-8)
    np.testing.assert_allclose(one.properties['stress'], cells[0].info['REF_stress'], atol=1e-12)
    assert one.properties['energy'] == pytest.approx(cells[0].info['REF_energy'], abs=1e-9)


def change(atoms, **values):
    for name, value in values.items():
        (atoms.info if np.ndim(value) == 0 else atoms.arrays)[name] = value
    return atoms


@pytest.mark.parametrize(
    ('broken', 'message'),
    [
        (lambda atoms: bulk('Al', cubic=True), 'structure 1 has neither REF_energy nor REF_forces'),
        (lambda atoms: change(atoms, REF_energy=np.inf), 'structure 1: REF_energy is not finite'),
        (lambda atoms: change(atoms, REF_forces=np.full((4, 3), np.inf)), 'structure 1: REF_forces is not finite'),
        (lambda atoms: change(atoms, force_mask=np.full(4, 2.0)), 'force_mask must be 1'),
        (lambda atoms: Atoms(), 'structure 1 has no atoms'),
        (lambda atoms: change(Atoms('Al'), REF_forces=np.zeros((1, 3))), 'isolated Al atom without REF_energy'),
        (lambda atoms: change(label(Atoms('Al')), REF_energy=1.0), 'another one 3.28'),
    ],
)
def test_wrong_labels_are_named(part_of, cells, broken, message):
    with pytest.raises(OodalError, match=rf'set\.npz: .*{message}'):
        part_of(label(Atoms('Al')), broken(cells[0]), cells[1])


def test_masks_must_leave_something(part_of, cells):
    part = part_of(cluster(cells[0], 0))
    with pytest.raises(OodalError, match=r"weights = 'mask': force_mask leaves no atom of set\.npz"):
        weigh_parts([part], 'mask', 0.1)


def test_energies_of_isolated_atoms(part_of, cells):
    part = part_of(cells[0], label(Atoms('Al')))
    assert find_isolated_energies([part], {}, {'Al'}) == pytest.approx({'Al': E0})
    assert find_isolated_energies([part], {'Cu': 1.0}, {'Cu', 'Al'}) == pytest.approx({'Al': E0, 'Cu': 1.0})
    with pytest.raises(OodalError, match='no energy of an isolated atom of Cu, Ni'):
        find_isolated_energies([part], {}, {'Cu', 'Al', 'Ni'})
    with pytest.raises(OodalError, match=r'Al is given as 3 eV, but an isolated atom of the training data has 3\.28'):
        find_isolated_energies([part], {'Al': 3}, {'Al'})


def test_energies_of_another_method_and_energies_that_float32_loses(part_of, cells):
    part = part_of(*cells[:3])
    check_energies([part], {'Al': E0}, 'float32')
    with pytest.raises(OodalError, match='typically 4'):
        check_energies([part], {'Al': 50.0}, 'float32')
    heavy = [change(atoms, REF_energy=atoms.info['REF_energy'] - 4 * 30_000.0) for atoms in cells[:3]]
    part = part_of(*heavy)
    check_energies([part], {'Al': E0 - 30_000.0}, 'float64')
    with pytest.raises(OodalError, match="precision = 'float64'"):
        check_energies([part], {'Al': E0 - 30_000.0}, 'float32')
