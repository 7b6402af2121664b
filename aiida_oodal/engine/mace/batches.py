"""Batches of graphs that fit into memory.

Batches are counted in edges, since time and memory go with edges; one that does not fit is halved, and later ones are
made smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .domains import evaluate_in_domains
from .graphs import Graph, merge_graphs
from .memory import Budget, is_out_of_memory
from .models import Evaluation, MaceModel

__all__ = ['evaluate_graphs']


def evaluate_graphs(
    model: MaceModel,
    graphs: Sequence[Graph],
    budget: Budget,
    *,
    forces: bool = False,
) -> Evaluation:
    """Evaluate graphs as one batch; where memory runs out in halves, and a single one in domains.

    :return: latents, energies and forces of all graphs in order.
    """
    batch = merge_graphs(graphs)
    try:
        return model.evaluate(batch, forces=forces)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # outside of the except clause, so that the exception no longer holds the tensors of the failed attempt
    _release(model.device)
    budget.shrink(batch.edges.shape[1])
    del batch
    if len(graphs) == 1:
        return evaluate_in_domains(model, graphs[0], budget, forces=forces)
    middle = len(graphs) // 2
    halves = [evaluate_graphs(model, part, budget, forces=forces) for part in (graphs[:middle], graphs[middle:])]
    return Evaluation(
        latents=np.concatenate([half.latents for half in halves]),
        energies=np.concatenate([half.energies for half in halves]),
        forces=np.concatenate([half.forces for half in halves if half.forces is not None]) if forces else None,
    )


def _release(device: str) -> None:
    """Give memory that torch holds for later use back to the GPU."""
    if device == 'cuda':
        import torch

        torch.cuda.empty_cache()
