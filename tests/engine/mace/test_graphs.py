from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs

CUTOFF = 3.1


def vectors(edges, positions, shifts):
    """Return sender, receiver and the rounded vector between them, one row an edge, in a fixed order."""
    rows = np.column_stack([edges.T, np.round(positions[edges[1]] - positions[edges[0]] + shifts, 6) + 0.0])
    return rows[np.lexsort(rows.T)]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n_atoms=st.integers(1, 7),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_edges_are_all_pairs_within_the_cutoff(seed, n_atoms, pbc):
    random = np.random.default_rng(seed)
    # smaller than the cutoff, leaning, and with atoms far outside of it
    cell = np.diag(random.uniform(2.5, 4.0, 3)) + random.uniform(-0.6, 0.6, (3, 3))
    atoms = Atoms(['C'] * n_atoms, positions=random.uniform(-6.0, 9.0, (n_atoms, 3)), cell=cell, pbc=pbc)

    graph = build_graph(atoms, CUTOFF)

    first, second, images = neighbor_list('ijS', atoms, CUTOFF)
    expected = vectors(np.array([first, second]).reshape(2, -1), atoms.positions, images @ cell)
    found = vectors(graph.edges, graph.positions, graph.shifts)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_open_directions_need_no_cell_vector():
    wire = Atoms('C2', positions=[[0, 0, 0], [0, 1.2, 50.0]], cell=[[0, 0, 2.5], [0, 0, 0], [0, 0, 0]], pbc=[1, 0, 0])
    graph = build_graph(wire, CUTOFF)
    first, second = graph.edges
    lengths = np.linalg.norm(graph.positions[second] - graph.positions[first] + graph.shifts, axis=1)
    # the chain has neighbours at 2.5 angstrom, and z = 50 is 20 periods away: the pair is 1.2 apart
    assert sorted(np.round(lengths, 6)) == [1.2, 1.2, 2.5, 2.5, 2.5, 2.5] + [round(float(np.hypot(1.2, 2.5)), 6)] * 4


def test_atoms_that_flew_apart_cost_no_memory():
    atoms = Atoms('C3', positions=[[0, 0, 0], [1.4, 0, 0], [1e7, 1e7, -1e7]])
    assert build_graph(atoms, CUTOFF).n_edges == 2


@pytest.mark.parametrize('cell', [None, [[3.0, 0, 0], [6.0, 0, 0], [0, 0, 3.0]]])
def test_a_periodic_direction_needs_a_vector(cell):
    with pytest.raises(OodalError, match='they must be finite and independent'):
        build_graph(Atoms('C', cell=cell, pbc=True), CUTOFF)


def test_places_are_inside_the_cell():
    atoms = bulk('Cu', cubic=True)
    moved = atoms.copy()
    moved.positions += np.array([[0, 0, 0], [7, 0, 0], [0, -7, 0], [3, 3, 3]]) @ atoms.cell.array
    np.testing.assert_allclose(build_graph(moved, 3.0).places, atoms.positions, atol=1e-9)


def test_merged_graphs_keep_their_own_edges():
    graphs = [build_graph(bulk('Cu', cubic=True), 3.0), build_graph(Atoms('Al2', [[0, 0, 0], [2, 0, 0]]), 3.0)]
    batch = merge_graphs(graphs)
    assert batch.sizes.tolist() == [4, 2]
    assert batch.n_wanted == 2
    owner = np.repeat([0, 1], batch.sizes)
    assert np.array_equal(owner[batch.edges[0]], owner[batch.edges[1]])
    assert batch.edges.shape[1] == batch.shifts.shape[0] == 48 + 2
    assert batch.edges[:, -2:].tolist() == [[4, 5], [5, 4]]
