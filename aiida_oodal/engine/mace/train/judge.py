"""How far a trained model is from the labels: on all atoms, on core atoms, element by element."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS
from aiida_oodal.engine.mace.graphs import build_graph, merge_graphs
from aiida_oodal.engine.mace.models import open_model
from aiida_oodal.engine.metrics import energy_errors, force_errors, stress_errors

from .labels import Part
from .plan import HEAD

__all__ = ['compare', 'isolated_below_e0', 'summarise']

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Predictions of a model and labels for one structure; empty where there is no label.

    :param energies: predicted energy and label (eV) and number of atoms, shape ``(n, 3)`` with n = 0 or 1.
    :param numbers: atomic numbers of the atoms whose forces are compared, shape ``(n_forces,)``.
    :param core: which of them are core, shape ``(n_forces,)``.
    :param predicted: forces, shape ``(n_forces, 3)``, eV/angstrom.
    :param forces: labels, shape ``(n_forces, 3)``, eV/angstrom.
    :param stresses: prediction - label, shape ``(n, 6)`` with n = 0 or 1, eV/angstrom^3.
    """

    n_atoms: int
    n_core: int
    energies: FloatArray
    numbers: NDArray[np.int64]
    core: NDArray[np.bool_]
    predicted: FloatArray
    forces: FloatArray
    stresses: FloatArray


def compare(path: Path, part: Part, *, batch_size: int, device: str) -> list[Comparison]:
    """Evaluate a model file on a labelled set.

    :raises OodalError: if what it predicts is not finite.
    """
    comparisons = []
    predictions = _predict(path, part.frames, batch_size, device)
    for atoms, core, (energy, forces, stress) in zip(part.frames, part.cores, predictions, strict=True):
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise OodalError(f'{part.name}: the energy or the forces that the trained model predicts are not finite')
        has_energy, has_forces, has_stress = ENERGY in atoms.info, FORCES in atoms.arrays, STRESS in atoms.info
        compared = slice(None) if has_forces else slice(0)
        labels = np.asarray(atoms.arrays.get(FORCES, np.zeros((0, 3))), dtype=np.float64)
        comparisons.append(
            Comparison(
                n_atoms=len(atoms),
                n_core=int(core.sum()),
                energies=np.array([[energy, atoms.info.get(ENERGY, np.nan), len(atoms)]])[: int(has_energy)],
                numbers=atoms.numbers[compared],
                core=core[compared],
                predicted=forces[compared],
                forces=labels,
                stresses=np.array([stress - _voigt(atoms.info[STRESS])]) if has_stress else np.zeros((0, 6)),
            )
        )
    return comparisons


def summarise(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return counts and errors: energies in meV/atom, forces in meV/angstrom, stresses in GPa.

    ``core`` repeats them for core atoms, and for energies of structures that have no others; ``by_element`` gives the
    errors of forces for each element.
    """
    n_atoms, n_core = sum(each.n_atoms for each in comparisons), sum(each.n_core for each in comparisons)
    numbers = np.concatenate([each.numbers for each in comparisons])
    core = np.concatenate([each.core for each in comparisons])
    predicted = np.concatenate([each.predicted for each in comparisons])
    forces = np.concatenate([each.forces for each in comparisons])
    stresses = np.concatenate([each.stresses for each in comparisons])
    whole = [each for each in comparisons if each.n_core == each.n_atoms]
    return {
        'n_structures': len(comparisons),
        'n_atoms': n_atoms,
        'n_core_atoms': n_core,
        'core_fraction': n_core / n_atoms,
        **_energy_errors(comparisons),
        **force_errors(predicted, forces),
        **stress_errors(stresses, np.zeros_like(stresses)),
        'core': {**_energy_errors(whole), **force_errors(predicted[core], forces[core])},
        'by_element': {
            symbol: {'n_atoms': int((numbers == number).sum())}
            | force_errors(predicted[numbers == number], forces[numbers == number])
            for symbol, number in atomic_numbers.items()
            if number in numbers
        },
    }


def isolated_below_e0(path: Path) -> dict[str, float]:
    """Return by element what an isolated atom has below its E0 in a model [eV]; 0 is right.

    A model of the kind ScaleShiftMACE, or one that started from such, has a shift here: evaporation costs less
    in its MD than it should.
    """
    model = open_model(path, device='cpu')
    atoms = [Atoms(element) for element in model.info.elements]
    batch = merge_graphs([build_graph(each, model.info.cutoff) for each in atoms])
    below = model.isolated_energies(batch.numbers) - model.evaluate(batch).energies
    return {element: float(energy) for element, energy in zip(model.info.elements, below, strict=True)}


def _energy_errors(comparisons: Sequence[Comparison]) -> dict[str, float]:
    energies = np.concatenate([np.zeros((0, 3)), *(each.energies for each in comparisons)])
    return {'n_energies': len(energies), **energy_errors(*energies.T)}


def _voigt(stress: Any) -> FloatArray:
    """Return a stress of any of the shapes that ASE and MACE write in Voigt order, shape ``(6,)``."""
    values = np.asarray(stress, dtype=np.float64)
    return values if values.shape == (6,) else values.reshape(3, 3)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def _predict(
    path: Path, frames: Sequence[Atoms], batch_size: int, device: str
) -> Iterator[tuple[float, FloatArray, FloatArray]]:
    """Yield energy [eV], forces [eV/angstrom] and stress [eV/angstrom^3, Voigt] of each structure.

    By mace-torch's own code, which knows stresses; energies of isolated atoms are added in float64.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import torch
        from mace import data
        from mace.tools import AtomicNumberTable, torch_geometric
        from mace.tools.torch_tools import default_dtype

        module = torch.load(path, map_location=device, weights_only=False).eval()
        head = list(module.heads).index(HEAD)
        isolated = np.atleast_2d(module.atomic_energies_fn.atomic_energies.cpu().numpy()).astype(np.float64)[head]
        table = AtomicNumberTable([int(number) for number in module.atomic_numbers])
        for first in range(0, len(frames), batch_size):
            chunk = frames[first : first + batch_size]
            with default_dtype(next(module.parameters()).dtype):
                graphs = [
                    data.AtomicData.from_config(
                        data.config_from_atoms(atoms, head_name=HEAD),
                        z_table=table,
                        cutoff=float(module.r_max),
                        heads=list(module.heads),
                    )
                    for atoms in chunk
                ]
                batch: Any = torch_geometric.Batch.from_data_list(graphs)  # type: ignore[no-untyped-call]
            out = module(batch.to(device).to_dict(), compute_stress=True)
            interaction, forces, stresses = (
                out[key].detach().cpu().numpy().astype(np.float64) for key in ('interaction_energy', 'forces', 'stress')
            )
            bounds = np.cumsum([0, *(len(atoms) for atoms in chunk)])
            for index, atoms in enumerate(chunk):
                free = isolated[[table.z_to_index(number) for number in atoms.numbers]].sum()
                own = slice(bounds[index], bounds[index + 1])
                yield float(interaction[index] + free), forces[own], _voigt(stresses[index])
