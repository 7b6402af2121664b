"""An ensemble of MACE models as a force evaluator of the LAMMPS driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Evaluation, Neighbours, read_word
from aiida_oodal.engine.ood.reference import OodReference, load_reference
from aiida_oodal.engine.space.crowding import measure_crowding
from aiida_oodal.engine.thresholds import NOT_PHYSICAL

from .models import Layers, MaceModel, Precision, check_ensemble, open_model

__all__ = ['MaceForces', 'Watchdog', 'load_reference', 'open_forces']

#: Value of ``forces`` for the mean over the ensemble.
MEAN = 'mean'


class MaceForces:
    """Evaluate forces by one MACE model or the mean of all, and gamma by the latents of all; one model is enough.

    Gamma is what :meth:`OodReference.gamma` makes of the latents, of several models their calibrated disagreement: 1 is
    the threshold of the reference set. Steps without gamma run the models that give forces only; steps with it run the
    others without gradients.

    Where matter has evaporated or collapsed no model knows what it does, and gamma may stay small: an atom alone has
    the same latents wherever it is. Such frames are found by their neighbours, and get a gamma above every ceiling.

    LAMMPS's images are folded onto their owners: an edge joins two real atoms by the vector between them, so that a
    model with any number of layers needs images within one cutoff only, and no forces on images have to be sent back.

    :param models: file of each model by its label.
    :param reference: what :meth:`OodReference.fit` made of the latents of these models.
    :param elements: element of each LAMMPS type.
    :param forces: label of the model that drives MD, ``mean``, or None for the first by label.
    :param precision: type of the evaluation; None for the models' own.
    :param device: ``auto``, ``cpu`` or ``cuda``.
    :param layers: interaction layers whose features are latents; the same as for the reference.
    :param head: head of multi-head models; None for the only one, or the one named ``default``.
    :param level: share of the held-out atoms whose gamma is below 1.
    :param density: range of the number of neighbours per atom, relative to the first evaluation of gamma, in which a
        frame is physical; None for any.
    :param lonely_atoms: ``refuse`` if an atom without neighbours is not physical, ``allow`` if it is.
    :raises OodalError: models that are no ensemble, or that the reference was not made of; unknown elements.
    """

    def __init__(
        self,
        models: Mapping[str, Path],
        reference: OodReference,
        elements: Sequence[str],
        *,
        forces: str | None = None,
        precision: Precision = None,
        device: str = 'auto',
        layers: Layers = 'all',
        head: str | None = None,
        level: float = 0.99,
        density: Sequence[float] | None = (0.65, 1.5),
        lonely_atoms: str = 'refuse',
    ) -> None:
        if set(models) != set(reference.labels):
            raise OodalError(
                f'the models are {", ".join(models)}, but the reference was made of {", ".join(reference.labels)}'
            )
        forces = min(models) if forces is None else forces
        if forces not in (*models, MEAN):
            raise OodalError(f'forces = {forces!r}: there are {", ".join((*models, MEAN))}')
        self._models = {
            label: open_model(models[label], label=label, layers=layers, precision=precision, device=device, head=head)
            for label in reference.labels
        }
        check_ensemble({label: model.info for label, model in self._models.items()})
        first = next(iter(self._models.values()))
        n_features = reference.parts.alignment.means.shape[1]
        if len(first.columns) != n_features:
            raise OodalError(
                f"layers = '{layers}' gives {len(first.columns)} latents, but the reference was made of {n_features}: "
                'set layers as it was for the reference'
            )
        known = first.info.elements
        graded = set(reference.elements)
        for element in elements:
            if element not in known or atomic_numbers[element] not in graded:
                whose = 'models know' if element not in known else 'models and the reference set know'
                both = [symbol for symbol in known if atomic_numbers[symbol] in graded]
                raise OodalError(f'the {whose} {", ".join(known if element not in known else both)}, not {element}')
        self._driving = list(self._models) if forces == MEAN else [forces]
        self._reference = reference
        self._level = level
        self._numbers_of_types = np.array([0, *(atomic_numbers[element] for element in elements)])
        self._cutoff = max(model.info.cutoff for model in self._models.values())
        self._watch = Watchdog(self._cutoff, density, lonely_atoms)
        self._pairs: _Pairs | None = None
        self._numbers = np.empty(0, dtype=np.int64)
        self._graphs: dict[str, _Graph] = {}

    @property
    def cutoff(self) -> float:
        """Largest cutoff of the models [angstrom]."""
        return self._cutoff

    def set_neighbours(self, neighbours: Neighbours) -> None:
        """Take the list, and put what depends on the atoms only where the models are."""
        n_local = len(neighbours.offsets) - 1
        self._numbers = self._numbers_of_types[neighbours.types[:n_local]]
        self._pairs = _Pairs(neighbours, self._cutoff, next(iter(self._models.values())).device)
        self._graphs = {label: _Graph(model, self._numbers) for label, model in self._models.items()}

    def compute(self, positions: NDArray[np.float64], *, gamma: bool) -> Evaluation:
        """Evaluate positions [angstrom], shape (n_all, 3)."""
        if self._pairs is None:
            raise RuntimeError('compute() before set_neighbours()')
        edges, vectors = self._pairs.find_edges(positions)
        latents: list[NDArray[np.float64]] = []
        parts: list[Evaluation] = []
        for label, graph in self._graphs.items():
            drives = label in self._driving
            if drives or gamma:
                energy, slopes, features = graph.run(edges, vectors, slopes=drives)
                if gamma:
                    latents.append(graph.latents_of(features))
                if drives:
                    parts.append(_from_slopes(energy, slopes, edges, vectors, len(self._numbers)))
        grade = None
        if gamma:
            grade = self._reference.gamma(self._numbers, latents, level=self._level)
            if problem := self._watch(edges[1].cpu().numpy(), vectors.norm(dim=1).cpu().numpy(), grade):
                print(f'not physical: {problem}; gamma is set to {NOT_PHYSICAL:g}', flush=True)
        return Evaluation(
            energy=float(np.mean([part.energy for part in parts])),
            forces=np.mean([part.forces for part in parts], axis=0),
            virial=np.mean([part.virial for part in parts], axis=0),
            gamma=grade,
        )


class Watchdog:
    """Find frames that no threshold of gamma would: matter that evaporated, or collapsed.

    :param cutoff: angstrom.
    :param density: range of the number of neighbours per atom, relative to the first frame, as
        :func:`.measure_crowding` counts; None for any.
    :param lonely_atoms: ``refuse`` or ``allow`` atoms without neighbours.
    """

    def __init__(self, cutoff: float, density: Sequence[float] | None, lonely_atoms: str) -> None:
        self._cutoff, self._density, self._lonely_atoms = cutoff, density, lonely_atoms
        self._first: float | None = None

    def __call__(
        self, centres: NDArray[np.int64], distances: NDArray[np.float64], gamma: NDArray[np.float64]
    ) -> str | None:
        """Give what is not physical a gamma of :data:`NOT_PHYSICAL`, in place, and say what it is.

        :param centres: atom that each pair within the cutoff belongs to, shape (n_pairs,).
        :param distances: shape (n_pairs,), angstrom.
        :param gamma: shape (n_atoms,).
        """
        problem = None
        counts, mean = measure_crowding(centres, distances, len(gamma), self._cutoff)
        self._first = mean if self._first is None else self._first
        if self._density is not None and self._first > 0.0:
            least, most = self._density
            if not least <= mean / self._first <= most:
                gamma[:] = NOT_PHYSICAL
                problem = (
                    f'atoms have {mean / self._first:.2f} times the neighbours of the first step (allowed: {least:g} '
                    f'to {most:g}): matter evaporated or collapsed'
                )
        lonely = counts == 0
        if self._lonely_atoms == 'refuse' and lonely.any():
            gamma[lonely] = NOT_PHYSICAL
            problem = problem or f'{lonely.sum()} of {len(counts)} atoms have no neighbour within the cutoff'
        return problem


class _Pairs:
    """LAMMPS's neighbour list as tensors on the device of the models: on a GPU the rest of a step is waiting.

    :param cutoff: angstrom; pairs beyond it are in the list because of its skin.
    """

    def __init__(self, neighbours: Neighbours, cutoff: float, device: str) -> None:
        import torch

        n_local = len(neighbours.offsets) - 1
        centres = np.repeat(np.arange(n_local), np.diff(neighbours.offsets))
        self._cutoff, self._device = cutoff, device
        self._receivers = torch.as_tensor(centres, device=device)
        self._neighbours = torch.as_tensor(neighbours.indices.astype(np.int64), device=device)
        self._senders = torch.as_tensor(neighbours.origins[neighbours.indices], device=device)

    def find_edges(self, positions: NDArray[np.float64]) -> tuple[Any, Any]:
        """Return sender and receiver of each edge, and its vector, as tensors.

        MACE sends messages along (sender, receiver), and its vectors end at the receiver.

        :param positions: of real atoms and images [angstrom], shape (n_all, 3).
        :returns: shapes (2, n_edges) and (n_edges, 3), float64 [angstrom].
        """
        import torch

        x = torch.as_tensor(positions, dtype=torch.float64, device=self._device)
        vectors = x[self._receivers] - x[self._neighbours]
        inside = (vectors * vectors).sum(dim=1) < self._cutoff**2
        return torch.stack([self._senders[inside], self._receivers[inside]]), vectors[inside]


class _Graph:
    """One model on atoms that stay the same while their edges change."""

    def __init__(self, model: MaceModel, numbers: NDArray[np.int64]) -> None:
        import torch

        n_atoms = len(numbers)
        self._model = model
        self._isolated = float(model.isolated_energies(numbers).sum())
        self._fixed = model.atom_tensors(numbers, np.array([n_atoms])) | {
            # all atoms at the origin: the vectors say everything, and keep all their digits in float32
            'positions': torch.zeros((n_atoms, 3), dtype=model.dtype, device=model.device),
        }

    def run(self, edges: Any, vectors: Any, *, slopes: bool) -> tuple[float, Any, Any]:
        """Evaluate the model on tensors.

        :param edges: sender and receiver, shape (2, n_edges).
        :param vectors: from sender to receiver [angstrom], shape (n_edges, 3).
        :param slopes: whether the derivatives of the energy with respect to the vectors are wanted.
        :returns: energy [eV]; its derivatives [eV/angstrom], shape (n_edges, 3), zero where not wanted; node features.
        """
        import torch

        shifts = vectors.to(self._model.dtype, copy=True).requires_grad_(slopes)
        data = self._fixed | {'edge_index': edges, 'shifts': shifts}
        with torch.set_grad_enabled(slopes):
            interaction, features = self._model.forward(data)
            gradient = torch.zeros_like(vectors)
            if slopes and len(vectors):
                (derivative,) = torch.autograd.grad(interaction.sum(), shifts)
                gradient = derivative.to(torch.float64)
        return self._isolated + float(interaction.detach().sum()), gradient, features.detach()

    def latents_of(self, features: Any) -> NDArray[np.float64]:
        """Return the invariant node features, shape (n_atoms, n_features)."""
        latents: NDArray[np.float64] = features[:, self._model.columns].cpu().numpy().astype(np.float64)
        return latents


def _from_slopes(energy: float, slopes: Any, edges: Any, vectors: Any, n_atoms: int) -> Evaluation:
    """Make forces and virial of the derivatives with respect to the edges' vectors: the energy depends on no others."""
    sender, receiver = edges
    forces = slopes.new_zeros((n_atoms, 3)).index_add_(0, sender, slopes).index_add_(0, receiver, slopes, alpha=-1)
    virial = -(slopes.T @ vectors).cpu().numpy()
    virial = 0.5 * (virial + virial.T)
    return Evaluation(energy, forces.cpu().numpy(), virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]], None)


def open_forces(potential: Mapping[str, Any], folder: Path) -> MaceForces:
    """Open ``{"models": {label: file}, "reference": file, "elements": [...], "settings": {...}}``.

    The settings are fields of :class:`.EnsembleSettings` and may be left out; file names are relative to the folder.

    :raises OodalError: if models are missing, or they do not fit the reference or each other.
    """
    models = potential.get('models')
    if not isinstance(models, dict) or not models:
        raise OodalError(f'job: models must name a file for each label, but is {models!r}')
    settings = potential.get('settings', {})
    if settings.get('forces') == MEAN:
        n = len(models)
        print(f'forces: mean of {n} models: every step takes about {n} times what forces of one model take', flush=True)
    return MaceForces(
        {label: folder / read_word(models, label) for label in models},
        load_reference(folder / read_word(potential, 'reference')),
        [str(element) for element in potential.get('elements', [])],
        **settings,
    )
