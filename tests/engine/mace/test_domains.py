from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from aiida_oodal.engine.mace.domains import _count_edges, _cut_domain, _Neighbours, evaluate_in_domains, split_atoms
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.memory import Budget
from aiida_oodal.engine.mace.models import open_model


def crystal(pbc=True):
    atoms = bulk('Al', 'fcc', a=3.99, cubic=True).repeat((5, 4, 3))
    atoms.symbols[::3] = 'Cu'
    atoms.set_cell(atoms.cell.array + np.array([[0, 0, 0], [1.0, 0, 0], [0, 0.5, 0]]), scale_atoms=True)
    atoms.rattle(0.15, seed=4)
    atoms.pbc = pbc
    return atoms


@pytest.mark.parametrize('pbc', [True, False, (True, False, True)])
@pytest.mark.parametrize(('precision', 'tolerance'), [('float32', 1e-6), ('float64', 1e-10)])
def test_domains_give_what_the_whole_gives(pbc, precision, tolerance, alcu_models):
    model = open_model(alcu_models['w1'], precision=precision)
    graph = build_graph(crystal(pbc), model.info.cutoff)
    whole = model.evaluate(merge_graphs([graph]), forces=True)
    budget = Budget(10**6, domain_edges=graph.n_edges // 2)
    assert len(list(split_atoms(_Neighbours(graph), model.n_layers, budget.domain_edges))) > 2

    parts = evaluate_in_domains(model, graph, budget, forces=True)

    np.testing.assert_allclose(parts.latents, whole.latents, rtol=0, atol=tolerance)
    np.testing.assert_allclose(parts.forces, whole.forces, rtol=0, atol=10 * tolerance)
    np.testing.assert_allclose(parts.energies, whole.energies, rtol=0, atol=len(graph) * tolerance)
    assert parts.latents.dtype == whole.latents.dtype


def test_equivariant_features_travel_between_domains(untrained, ice):
    model = open_model(untrained('4x0e+4x1o'))
    graph = build_graph(ice.repeat(2), model.info.cutoff)
    whole = model.evaluate(merge_graphs([graph])).latents
    parts = evaluate_in_domains(model, graph, Budget(10**6, domain_edges=graph.n_edges // 4)).latents
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-10)


def test_a_domain_holds_no_more_than_its_inner_atoms_see(alcu_models):
    graph = build_graph(crystal(pbc=False), 4.2)
    neighbours = _Neighbours(graph)
    inner = np.array([0, 7])
    atoms, batch = _cut_domain(neighbours, inner, n_layers=2)
    assert atoms[:2].tolist() == [0, 7]
    assert batch.sizes.tolist() == [2, len(atoms) - 2]
    adjacent = np.zeros((len(graph), len(graph)), dtype=int)
    adjacent[graph.edges[1], graph.edges[0]] = 1
    np.fill_diagonal(adjacent, 1)
    # what two layers see: neighbours of neighbours
    assert set(atoms) == set(np.flatnonzero((adjacent @ adjacent)[inner].any(axis=0)))
    assert batch.edges.shape[1] == adjacent[adjacent[inner].any(axis=0)].sum() - adjacent[inner].any(axis=0).sum()


def test_every_atom_is_inner_once_and_domains_stay_within_their_limit():
    atoms = crystal()
    # diffused by whole cells: neighbours are neighbours still
    atoms.positions += np.random.default_rng(0).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    graph = build_graph(atoms, 4.2)
    neighbours = _Neighbours(graph)
    parts = list(split_atoms(neighbours, 2, 3000))
    assert sorted(np.concatenate(parts)) == list(range(len(atoms)))
    assert all(_count_edges(neighbours, part, 2) <= 3000 for part in parts)
    # compact sets are few; sets scattered over the cell see all of it
    straight = list(split_atoms(_Neighbours(build_graph(crystal(), 4.2)), 2, 3000))
    assert len(parts) == len(straight)


def test_a_limit_below_what_one_atom_sees_is_no_obstacle(alcu_models):
    model = open_model(alcu_models['w1'])
    graph = build_graph(bulk('Al', cubic=True), model.info.cutoff)
    whole = model.evaluate(merge_graphs([graph])).latents
    parts = evaluate_in_domains(model, graph, Budget(1, domain_edges=1)).latents
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)
