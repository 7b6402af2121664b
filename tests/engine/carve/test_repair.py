"""Overlaps across the new boundary: found, refused, dropped, relaxed."""

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiida_oodal.engine.carve.cluster import extract_cluster
from aiida_oodal.engine.errors import OodalError

CUT = {'radius': 4.0, 'buffer': 3.0, 'cutoff': 6.0, 'epsilon': 0.5}  # edge 14.5 angstrom


def crossing(gap: float, depth: float = 7.0) -> Atoms:
    """Return a centre, a neighbour, and two atoms ``gap`` apart once the cube of 14.5 angstrom is periodic."""
    positions = [[0, 0, 0], [2.5, 0, 0], [0, 0, depth], [0, 0, depth + gap - 14.5]]
    return Atoms('Al4', positions=positions, pbc=False)


def across_boundary(cluster: Atoms) -> np.ndarray:
    """Return the distances, shape (n, n), through the boundary; inf where the direct way is shorter."""
    direct = np.linalg.norm(cluster.positions[:, None] - cluster.positions[None], axis=2)
    periodic = cluster.get_all_distances(mic=True)
    return np.where(periodic < direct - 1e-9, periodic, np.inf)


def liquid(seed: int, n_atoms: int = 260) -> Atoms:
    """Return atoms at random, none closer than 1.2 angstrom to another: across a boundary anything can happen."""
    rng = np.random.default_rng(seed)
    edge = (n_atoms / 0.06) ** (1 / 3)
    points = [rng.random(3) * edge]
    while len(points) < n_atoms:
        point = rng.random(3) * edge
        vectors = np.array(points) - point
        vectors -= edge * np.rint(vectors / edge)
        if np.linalg.norm(vectors, axis=1).min() > 1.2:
            points.append(point)
    return Atoms(rng.choice([13, 29], n_atoms), positions=points, cell=[edge] * 3, pbc=True)


def test_an_overlap_across_the_boundary_is_an_error_that_names_the_pair() -> None:
    message = (
        r'cluster around atom 0: atoms 2 and 3 of the snapshot are 0\.31 angstrom apart \(limit 0\.50\) across the '
        r"cell boundary; use a larger buffer or repair='drop'"
    )
    with pytest.raises(OodalError, match=message):
        extract_cluster(crossing(0.31), 0, **CUT)
    assert len(extract_cluster(crossing(0.51), 0, **CUT)) == 4


def test_the_limit_is_the_larger_of_distance_and_bond() -> None:
    bond = 2 * covalent_radii[13]
    for scale, gap, ok in ((0.75, 0.75 * bond - 0.01, False), (0.75, 0.75 * bond + 0.01, True), (0.1, 0.49, False)):
        if ok:
            extract_cluster(crossing(gap), 0, bond_scale=scale, **CUT)
        else:
            with pytest.raises(OodalError, match='across the cell boundary'):
                extract_cluster(crossing(gap), 0, bond_scale=scale, **CUT)


def test_drop_takes_the_atom_farther_from_the_centre() -> None:
    cluster = extract_cluster(crossing(0.31), 0, repair='drop', **CUT)
    assert cluster.arrays['parent_index'].tolist() == [0, 1, 2]
    assert cluster.info['repair_dropped'] == 1
    cluster = extract_cluster(crossing(0.31, depth=7.22), 0, repair='drop', **CUT)
    assert cluster.arrays['parent_index'].tolist() == [0, 1, 3]


def test_drop_spares_the_neighbours_that_the_centre_feels() -> None:
    # atom 2 is within the cutoff; it overlaps with two atoms beyond, and still is the one to stay
    atoms = Atoms('Al4', positions=[[0, 0, 0], [0, 0, 5.9], [0.8, 0, -7.0], [-0.8, 0, -7.0]])
    cluster = extract_cluster(atoms, 0, repair='drop', min_distance=1.9, **CUT)
    assert cluster.arrays['parent_index'].tolist() == [0, 1]


def test_drop_removes_one_atom_rather_than_two() -> None:
    atoms = Atoms('Al4', positions=[[0, 0, 0], [0, 0, 6.9], [0.8, 0, -7.2], [-0.8, 0, -7.2]])
    cluster = extract_cluster(atoms, 0, repair='drop', min_distance=1.0, **CUT)
    assert cluster.arrays['parent_index'].tolist() == [0, 2, 3]


@pytest.mark.parametrize('repair', ['drop', 'relax'])
def test_core_atoms_are_never_touched(repair: str) -> None:
    cut = {'radius': 6.9, 'buffer': 0.0, 'cutoff': 6.0, 'epsilon': 0.5}
    atoms = Atoms('Al3', positions=[[0, 0, 0], [6.85, 0, 0], [-6.85, 0, 0]])
    with pytest.raises(OodalError, match='both are core atoms, which no repair may touch'):
        extract_cluster(atoms, 0, repair=repair, min_distance=0.7, **cut)
    with pytest.raises(OodalError, match='across the cell boundary'):
        extract_cluster(atoms, 0, min_distance=0.7, **cut)


def test_relax_parts_a_pair_evenly() -> None:
    cluster = extract_cluster(crossing(0.3), 0, repair='relax', min_distance=0.5, **CUT)
    assert across_boundary(cluster)[2, 3] == pytest.approx(0.501, abs=1e-9)
    assert cluster.info['repair_moved'] == 2
    assert cluster.info['repair_largest_move'] == pytest.approx(0.1005, abs=1e-9)


def test_relax_parts_atoms_on_top_of_each_other() -> None:
    cluster = extract_cluster(crossing(1e-4, depth=7.2499), 0, repair='relax', **CUT)
    assert across_boundary(cluster)[2, 3] >= 0.5


def test_relax_leaves_what_the_centre_feels_where_it_is() -> None:
    atoms = Atoms('Al4', positions=[[0, 0, 0], [2.5, 0, 0], [0.5, 0, 5.9], [-0.5, 0, -7.0]])
    cluster = extract_cluster(atoms, 0, repair='relax', min_distance=1.9, **CUT)
    assert cluster.info['repair_moved'] == 1
    np.testing.assert_array_equal(cluster.positions[2], [7.75, 7.25, 13.15])
    assert across_boundary(cluster)[2, 3] >= 1.9


def test_relax_moves_nothing_into_the_reach_of_the_centre() -> None:
    atoms = Atoms('Al4', positions=[[0, 0, 0], [2.5, 0, 0], [0, 0, 6.05], [0, 0, -7.2]])
    cluster = extract_cluster(atoms, 0, repair='relax', min_distance=1.9, **CUT)
    assert cluster.info['repair_moved'] == 2
    assert cluster.positions[2, 2] - 7.25 == pytest.approx(6.0)
    assert across_boundary(cluster)[2, 3] >= 1.9


def test_relax_gives_up_after_a_bounded_number_of_steps() -> None:
    with pytest.raises(OodalError, match='500 steps did not part them'):
        extract_cluster(liquid(0), 0, repair='relax', min_distance=4.0, **CUT)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.5, 1.9), st.sampled_from(['sphere', 'cube']), st.floats(0.0, 1.0))
def test_drop_leaves_no_overlap_and_loses_no_core_atom(seed: int, limit: float, shape: str, epsilon: float) -> None:
    atoms = liquid(seed)
    cut = CUT | {'epsilon': epsilon, 'shape': shape}
    uncut = extract_cluster(atoms, 0, min_distance=0.0, **cut)
    cluster = extract_cluster(atoms, 0, min_distance=limit, repair='drop', **cut)
    assert across_boundary(cluster).min() >= limit
    kept = np.isin(uncut.positions.view('f8,f8,f8'), cluster.positions.view('f8,f8,f8')).ravel()
    assert kept.sum() == len(cluster) == len(uncut) - cluster.info['repair_dropped']
    assert kept[uncut.arrays['force_mask'] == 1.0].all()
    # nobody was dropped in vain: each was too close to somebody who was there
    assert (across_boundary(uncut)[~kept].min(axis=1) < limit).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.5, 1.3), st.sampled_from(['sphere', 'cube']))
def test_relax_moves_buffer_atoms_only_and_leaves_no_overlap(seed: int, limit: float, shape: str) -> None:
    atoms = liquid(seed)
    cut = CUT | {'shape': shape}
    uncut = extract_cluster(atoms, 0, min_distance=0.0, **cut)
    try:
        cluster = extract_cluster(atoms, 0, min_distance=limit, repair='relax', **cut)
    except OodalError as error:
        assume('steps did not part' not in str(error))
        raise
    core = uncut.arrays['force_mask'] == 1.0
    assert across_boundary(cluster).min() >= limit
    np.testing.assert_array_equal(cluster.positions[core], uncut.positions[core])  # to the last bit
    np.testing.assert_array_equal(cluster.arrays['force_mask'], uncut.arrays['force_mask'])
    own = np.linalg.norm(cluster.positions - cluster.positions[0], axis=1)
    np.testing.assert_array_equal(cluster.arrays['force_mask'], (own < 4.0).astype(float))
    moved = np.any(cluster.positions != uncut.positions, axis=1)
    assert moved.sum() == cluster.info['repair_moved']
    # pairs of the parent are no closer than they were, or than the limit
    before = np.linalg.norm(uncut.positions[:, None] - uncut.positions[None], axis=2)
    after = np.linalg.norm(cluster.positions[:, None] - cluster.positions[None], axis=2)
    assert (after >= np.minimum(before, limit) - 1e-8).all()
    # and the centre feels nothing of it
    felt = np.linalg.norm(uncut.positions - uncut.positions[0], axis=1) < CUT['cutoff']
    assert not moved[felt].any()
    assert (own[~felt] >= CUT['cutoff'] - 1e-9).all()
