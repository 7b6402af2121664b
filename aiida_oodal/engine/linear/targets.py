"""The labels of each structure that a fit uses, and their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS

from .basis import FloatArray

#: What a structure can do to a library that computes it.
_FOREIGN = (ValueError, RuntimeError, LookupError, ArithmeticError, TypeError)


class Weighting(Protocol):
    """What labels weigh; the fields of fit settings with these names, where they are described."""

    @property
    def energy_weight(self) -> float: ...  # noqa: D102
    @property
    def stress_weight(self) -> float: ...  # noqa: D102
    @property
    def robust_force(self) -> float | None: ...  # noqa: D102
    @property
    def weights(self) -> str: ...  # noqa: D102
    @property
    def buffer_weight(self) -> float: ...  # noqa: D102
    @property
    def cluster_weight(self) -> float: ...  # noqa: D102
    @property
    def downweight(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Target:
    """A labelled structure and what each of its labels weighs.

    :param name: of the structure in messages.
    :param atoms: the structure.
    :param energy: as labelled, eV.
    :param forces: shape ``(n_atoms, 3)``, eV/angstrom.
    :param stress: Voigt order xx yy zz yz xz xy, ASE's sign, shape ``(6,)``, eV/angstrom^3; None without label.
    :param energy_weight: weight of the row of the energy per atom; 0 leaves it out.
    :param stress_weight: weight of the stress rows; 0 leaves them out.
    :param force_weights: weight of each atom's force rows, shape ``(n_atoms,)``; 0 leaves them out.
    :param core: atoms whose environments may enter the active set, shape ``(n_atoms,)``.
    :param scale: factor of all these weights in the fit; by how much the structure counts more than others.
    """

    name: str
    atoms: Atoms
    energy: float
    forces: FloatArray
    stress: FloatArray | None
    energy_weight: float
    stress_weight: float
    force_weights: FloatArray
    core: NDArray[np.bool_]
    scale: float = 1.0

    def count(self, elements: Sequence[str]) -> FloatArray:
        """Return how many atoms of each element the structure has, shape ``(n_elements,)``."""
        symbols = self.atoms.get_chemical_symbols()
        return np.array([symbols.count(element) for element in elements], dtype=np.float64)

    def scaled(self, factor: float) -> Target:
        """Return the same structure, which counts more by a factor."""
        return replace(self, scale=factor * self.scale)


def make_target(atoms: Atoms, weighting: Weighting, name: str) -> Target:
    """Read the labels of a structure and decide what they weigh.

    Atoms with ``force_mask`` below 0.5 are the buffer of a cluster. With ``weights = full`` their forces weigh
    ``buffer_weight``, and all labels of the structure scale by ``cluster_weight``. With ``mask`` they weigh 0, with
    ``downweight`` they weigh that setting. Energy and stress of a structure with such atoms then have the same factor,
    because they cannot be split into a trusted and an untrusted part, and buffer atoms never enter the active set,
    because an environment that is not trusted must not make gamma small. Without ``force_mask`` all atoms are core.

    :param name: of the structure in messages.
    :raises OodalError: if a label is missing or not finite, the mask is not between 0 and 1, ``weights`` is unknown,
        or there is no atom.
    """
    if len(atoms) == 0:
        raise OodalError(f'{name} has no atoms: leave it out')
    energy, forces, stress = atoms.info.get(ENERGY), atoms.arrays.get(FORCES), atoms.info.get(STRESS)
    if energy is None or forces is None:
        missing = ENERGY if energy is None else FORCES
        raise OodalError(f'{name} has no {missing}: label it before the fit')
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise OodalError(f'{name} has a label that is not finite: label it again or leave it out')
    mask = atoms.arrays.get('force_mask', np.ones(len(atoms)))
    if not (np.min(mask) >= 0.0 and np.max(mask) <= 1.0):
        raise OodalError(
            f'{name}: force_mask must be 1 (core) or 0 (buffer), got values from {mask.min()} to {mask.max()}'
        )
    if weighting.weights not in ('full', 'mask', 'downweight'):
        raise OodalError(f'weights = {weighting.weights!r} must be full, mask or downweight')
    core, whole, scale = np.asarray(mask) >= 0.5, 1.0, 1.0
    outside = {'full': weighting.buffer_weight, 'mask': 0.0, 'downweight': weighting.downweight}[weighting.weights]
    force_weights = np.where(core, 1.0, outside)
    if weighting.weights == 'full':
        scale = 1.0 if core.all() else weighting.cluster_weight
        core = np.ones(len(atoms), dtype=bool)
    elif not core.all():
        whole = outside
    if weighting.robust_force is not None:
        force_weights = force_weights / np.hypot(1.0, np.linalg.norm(forces, axis=1) / weighting.robust_force)
    has_stress = stress is not None and atoms.pbc.all() and np.isfinite(stress).all()
    return Target(
        name=name,
        atoms=atoms,
        energy=float(energy),
        forces=np.asarray(forces, dtype=np.float64),
        stress=np.asarray(stress, dtype=np.float64) if has_stress else None,
        energy_weight=weighting.energy_weight * whole,
        stress_weight=weighting.stress_weight * whole if has_stress else 0.0,
        force_weights=force_weights,
        core=core,
        scale=scale,
    )


@contextmanager
def named(name: str, atoms: Atoms) -> Iterator[None]:
    """Put the name of a structure before any error that its atoms cause in a ``with`` block."""
    try:
        yield
    except OodalError as error:
        raise OodalError(f'{name}: {error}') from error
    except _FOREIGN as error:
        raise OodalError(
            f'{name} ({len(atoms)} atoms of {atoms.symbols.formula.reduce()[0]}) cannot be '
            f'computed ({type(error).__name__}: {error}): look at its cell and at its shortest distances, or leave '
            'it out'
        ) from error
