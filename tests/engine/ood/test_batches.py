from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from aiida_oodal.engine.ood.batches import evaluate_graphs
from aiida_oodal.engine.ood.graphs import build_graph, merge_graphs
from aiida_oodal.engine.ood.memory import Budget
from aiida_oodal.engine.ood.models import open_model


@contextlib.contextmanager
def little_memory(more):
    """Leave this process ``more`` MiB beyond what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + more * 1024**2, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_batch_that_does_not_fit_is_halved(alcu_models, alcu_crystals):
    model = open_model(alcu_models['w1'], device='cpu', precision='float64')
    graphs = [build_graph(atoms, model.info.cutoff) for atoms in alcu_crystals]
    expected = model.evaluate(merge_graphs(graphs), forces=True)
    budget = Budget(edges=10**9, domain_edges=10**9)

    # about a gigabyte as a whole
    with little_memory(96):
        evaluation = evaluate_graphs(model, graphs * 8, budget, forces=True)

    assert budget.edges <= sum(graph.n_edges for graph in graphs) * 4
    assert evaluation.forces is not None
    assert expected.forces is not None
    np.testing.assert_allclose(evaluation.latents, np.tile(expected.latents, (8, 1)), rtol=0, atol=1e-10)
    np.testing.assert_allclose(evaluation.energies, np.tile(expected.energies, 8), rtol=0, atol=1e-9)
    np.testing.assert_allclose(evaluation.forces, np.tile(expected.forces, (8, 1)), rtol=0, atol=1e-10)


def test_one_structure_that_does_not_fit_is_cut_into_domains(alcu_models):
    model = open_model(alcu_models['w1'], device='cpu')
    atoms = bulk('Al', cubic=True).repeat((24, 9, 9))
    atoms.rattle(0.05, seed=1)
    graph = build_graph(atoms, model.info.cutoff)
    expected = model.evaluate(merge_graphs([graph])).latents
    budget = Budget(edges=10**9, domain_edges=10**9)

    with little_memory(96):
        evaluation = evaluate_graphs(model, [graph], budget)

    assert budget.domain_edges < graph.n_edges
    np.testing.assert_allclose(evaluation.latents, expected, rtol=0, atol=1e-6)


def test_other_errors_are_not_taken_for_exhaustion(alcu_models, ethanol):
    model = open_model(alcu_models['w1'], device='cpu')
    # H, C and O have no place in this model: one_hot raises
    with pytest.raises(RuntimeError, match='non-negative'):
        evaluate_graphs(model, [build_graph(ethanol, 3.0)], Budget(100, 100))
