"""Errors on labelled structures: forces are those that MD would have, whatever the cell."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from machine import require

from aiida_oodal.engine.__main__ import main
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.trust.judge import compare_matter, evaluate_cell, judge_structures, read_validation

require('pyace')

ACE = Path(__file__).parents[2] / 'data' / 'ace-al'
POTENTIAL = {'kind': 'ace', 'yaml': 'Al.yaml', 'active_set': 'Al.asi'}


def open_ace():
    from aiida_oodal.engine.ace.forces import AceForces

    return AceForces(ACE / 'Al.yaml', ACE / 'Al.asi', ['Al'])


def native_snapshot():
    table = np.loadtxt(ACE / 'native_snapshot' / 'snap.dump', skiprows=9)
    return Atoms('Al500', positions=table[:, 2:5], cell=[20.0] * 3, pbc=True), table[:, 5:8], table[:, 8]


def skewed():
    atoms = bulk('Al', a=4.1) * (2, 2, 1)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.random.default_rng(1).normal(0, 0.08, (3, 3))), scale_atoms=True)
    atoms.rattle(0.1, seed=2)
    return atoms


def slab():
    atoms = bulk('Al', cubic=True) * (2, 2, 2)
    atoms.center(vacuum=6.0, axis=2)
    atoms.pbc = [True, True, False]
    atoms.rattle(0.1, seed=3)
    return atoms


def test_forces_are_those_of_native_ml_pace():
    atoms, forces, _ = native_snapshot()
    np.testing.assert_allclose(evaluate_cell(open_ace(), ['Al'], atoms).forces, forces, rtol=0, atol=1e-9)


@pytest.mark.parametrize('make', [skewed, slab])
def test_forces_are_the_derivative_of_the_energy(make):
    evaluator, atoms = open_ace(), make()
    forces = evaluate_cell(evaluator, ['Al'], atoms).forces
    for atom, axis in ((0, 0), (1, 2)):
        energies = []
        for shift in (-1e-4, 1e-4):
            moved = atoms.copy()
            moved.positions[atom, axis] += shift
            energies.append(evaluate_cell(evaluator, ['Al'], moved).energy)
        assert -np.diff(energies)[0] / 2e-4 == pytest.approx(forces[atom, axis], abs=1e-6)


def test_core_atoms_of_clusters_count():
    evaluator, atoms = open_ace(), skewed()
    exact = evaluate_cell(evaluator, ['Al'], atoms).forces
    cluster = atoms.copy()
    cluster.set_array('force_mask', np.array([1.0, 0.0, 0.0, 0.0]))
    cluster.set_array('REF_forces', exact + np.array([[0.3, 0.0, 0.0], [9, 9, 9], [9, 9, 9], [9, 9, 9]]))
    (result,) = judge_structures(evaluator, ['Al'], [cluster])
    assert result['force_rmse'] == pytest.approx(300 / np.sqrt(3))
    assert result['n_core_atoms'] == 1
    np.testing.assert_allclose(cluster.arrays['force_error'], [0.3, *[9 * np.sqrt(3)] * 3])


def test_matter_that_evaporated_has_lost_its_neighbours():
    vapour = Atoms('Al3', [[0, 0, 0], [0, 0, 2.8], [9, 9, 9]], cell=[20] * 3, pbc=True)
    assert compare_matter(slab(), slab(), 6.0) == {'lonely': 0, 'lonely_before': 0, 'neighbours': 1.0}
    lost = compare_matter(slab(), vapour, 6.0)
    assert (lost['lonely'], lost['lonely_before']) == (1, 0)
    assert lost['neighbours'] == pytest.approx((2 / 3) * weigh(2.8) / mean_neighbours(slab()))
    assert compare_matter(Atoms('Al', cell=[20] * 3, pbc=True), vapour, 6.0)['neighbours'] is None


def test_a_crystal_whose_outer_shell_of_neighbours_leaves_the_cutoff_has_not_evaporated():
    cold, warm = (bulk('Al', a=a, cubic=True) * 3 for a in (4.0, 4.12))
    assert [len(neighbor_list('i', atoms, 5.0)) / len(atoms) for atoms in (cold, warm)] == [42, 18]
    assert 0.9 < compare_matter(cold, warm, 5.0)['neighbours'] < 1.0


def weigh(distance):
    return (1 - (distance / 6.0) ** 2) ** 2


def mean_neighbours(atoms):
    """The same by brute force, for a slab of which one image on each side is within reach."""
    shifts = [np.array([a, b, 0]) @ atoms.cell.array for a in (-1, 0, 1) for b in (-1, 0, 1)]
    near = np.stack([np.linalg.norm(atoms.positions[:, None] + shift - atoms.positions, axis=2) for shift in shifts])
    return weigh(near[(near > 1e-9) & (near < 6.0)]).sum() / len(atoms)


def run(folder, structures, **changes):
    for name in ('Al.yaml', 'Al.asi'):
        (folder / name).write_bytes((ACE / name).read_bytes())
    StructureSet.from_atoms(structures).save(folder / 'structures.npz')
    job = {
        'structures': 'structures.npz',
        'starts': None,
        'ends': None,
        'elements': ['Al'],
        'learned': POTENTIAL,
        **changes,
    }
    (folder / 'job.json').write_text(json.dumps(job))
    return main(['judge', str(folder / 'job.json')])


def test_the_command_writes_errors_and_gamma_of_every_atom(tmp_path):
    atoms, forces, gamma = native_snapshot()
    atoms.set_array('REF_forces', forces + np.array([0.0, 0.0, 0.1]))
    assert run(tmp_path, [atoms]) == 0
    (result,) = json.loads((tmp_path / 'results.json').read_text())['structures']
    assert result['force_mae'] == pytest.approx(100 / 3)
    assert result['max_gamma'] == pytest.approx(gamma.max(), abs=1e-9)
    (judged,) = StructureSet.load(tmp_path / 'judged.npz')
    np.testing.assert_allclose(judged.arrays['gamma'], gamma, rtol=0, atol=1e-9)
    np.testing.assert_allclose(judged.arrays['force_error'], 0.1, rtol=1e-7)


def test_of_a_validation_set_gamma_errors_and_structures_are_kept(tmp_path):
    atoms, forces, gamma = native_snapshot()
    atoms.set_array('REF_forces', forces + np.array([0.0, 0.2, 0.0]))
    other = skewed()
    other.set_array('REF_forces', evaluate_cell(open_ace(), ['Al'], other).forces)
    StructureSet.from_atoms([other, atoms]).save(tmp_path / 'validation.npz')
    assert run(tmp_path, [other], validation='validation.npz') == 0
    found = read_validation(tmp_path / 'judged_validation.npz')
    assert found['structure'].tolist() == [0] * 4 + [1] * 500
    np.testing.assert_allclose(found['gamma'][4:], gamma, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found['force_error'], [0.0] * 4 + [0.2] * 500, rtol=0, atol=1e-8)
    whole = (tmp_path / 'judged_validation.npz').read_bytes()
    (tmp_path / 'judged_validation.npz').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OodalError, match=r'judged_validation\.npz is damaged'):
        read_validation(tmp_path / 'judged_validation.npz')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda atoms: atoms.arrays.pop('REF_forces'), 'structure 0 has no REF_forces: only labelled structures'),
        (lambda atoms: atoms.arrays['REF_forces'].fill(np.inf), 'structure 0: forces or labels are not finite'),
        (lambda atoms: atoms.symbols.__setitem__(0, 'Cu'), 'the potential knows Al, not Cu'),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, change, message):
    atoms = skewed()
    atoms.set_array('REF_forces', np.zeros((len(atoms), 3)))
    change(atoms)
    assert run(tmp_path, [atoms]) == 1
    assert message in json.loads((tmp_path / 'error.json').read_text())['message']
