"""The carved cell: atoms, mask, what it inherits, and what is refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms

from aiida_oodal.engine.carve.cluster import Cut, cut_each, extract_cluster, extract_clusters, take_whole
from aiida_oodal.engine.errors import OodalError


def aluminium(size: int = 3, seed: int | None = None) -> Atoms:
    atoms = bulk('Al', 'fcc', a=4.05, cubic=True) * (size, size, size)
    if seed is not None:
        atoms.rattle(0.08, seed=seed)
    return atoms


@pytest.mark.parametrize('shape', ['sphere', 'cube'])
@pytest.mark.parametrize('offset', [0.0, 4.9, -37.0])
def test_chain_around_c_is_b_c_d(shape: str, offset: float) -> None:
    # A-B-C-D-E along x, one atom every 2 angstrom, periodic along x only
    chain = Atoms('HHeLiBeB', positions=[[2.0 * i + offset, 0, 0] for i in range(5)], cell=[10, 0, 0], pbc=[1, 0, 0])
    chain.wrap()
    cluster = extract_cluster(chain, 2, radius=1.5, buffer=1.5, cutoff=2.5, epsilon=0.5, shape=shape)
    assert str(cluster.symbols) == 'LiHeBe'
    assert cluster.arrays['parent_index'].tolist() == [2, 1, 3]
    assert cluster.arrays['force_mask'].tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(cluster.positions, 3.25 + np.array([[0, 0, 0], [-2, 0, 0], [2, 0, 0]]), atol=1e-12)
    assert cluster.pbc.all()
    np.testing.assert_array_equal(cluster.cell.array, np.diag([6.5] * 3))


@pytest.mark.parametrize('center', [0, 17, 107])
@pytest.mark.parametrize('shape', ['sphere', 'cube'])
def test_aluminium_has_as_many_atoms_as_brute_force_finds(center: int, shape: str) -> None:
    atoms = aluminium(3, seed=4)
    radius, buffer, epsilon = 4.0, 3.0, 0.5  # wider than the cell of 12.15 angstrom: some atoms are there twice
    cluster = extract_cluster(atoms, center, radius, buffer, cutoff=6.0, epsilon=epsilon, shape=shape)
    vectors = (
        atoms.positions[None]
        + 12.15 * np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T[:, None]
        - atoms.positions[center]
    ).reshape(-1, 3)
    distances = np.linalg.norm(vectors, axis=1)
    inside = distances < radius + buffer if shape == 'sphere' else np.abs(vectors).max(axis=1) < 7.25
    assert len(cluster) == np.count_nonzero(inside)
    assert cluster.arrays['force_mask'].sum() == np.count_nonzero(distances < radius)
    np.testing.assert_array_equal(cluster.positions[0], [7.25] * 3)
    own = np.linalg.norm(cluster.positions - 7.25, axis=1)
    np.testing.assert_allclose(np.sort(own), np.sort(distances[inside]), atol=1e-9)
    np.testing.assert_array_equal(cluster.arrays['force_mask'], (own < radius).astype(float))
    assert len(np.unique(cluster.arrays['parent_index'])) < len(cluster) or shape == 'sphere'


def test_an_atom_at_the_radius_is_buffer() -> None:
    atoms = aluminium(5)
    nearest = 4.05 / np.sqrt(2)
    for center in range(0, 500, 49):  # whichever way the distances are rounded
        cluster = extract_cluster(atoms, center, nearest, 4.0, cutoff=6.0, shape='sphere')
        assert cluster.arrays['force_mask'].sum() == 1
    assert extract_cluster(atoms, 0, nearest + 1e-6, 4.0, cutoff=6.0).arrays['force_mask'].sum() == 13


def test_a_cube_cut_along_the_lattice_is_the_crystal_itself() -> None:
    # L = 12.15 = 3 a: opposite faces are the same plane and must be there once
    cluster = extract_cluster(aluminium(6), 333, 4.0, 2.0, cutoff=6.0, epsilon=0.15)
    assert len(cluster) == 4 * 3**3
    distances = cluster.get_all_distances(mic=True) + 99 * np.eye(len(cluster))
    np.testing.assert_allclose(distances.min(axis=1), 4.05 / np.sqrt(2), atol=1e-9)


def test_density_of_a_cube_is_that_of_the_parent() -> None:
    atoms = aluminium(6, seed=1)
    cluster = extract_cluster(atoms, 100, 5.0, 4.0, cutoff=6.0)
    assert len(cluster) / cluster.get_volume() == pytest.approx(len(atoms) / atoms.get_volume(), rel=0.08)


def test_everything_but_labels_is_carried_along(hot_al: Atoms) -> None:
    rng = np.random.default_rng(0)
    hot_al.set_momenta(rng.normal(size=(500, 3)))
    hot_al.arrays['REF_forces'] = rng.normal(size=(500, 3))
    hot_al.info |= {'walker': 'w3', 'REF_energy': -1.0, 'energy': -2.0}
    cluster = extract_cluster(hot_al, 223, 4.0, 3.0, cutoff=6.0, repair='drop')
    parent = cluster.arrays['parent_index']
    assert parent[0] == 223
    np.testing.assert_array_equal(cluster.arrays['gamma'], hot_al.arrays['gamma'][parent])
    np.testing.assert_array_equal(cluster.get_momenta(), hot_al.get_momenta()[parent])
    assert 'REF_forces' not in cluster.arrays
    assert cluster.calc is None
    expected = {'step': 300, 'walker': 'w3', 'center_parent_index': 223, 'radius': 4.0, 'buffer': 3.0, 'shape': 'cube'}
    assert expected.items() <= cluster.info.items()
    assert not {'REF_energy', 'energy'} & set(cluster.info)
    hot_al.arrays['gamma'][:] = -1  # the cluster does not share memory with its snapshot
    assert cluster.arrays['gamma'].min() >= 0


def test_masses_and_held_atoms_are_carried_along(hot_al: Atoms) -> None:
    masses = np.where(np.arange(500) % 2, 10.0, 40.0)
    hot_al.set_masses(masses)
    hot_al.set_constraint(FixAtoms(np.arange(0, 500, 3)))
    cluster = extract_cluster(hot_al, 223, 4.0, 3.0, cutoff=6.0, repair='relax', bond_scale=0.75)
    parent = cluster.arrays['parent_index']
    np.testing.assert_array_equal(cluster.get_masses(), masses[parent])
    np.testing.assert_array_equal(cluster.constraints[0].index, np.flatnonzero(parent % 3 == 0))
    hot_al.set_constraint()
    assert extract_cluster(hot_al, 223, 4.0, 3.0, cutoff=6.0, repair='drop').constraints == []


def test_the_snapshot_is_left_alone(hot_al: Atoms) -> None:
    before = hot_al.copy()
    extract_cluster(hot_al, 3, 4.0, 3.0, cutoff=6.0, bond_scale=0.75, repair='relax')
    assert hot_al == before
    assert hot_al.info == before.info


def test_a_surface_keeps_its_vacuum() -> None:
    slab = fcc111('Al', (8, 8, 3), vacuum=None, periodic=False)
    top = int(np.argmax(slab.positions[:, 2]))
    cluster = extract_cluster(slab, top, 4.0, 3.0, cutoff=6.0, bond_scale=0.75, repair='drop')
    assert np.ptp(cluster.positions[:, 2]) == pytest.approx(np.ptp(slab.positions[:, 2]))
    assert cluster.positions[:, 2].max() == pytest.approx(7.25)


def test_a_molecule_is_taken_whole() -> None:
    ethanol = molecule('CH3CH2OH')
    cluster = extract_cluster(ethanol, 2, 3.0, 4.0, cutoff=6.0, shape='sphere')
    assert sorted(cluster.numbers) == sorted(ethanol.numbers)
    assert cluster.symbols[0] == ethanol.symbols[2]


def test_many_centres_give_what_each_gives(hot_al: Atoms) -> None:
    centres = [499, 0, 223, 223, 17]
    options = {'cutoff': 6.0, 'bond_scale': 0.75, 'repair': 'drop'}
    for center, cluster in zip(centres, extract_clusters(hot_al, centres, 4.0, 3.0, **options), strict=True):
        alone = extract_cluster(hot_al, center, 4.0, 3.0, **options)
        assert cluster == alone
        assert cluster.info == alone.info
    assert extract_clusters(hot_al, [], 4.0, 3.0, **options) == []


def test_one_bad_centre_does_not_cost_the_others() -> None:
    atoms = aluminium(4)
    atoms += Atoms('Al', positions=[atoms.positions[40] + 0.2])
    results = list(cut_each(atoms, [40, 200, 256], Cut(4.0, 3.0, 6.0)))
    assert isinstance(results[1], Atoms)
    for bad in (results[0], results[2]):
        assert isinstance(bad, OodalError)
        assert 'atoms 40 and 256 of the snapshot' in str(bad).replace('256 and 40', '40 and 256')


def test_an_exploded_structure_without_neighbours_is_an_error() -> None:
    atoms = Atoms('Al4', positions=[[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40]], cell=[80] * 3, pbc=True)
    for shape in ('sphere', 'cube'):
        with pytest.raises(OodalError, match=r'atom 2: no other atom within radius \+ buffer = 7'):
            extract_cluster(atoms, 2, 4.0, 3.0, cutoff=6.0, shape=shape)
    atoms.positions[1] = [6.5, 6.5, 6.5]  # in the corner of the cube, out of reach
    with pytest.raises(OodalError, match='no other atom'):
        extract_cluster(atoms, 0, 4.0, 3.0, cutoff=6.0, shape='cube')


@pytest.mark.parametrize('edge', [12.0, 11.0])
def test_an_edge_of_at_most_twice_the_cutoff_is_an_error(edge: float) -> None:
    with pytest.raises(OodalError, match=f'{edge:g} angstrom and must exceed twice the cutoff of 6'):
        extract_cluster(aluminium(), 0, 4.0, edge / 2 - 4.0, cutoff=6.0, epsilon=0.0)


def test_overlaps_of_the_snapshot_itself_are_never_mended() -> None:
    atoms = aluminium(4)
    atoms += Atoms('Al', positions=[atoms.positions[40] + [0.3, 0, 0]])
    for repair in ('error', 'drop', 'relax'):
        with pytest.raises(OodalError, match=r'0\.30 angstrom apart \(limit 0\.50\) in the snapshot itself'):
            extract_cluster(atoms, 40, 4.0, 3.0, cutoff=6.0, repair=repair)
    # a short bond is what clusters are cut for
    atoms.positions[-1] = atoms.positions[40] + [0.9, 0, 0]
    cluster = extract_cluster(atoms, 40, 4.0, 3.0, cutoff=6.0, repair='drop', min_distance=1.5)
    assert np.linalg.norm(cluster.positions - cluster.positions[0], axis=1)[1:].min() == pytest.approx(0.9)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'center_index': 108}, r'centre atom 108 does not exist: the snapshot has atoms 0 to 107'),
        ({'center_index': -1}, r'centre atom -1 does not exist'),
        ({'center_index': 1.5}, r'not a list of whole numbers'),
        ({'radius': 0.0}, r'radius is 0\.0; it must be finite and above 0'),
        ({'radius': -4.0}, r'radius is -4'),
        ({'radius': np.nan}, r'radius is nan'),
        ({'buffer': -1.0}, r'buffer is -1\.0; it must be finite and at least 0'),
        ({'cutoff': 0.0}, r'cutoff is 0'),
        ({'cutoff': np.inf}, r'cutoff is inf'),
        ({'epsilon': -0.5}, r'epsilon is -0\.5'),
        ({'min_distance': -0.5}, r'min_distance is -0\.5'),
        ({'min_distance': 7.25}, r'min_distance is 7\.25 angstrom; it must be below half the edge'),
        ({'bond_scale': np.nan}, r'bond_scale is nan'),
        ({'shape': 'octahedron'}, r"shape is 'octahedron'; it must be 'sphere' or 'cube'"),
        ({'repair': 'pray'}, r"repair is 'pray'"),
    ],
)
def test_bad_input_is_a_clear_error(change: dict, message: str) -> None:
    arguments = {'center_index': 0, 'radius': 4.0, 'buffer': 3.0, 'cutoff': 6.0} | change
    with pytest.raises(OodalError, match=message):
        extract_cluster(aluminium(), **arguments)


def test_bad_snapshots_are_a_clear_error() -> None:
    atoms = aluminium()
    atoms.positions[55, 1] = np.nan
    with pytest.raises(OodalError, match='atom 55 of the snapshot is at'):
        extract_cluster(atoms, 0, 4.0, 3.0, cutoff=6.0)
    flat = aluminium()
    flat.cell[2] = 0
    with pytest.raises(OodalError, match='zero volume along its periodic axes'):
        extract_cluster(flat, 0, 4.0, 3.0, cutoff=6.0)
    with pytest.raises(OodalError, match='centre atom 0 does not exist'):
        extract_cluster(Atoms(cell=[9, 9, 9], pbc=True), 0, 4.0, 3.0, cutoff=6.0)


def test_a_small_snapshot_is_taken_whole_with_its_worst_atom_first() -> None:
    slab = fcc111('Al', (2, 2, 3), vacuum=5.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms([0, 1, 2, 3]))
    slab.arrays |= {'gamma': np.arange(12.0), 'REF_forces': np.zeros((12, 3))}
    slab.info = {'step': 7, 'REF_energy': -1.0}
    whole = take_whole(slab, 5)
    order = [5, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert whole.arrays['parent_index'].tolist() == order
    np.testing.assert_array_equal(whole.positions, slab.positions[order])
    np.testing.assert_array_equal(whole.arrays['gamma'], order)
    np.testing.assert_array_equal(whole.cell.array, slab.cell.array)
    assert whole.pbc.tolist() == [True, True, False]
    assert whole.arrays['force_mask'].tolist() == [1.0] * 12
    assert whole.constraints[0].index.tolist() == [1, 2, 3, 4]
    assert whole.info == {'step': 7, 'shape': 'whole', 'center_parent_index': 5}
    assert 'REF_forces' not in whole.arrays
    (again,) = cut_each(slab, [5], Cut(4.0, 3.0, 5.0, whole_atoms=12))
    assert again == whole
    (cut,) = cut_each(slab, [5], Cut(4.0, 3.0, 5.0, whole_atoms=11, repair='drop', bond_scale=0.75))
    assert cut.info['shape'] == 'cube'


def test_a_snapshot_whose_atoms_overlap_is_not_taken_whole() -> None:
    atoms = aluminium(2)
    atoms.positions[3] = atoms.positions[9] + [0.3, 0, 0]
    (refused,) = cut_each(atoms, [3], Cut(4.0, 3.0, 5.0, whole_atoms=100))
    assert 'atoms 3 and 9 are 0.3 angstrom apart in the snapshot itself' in str(refused)
