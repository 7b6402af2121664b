from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.graphs import build_graph
from aiida_oodal.engine.mace.memory import CPU_EDGES, Budget, free_memory, is_out_of_memory
from aiida_oodal.engine.mace.models import open_model


@contextlib.contextmanager
def address_space(more: int):
    """Leave this process ``more`` bytes beyond what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_free_memory_knows_the_limit_of_the_process():
    assert free_memory() > 64 * 1024**2
    with address_space(64 * 1024**2):
        assert free_memory() <= 64 * 1024**2


def test_real_exhaustion_is_recognised():
    import torch

    with address_space(64 * 1024**2):
        with pytest.raises(RuntimeError) as caught:
            torch.zeros(2**30)
        with pytest.raises(MemoryError) as caught_by_numpy:
            np.ones(2**30)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(caught_by_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB'))
    assert not is_out_of_memory(RuntimeError('mat1 and mat2 shapes cannot be multiplied'))
    assert not is_out_of_memory(ValueError('out of memory'))


def test_a_budget_of_edges_fills_up():
    graph = build_graph(bulk('Cu', cubic=True), 3.0)
    assert graph.n_edges == 48
    budget = Budget(edges=100, domain_edges=1000)
    assert not budget.is_full([], graph)
    assert not budget.is_full([graph], graph)
    assert budget.is_full([graph, graph], graph)
    one_by_one = Budget(edges=100, domain_edges=1000, structures=1)
    assert not one_by_one.is_full([], graph)
    assert one_by_one.is_full([graph], graph)


def test_a_budget_shrinks_and_stays_small():
    budget = Budget(edges=5000, domain_edges=100_000)
    budget.shrink(20_000)
    assert (budget.edges, budget.domain_edges) == (5000, 10_000)
    budget.shrink(4000)
    assert (budget.edges, budget.domain_edges) == (2000, 2000)
    budget.shrink(9000)
    assert (budget.edges, budget.domain_edges) == (2000, 2000)
    budget.shrink(1)
    assert (budget.edges, budget.domain_edges) == (1, 1)


def test_a_budget_is_chosen_from_free_memory(alcu_models):
    model = open_model(alcu_models['w1'], device='cpu')
    budget = Budget.choose([model])
    assert budget.edges == CPU_EDGES
    with address_space(256 * 1024**2):
        smaller = Budget.choose([model], forces=True)
    assert 1 <= smaller.domain_edges < 256 * 1024**2 / model.bytes_per_edge(forces=True)
    assert smaller.domain_edges < budget.domain_edges
    chosen = Budget.choose([model], edges=77, domain_edges=99)
    assert (chosen.edges, chosen.domain_edges, chosen.structures) == (77, 99, None)
    with pytest.raises(OodalError, match='exclude each other'):
        Budget.choose([model], edges=77, structures=1)
