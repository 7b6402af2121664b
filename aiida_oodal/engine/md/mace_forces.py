"""An ensemble of MACE models as a force evaluator of the LAMMPS driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.driver import Evaluation, Neighbours
from aiida_oodal.engine.ood.models import Layers, MaceModel, Precision, check_ensemble, open_model
from aiida_oodal.engine.ood.reference import OodReference

__all__ = ['MaceForces', 'load_reference']

#: Value of ``forces`` for the mean over the ensemble.
MEAN = 'mean'


class MaceForces:
    """Evaluate forces by one MACE model or the mean of all, and gamma by the disagreement of all.

    Gamma is the calibrated disagreement of the latents, :meth:`OodReference.gamma`: 1 is the edge of the reference set.
    Steps without gamma run the models that give forces only; steps with it run the others without gradients.

    LAMMPS's images are folded onto their owners: an edge joins two real atoms by the vector between them, so that a
    model with any number of layers needs images within one cutoff only, and no forces on images have to be sent back.

    :param models: file of each model by its label.
    :param reference: what :meth:`OodReference.fit` made of the latents of these models.
    :param elements: element of each LAMMPS type.
    :param forces: label of the model that drives MD, or ``mean``.
    :param precision: type of the evaluation; None for the models' own.
    :param device: ``auto``, ``cpu`` or ``cuda``.
    :param layers: interaction layers whose features are latents; the same as for the reference.
    :param level: share of the held-out atoms whose gamma is below 1.
    :raises OodalError: models that are no ensemble, or that the reference was not made of; unknown elements.
    """

    def __init__(
        self,
        models: Mapping[str, Path],
        reference: OodReference,
        elements: Sequence[str],
        *,
        forces: str = 'w1',
        precision: Precision = None,
        device: str = 'auto',
        layers: Layers = 'all',
        level: float = 0.99,
    ) -> None:
        if set(models) != set(reference.labels):
            raise OodalError(
                f'the models are {", ".join(models)}, but the reference was made of {", ".join(reference.labels)}'
            )
        if forces not in (*models, MEAN):
            raise OodalError(f'forces = {forces!r}: there are {", ".join((*models, MEAN))}')
        self._models = {
            label: open_model(models[label], label=label, layers=layers, precision=precision, device=device)
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
        self._neighbours: Neighbours | None = None
        self._numbers = np.empty(0, dtype=np.int64)
        self._centres = np.empty(0, dtype=np.int64)
        self._graphs: dict[str, _Graph] = {}

    @property
    def cutoff(self) -> float:
        """Largest cutoff of the models [angstrom]."""
        return self._cutoff

    def set_neighbours(self, neighbours: Neighbours) -> None:
        """Take the list, and prepare what depends on the atoms only."""
        n_local = len(neighbours.offsets) - 1
        self._neighbours = neighbours
        self._centres = np.repeat(np.arange(n_local), np.diff(neighbours.offsets))
        self._numbers = self._numbers_of_types[neighbours.types[:n_local]]
        self._graphs = {label: _Graph(model, self._numbers) for label, model in self._models.items()}

    def compute(self, positions: NDArray[np.float64], *, gamma: bool) -> Evaluation:
        """Evaluate positions [angstrom], shape (n_all, 3)."""
        neighbours = self._neighbours
        if neighbours is None:
            raise RuntimeError('compute() before set_neighbours()')
        vectors = positions[self._centres] - positions[neighbours.indices]
        inside = np.einsum('ij,ij->i', vectors, vectors) < self._cutoff**2
        # MACE sends messages along (sender, receiver), and its vectors end at the receiver
        edges = np.stack([neighbours.origins[neighbours.indices[inside]], self._centres[inside]])
        vectors = vectors[inside]
        latents: list[NDArray[np.float64]] = []
        parts: list[Evaluation] = []
        for label, graph in self._graphs.items():
            drives = label in self._driving
            if drives or gamma:
                energy, slopes, features = graph.run(edges, vectors, slopes=drives)
                latents.append(features)
                if drives:
                    parts.append(_from_slopes(energy, slopes, edges, vectors, len(self._numbers)))
        grade = self._reference.gamma(self._numbers, latents, level=self._level) if gamma else None
        return Evaluation(
            energy=float(np.mean([part.energy for part in parts])),
            forces=np.mean([part.forces for part in parts], axis=0),
            virial=np.mean([part.virial for part in parts], axis=0),
            gamma=grade,
        )


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

    def run(
        self, edges: NDArray[np.int64], vectors: NDArray[np.float64], *, slopes: bool
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Evaluate the model.

        :param edges: sender and receiver, shape (2, n_edges).
        :param vectors: from sender to receiver [angstrom], shape (n_edges, 3).
        :param slopes: whether the derivatives of the energy with respect to the vectors are wanted.
        :returns: energy [eV]; its derivatives [eV/angstrom], shape (n_edges, 3), or none of them; latents, shape
            (n_atoms, n_features).
        """
        import torch

        model = self._model
        shifts = torch.as_tensor(vectors, dtype=model.dtype, device=model.device).requires_grad_(slopes)
        data = self._fixed | {'edge_index': torch.as_tensor(edges, device=model.device), 'shifts': shifts}
        with torch.set_grad_enabled(slopes):
            interaction, features = model.forward(data)
            gradient = np.empty((0, 3))
            if slopes and len(vectors):
                (derivative,) = torch.autograd.grad(interaction.sum(), shifts)
                gradient = derivative.cpu().numpy().astype(np.float64)
        energy = self._isolated + float(interaction.detach().sum())
        latents = features.detach()[:, model.columns].cpu().numpy().astype(np.float64)
        return energy, gradient, latents


def _from_slopes(
    energy: float, slopes: NDArray[np.float64], edges: NDArray[np.int64], vectors: NDArray[np.float64], n_atoms: int
) -> Evaluation:
    """Make forces and virial of the derivatives with respect to the edges' vectors: the energy depends on no others."""
    sender, receiver = edges
    forces = np.stack(
        [
            np.bincount(sender, weights=slopes[:, axis], minlength=n_atoms)
            - np.bincount(receiver, weights=slopes[:, axis], minlength=n_atoms)
            for axis in range(3)
        ],
        axis=1,
    )
    virial = -slopes.T @ vectors
    virial = 0.5 * (virial + virial.T)
    return Evaluation(energy, forces, virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]], None)


def load_reference(path: Path) -> OodReference:
    """Read a reference from the ``.npz`` of its arrays; nothing is unpickled.

    :raises OodalError: if the file is missing or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return OodReference.from_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, EOFError) as error:
        raise OodalError(f'{path.name} cannot be read as a reference of scores ({error})') from error
