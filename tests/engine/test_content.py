"""Which structures are the same: whatever rounding does to them, and nothing else."""

import io

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st

from aiida_oodal.engine.content import are_same, find_repeats, find_same, fingerprint, fingerprints, is_isolated
from aiida_oodal.engine.structures import StructureSet


@given(size=st.integers(1, 6), seed=st.integers(0, 1000))
def test_a_structure_is_itself_after_a_file_with_eight_decimals(size, seed):
    atoms = bulk('NaCl', 'rocksalt', a=5.6).repeat((size, 1, 2))
    atoms.rattle(0.3, seed=seed)
    text = io.StringIO()
    ase.io.write(text, atoms, format='extxyz')
    text.seek(0)
    again = ase.io.read(text, format='extxyz')
    single = atoms.copy()
    single.positions = atoms.positions.astype(np.float32)
    found = np.array([fingerprint(atoms), fingerprint(atoms)])
    assert are_same(found, np.array([fingerprint(again), fingerprint(single)])).all()


def moved(atoms, distance, atom=3):
    other = atoms.copy()
    other.positions[atom, 1] += distance
    return other


def with_cell(atoms, factor):
    other = atoms.copy()
    other.set_cell(atoms.cell * factor)
    return other


def without_period(atoms):
    other = atoms.copy()
    other.pbc = (True, True, False)
    return other


def swapped(atoms):
    other = atoms.copy()
    other.numbers[[0, 1]] = other.numbers[[1, 0]]
    return other


@pytest.mark.parametrize(
    'change',
    [
        lambda a: moved(a, 0.05),
        lambda a: with_cell(a, 1.001),
        without_period,
        swapped,
        lambda a: a[::-1],
        lambda a: a[:-1],
    ],
)
def test_another_structure_is_another(change):
    atoms = bulk('NaCl', 'rocksalt', a=5.6).repeat((3, 3, 3))
    atoms.rattle(0.05, seed=1)
    assert not are_same(fingerprint(atoms)[None], fingerprint(change(atoms))[None])[0]


def test_the_axes_of_an_open_direction_mean_nothing():
    one, other = molecule('CH3CH2OH', vacuum=5.0), molecule('CH3CH2OH', vacuum=5.0)
    one.pbc = other.pbc = False
    other.set_cell([30.0, 30.0, 30.0])
    assert are_same(fingerprint(one)[None], fingerprint(other)[None])[0]


def test_a_set_has_the_fingerprints_of_its_structures_and_they_are_found():
    frames = [bulk('Al').repeat((n, 1, 1)) for n in (1, 3, 2)] + [molecule('H2O')]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    whole = StructureSet.from_atoms(frames)
    found = fingerprints(whole.offsets, whole.numbers, whole.positions, whole.cells, whole.pbc)
    np.testing.assert_allclose(found, [fingerprint(atoms) for atoms in frames], atol=1e-12)
    assert find_same(found[[3, 1]], found).tolist() == [3, 1]
    assert find_same(found + 1.0, found).tolist() == [-1] * 4
    assert find_same(found, found[:0]).tolist() == [-1] * 4
    assert find_same(found[:0], found).tolist() == []


def test_structures_that_come_twice_are_found():
    rng = np.random.default_rng(0)
    found = rng.normal(scale=5.0, size=(6, 6))
    found[4] = found[1] + 1e-8
    found[5] = found[1]
    assert find_repeats(found).tolist() == [0, 1, 2, 3, 1, 1]
    assert find_repeats(found[:0]).tolist() == []


def test_isolated_atoms():
    assert is_isolated(Atoms('Al'))
    assert is_isolated(Atoms('Al', cell=[12.0] * 3, pbc=True))
    assert not is_isolated(bulk('Al'))
    assert not is_isolated(Atoms('Al', cell=[2.8, 20.0, 20.0], pbc=(True, False, False)))
    assert not is_isolated(Atoms('Al2', positions=[[0, 0, 0], [0, 0, 50.0]]))
    assert is_isolated(Atoms('Al', cell=[5.0] * 3, pbc=True), n_pairs=0)
