"""Run an ensemble over a stream of structures: graphs once, every model on them, results to disk batch by batch."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.content import fingerprint, is_isolated
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.stream import Failure, Structure, StructureStream

from .batches import evaluate_graphs
from .domains import evaluate_in_domains
from .graphs import Graph, build_graph
from .latents_files import LatentsFiles
from .memory import Budget
from .models import Evaluation, MaceModel

__all__ = ['LatentsRun']

#: Seconds between lines of progress.
_REPORT_EVERY = 10.0


@dataclass(frozen=True)
class _Waiting:
    """A structure that waits for its batch to fill."""

    structure: Structure
    graph: Graph


class LatentsRun:
    """One pass of an ensemble over a file of structures.

    :param models: by label; they share cutoff and elements (:func:`.models.check_ensemble`).
    :param files: take what is finished.
    :param report: takes lines of progress.
    """

    def __init__(
        self,
        models: Mapping[str, MaceModel],
        files: LatentsFiles,
        budget: Budget,
        *,
        forces: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._models, self._files, self._budget, self._forces, self._report = models, files, budget, forces, report
        info = next(iter(models.values())).info
        self._cutoff, self._elements = info.cutoff, info.elements
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started = self._reported = time.monotonic()

    @property
    def timings(self) -> dict[str, float]:
        """Seconds spent so far on graphs, models, writing, and in all."""
        return {**self._seconds, 'total': time.monotonic() - self._started}

    def run(self, stream: StructureStream) -> None:
        """Evaluate every structure of the stream; those that fail are noted and the others go on."""
        waiting: list[_Waiting] = []
        for item in stream:
            if isinstance(item, Failure):
                self._fail(item)
                continue
            prepared = self._prepare(item)
            if isinstance(prepared, Failure):
                self._fail(prepared)
                continue
            alone = prepared.graph.n_edges > self._budget.domain_edges
            if waiting and (alone or self._budget.is_full([each.graph for each in waiting], prepared.graph)):
                self._evaluate(waiting)
                waiting = []
            if alone:
                self._evaluate([prepared])
            else:
                waiting.append(prepared)
            self._report_progress(stream.share_read)
        if waiting:
            self._evaluate(waiting)

    def _prepare(self, structure: Structure) -> _Waiting | Failure:
        """Build the graph of a structure."""
        if unknown := sorted(set(structure.atoms.get_chemical_symbols()) - set(self._elements)):
            # all models of an ensemble know the same elements: the first speaks for them
            message = f'the structure has {", ".join(unknown)}, but the models know {", ".join(self._elements)} only'
            return Failure(structure.index, structure.line, message, model=next(iter(self._models)))
        try:
            with self._timed('graphs'):
                return _Waiting(structure, build_graph(structure.atoms, self._cutoff))
        except OodalError as error:
            return Failure(structure.index, structure.line, str(error))
        except MemoryError:
            message = f'the neighbours of {len(structure.atoms)} atoms do not fit into memory; ask for more'
            return Failure(structure.index, structure.line, message)

    def _evaluate(self, waiting: Sequence[_Waiting]) -> None:
        """Evaluate a batch by every model and write the structures that all models could evaluate."""
        sizes = np.array([len(each.graph) for each in waiting])
        failed: dict[int, Failure] = {}
        arrays: dict[str, NDArray[Any]] = {}
        for label, model in self._models.items():
            try:
                with self._timed('models'):
                    evaluation = self._evaluate_model(model, [each.graph for each in waiting])
            except OodalError as error:
                failed |= {place: _failure(each, label, str(error)) for place, each in enumerate(waiting)}
                break
            for place in _not_finite(evaluation, sizes):
                failed.setdefault(place, _failure(waiting[place], label, _explain_not_finite(waiting[place].graph)))
            arrays |= {f'latents_{label}': evaluation.latents, f'energies_{label}': evaluation.energies}
            if evaluation.forces is not None:
                arrays[f'forces_{label}'] = evaluation.forces
        with self._timed('writing'):
            self._write(waiting, failed, arrays, sizes)

    def _evaluate_model(self, model: MaceModel, graphs: list[Graph]) -> Evaluation:
        """Evaluate whole structures side by side, or one that is too large in domains.

        :raises OodalError: if a structure does not fit even so; it is the only one then.
        """
        if len(graphs) == 1 and graphs[0].n_edges > self._budget.domain_edges:
            return evaluate_in_domains(model, graphs[0], self._budget, forces=self._forces)
        return evaluate_graphs(model, graphs, self._budget, forces=self._forces)

    def _write(
        self,
        waiting: Sequence[_Waiting],
        failed: Mapping[int, Failure],
        arrays: Mapping[str, NDArray[Any]],
        sizes: NDArray[np.int64],
    ) -> None:
        for failure in failed.values():
            self._fail(failure)
        if len(failed) == len(waiting):
            return
        good = np.array([place not in failed for place in range(len(waiting))])
        atoms = np.repeat(good, sizes)
        kept = {name: rows[good if name.startswith('energies_') else atoms] for name, rows in arrays.items()}
        kept['numbers'] = np.concatenate([each.graph.numbers for each in waiting])[atoms]
        taken = [each for each, is_good in zip(waiting, good, strict=True) if is_good]
        kept['fingerprints'] = np.array([fingerprint(each.structure.atoms) for each in taken])
        kept['isolated'] = np.array([is_isolated(each.structure.atoms, each.graph.n_edges) for each in taken])
        index = np.array([each.structure.index for each in waiting])
        self._files.append(index[good].tolist(), sizes[good].tolist(), kept)

    def _fail(self, failure: Failure) -> None:
        self._files.fail(failure.as_dict())
        where = f'structure {failure.index}' + ('' if failure.line is None else f' (line {failure.line})')
        model = '' if failure.model is None else f', model {failure.model}'
        self._report(f'{where}{model} failed: {failure.message}')

    def _report_progress(self, share: float) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_EVERY:
            return
        self._reported, elapsed = now, now - self._started
        remaining = f', about {elapsed * (1.0 - share) / share:.0f} s remain' if share > 0.0 else ''
        self._report(f'{self.summary()}, {100 * share:.1f} %{remaining}')

    def summary(self) -> str:
        """Say in one line what is done and how fast."""
        files, elapsed = self._files, time.monotonic() - self._started
        return (
            f'{files.n_structures} structures, {files.n_atoms} atoms x {len(self._models)} models in {elapsed:.1f} s '
            f'({files.n_atoms / max(elapsed, 1e-9):.0f} atoms/s), {len(files.failures)} failures'
        )

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[what] += time.monotonic() - started


def _failure(waiting: _Waiting, label: str, message: str) -> Failure:
    return Failure(waiting.structure.index, waiting.structure.line, message, model=label)


def _not_finite(evaluation: Evaluation, sizes: NDArray[np.int64]) -> list[int]:
    """Return the places of the structures for which a model gave no numbers."""
    bad = ~np.isfinite(evaluation.latents).all(axis=1)
    if evaluation.forces is not None:
        bad |= ~np.isfinite(evaluation.forces).all(axis=1)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return sorted({*owner[bad].tolist(), *np.flatnonzero(~np.isfinite(evaluation.energies)).tolist()})


def _explain_not_finite(graph: Graph) -> str:
    """Name the nearest pair of atoms: atoms on top of each other are what gives no numbers."""
    sender, receiver = graph.edges
    vectors = graph.positions[receiver] - graph.positions[sender] + graph.shifts
    distances = np.linalg.norm(vectors, axis=1)
    if not len(distances):
        return 'the latents are not finite'
    nearest = int(distances.argmin())
    return (
        f'the latents are not finite; atoms {sender[nearest]} and {receiver[nearest]} are '
        f'{distances[nearest]:.3g} angstrom apart'
    )
