"""One structure that is larger than the memory, evaluated part by part with the surroundings each part sees.

After ``n`` layers an atom has seen what is ``n`` edges away. A domain is a set of inner atoms; around them come all
atoms up to ``n - 1`` edges away, with all edges that end in one of these, and the senders of those edges: ``n`` cutoffs
in all, less where no chain of neighbours reaches. The inner atoms then have the very graph of the whole
structure, so that their latents and energies are those of the whole; periodic images need no thought, since an edge
carries its lattice vector along. Forces are the sum over domains of the gradients of the inner atoms' energy.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

from .graphs import Batch, Graph
from .memory import Budget, is_out_of_memory
from .models import Evaluation, MaceModel

__all__ = ['evaluate_in_domains', 'split_atoms']

IntArray = NDArray[np.int64]


class _Neighbours:
    """The edges of a graph sorted by receiver, to find those that end in given atoms.

    :ivar starts: edges ``order[starts[i]:starts[i + 1]]`` end in atom ``i``, shape ``(n_atoms + 1,)``.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        counts = np.bincount(graph.edges[1], minlength=len(graph))
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.order = np.argsort(graph.edges[1], kind='stable')

    def edges_into(self, atoms: IntArray) -> IntArray:
        """Return the indices of the edges that end in ``atoms``."""
        counts = self.starts[atoms + 1] - self.starts[atoms]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        edges: IntArray = self.order[np.repeat(self.starts[atoms], counts) + within]
        return edges

    def around(self, atoms: IntArray, n_edges_away: int) -> IntArray:
        """Return ``atoms`` and all others up to so many edges away."""
        seen = np.zeros(len(self.graph), dtype=bool)
        seen[atoms] = True
        edge = atoms
        for _ in range(n_edges_away):
            senders = np.unique(self.graph.edges[0, self.edges_into(edge)])
            edge = senders[~seen[senders]]
            seen[edge] = True
        return np.flatnonzero(seen)


def evaluate_in_domains(
    model: MaceModel, graph: Graph, budget: Budget, *, forces: bool = False, name: str = 'the structure'
) -> Evaluation:
    """Evaluate one structure in domains of at most ``budget.domain_edges`` edges each.

    A domain that does not fit into memory is split again, and the budget shrinks.

    :param graph: the whole structure; 60 bytes per edge stay in memory, a model takes several thousand.
    :param name: what messages call the structure.
    :return: as of the whole structure, shapes ``(n_atoms, n_features)``, ``(1,)`` and ``(n_atoms, 3)``.
    :raises OodalError: if a single atom with what it sees does not fit.
    """
    neighbours = _Neighbours(graph)
    latents = np.zeros((len(graph), len(model.columns)), dtype=model.stored_dtype)
    gradients = np.zeros((len(graph), 3), dtype=np.float64) if forces else None
    energy = 0.0
    waiting = list(split_atoms(neighbours, model.n_layers, budget.domain_edges))[::-1]
    while waiting:
        inner = waiting.pop()
        atoms, batch = _cut_domain(neighbours, inner, model.n_layers)
        evaluation = _try(model, batch, forces=forces)
        if evaluation is None:
            n_edges = batch.edges.shape[1]
            if len(inner) == 1:
                raise OodalError(
                    f'{name}: atom {inner[0]} and what it sees ({n_edges} edges) do not fit into memory; '
                    'ask for more memory, or for float32'
                )
            budget.shrink(n_edges)
            waiting.extend(_halves(graph, inner)[::-1])
            continue
        latents[inner] = evaluation.latents
        energy += float(evaluation.energies[0])
        if gradients is not None and evaluation.forces is not None:
            gradients[atoms] += evaluation.forces
    return Evaluation(latents, np.array([energy]), None if gradients is None else gradients.astype(model.stored_dtype))


def split_atoms(neighbours: _Neighbours, n_layers: int, max_edges: int) -> Iterator[IntArray]:
    """Cut a structure into compact sets of atoms whose domains have at most ``max_edges`` edges each.

    A single atom is a set even if it sees more.
    """
    waiting = [np.arange(len(neighbours.graph))]
    while waiting:
        inner = waiting.pop()
        if len(inner) == 1 or _count_edges(neighbours, inner, n_layers) <= max_edges:
            yield inner
        else:
            waiting.extend(_halves(neighbours.graph, inner)[::-1])


def _count_edges(neighbours: _Neighbours, inner: IntArray, n_layers: int) -> int:
    receivers = neighbours.around(inner, n_layers - 1)
    return int((neighbours.starts[receivers + 1] - neighbours.starts[receivers]).sum())


def _halves(graph: Graph, atoms: IntArray) -> list[IntArray]:
    """Cut a set of atoms in two across its longest side; the cut is at the median, so that both have atoms."""
    places = graph.places[atoms]
    order = np.argsort(places[:, np.ptp(places, axis=0).argmax()], kind='stable')
    middle = len(atoms) // 2
    return [np.sort(atoms[order[:middle]]), np.sort(atoms[order[middle:]])]


def _cut_domain(neighbours: _Neighbours, inner: IntArray, n_layers: int) -> tuple[IntArray, Batch]:
    """Return the atoms of a domain, the inner ones first, and its batch.

    Inner atoms are one graph, the others a second, with edges between them: so MACE sums the energy of the inner atoms
    by itself, in its own way.
    """
    graph = neighbours.graph
    kept = neighbours.edges_into(neighbours.around(inner, n_layers - 1))
    edges = graph.edges[:, kept]
    others = np.setdiff1d(edges, inner)
    atoms = np.concatenate([inner, others])
    place = np.full(len(graph), -1, dtype=np.int64)
    place[atoms] = np.arange(len(atoms))
    batch = Batch(
        numbers=graph.numbers[atoms],
        positions=graph.positions[atoms],
        edges=place[edges],
        shifts=graph.shifts[kept],
        sizes=np.array([len(inner), len(others)]),
        n_wanted=1,
    )
    return atoms, batch


def _try(model: MaceModel, batch: Batch, *, forces: bool) -> Evaluation | None:
    """Evaluate a domain, or return None if memory ran out."""
    try:
        return model.evaluate(batch, forces=forces)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None
