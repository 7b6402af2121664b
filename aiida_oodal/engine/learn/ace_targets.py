"""What a fit aims at: the labels of each structure and what they weigh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.ace_basis import AceFitValues
from aiida_oodal.engine.learn.reference import ENERGY, FORCES

#: eV per atom. Nothing is bound more strongly than about 9 eV per atom: beyond this the zero is not that of free atoms.
_LARGEST_ENERGY = 20.0
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A labelled structure and what each of its labels weighs.

    :param name: of the structure in messages.
    :param atoms: the structure.
    :param energy: energy per atom above the reference energies, eV.
    :param forces: shape ``(n_atoms, 3)``, eV/angstrom.
    :param energy_weight: weight of the energy row; 0 leaves it out.
    :param force_weights: weight of each atom's force rows, shape ``(n_atoms,)``; 0 leaves them out.
    :param core: atoms whose environments may enter the active set, shape ``(n_atoms,)``.
    """

    name: str
    atoms: Atoms
    energy: float
    forces: FloatArray
    energy_weight: float
    force_weights: FloatArray
    core: NDArray[np.bool_]


def make_target(atoms: Atoms, values: AceFitValues, name: str) -> Target:
    """Read the labels of a structure and decide what they weigh.

    With ``weights = full`` every atom weighs 1. Otherwise atoms with ``force_mask`` below 0.5 (the buffer) weigh 0
    (``mask``) or ``downweight``, and so, times ``energy_weight``, does the energy of a structure that has such atoms,
    because it cannot be split into a trusted and an untrusted part. Buffer atoms never enter the active set then: an
    environment that is not fully trusted must not make gamma small. Without ``force_mask`` all atoms are core.

    :param name: of the structure in messages.
    :raises OodalError: if a label is missing or not finite, the mask is not between 0 and 1, ``weights`` is unknown,
        or there is no atom.
    """
    if len(atoms) == 0:
        raise OodalError(f'{name} has no atoms: leave it out')
    energy, forces = atoms.info.get(ENERGY), atoms.arrays.get(FORCES)
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
    outside = {'full': 1.0, 'mask': 0.0, 'downweight': values['downweight']}.get(values['weights'])
    if outside is None:
        raise OodalError(f'weights = {values["weights"]!r} must be full, mask or downweight')
    core = np.ones(len(atoms), dtype=bool) if values['weights'] == 'full' else np.asarray(mask) >= 0.5
    offsets = values['reference_energies']
    above = float(energy) - float(sum(offsets.get(symbol, 0.0) for symbol in atoms.get_chemical_symbols()))
    return Target(
        name=name,
        atoms=atoms,
        energy=above / len(atoms),
        forces=np.asarray(forces, dtype=np.float64),
        energy_weight=values['energy_weight'] * (1.0 if core.all() else outside),
        force_weights=np.where(core, 1.0, outside),
        core=core,
    )


@contextmanager
def named(target: Target) -> Iterator[None]:
    """Put the name of the structure before any error that its atoms cause in a ``with`` block."""
    try:
        yield
    except OodalError as error:
        raise OodalError(f'{target.name}: {error}') from error


def check_energy_zero(targets: Sequence[Target]) -> None:
    """Refuse total energies of a DFT code as they are: the fit would spend its functions on a constant.

    :raises OodalError: if energies per atom are too large to be measured from free atoms; the message proposes
        ``reference_energies`` from a least-squares fit of the composition.
    """
    weighty = [target for target in targets if target.energy_weight > 0.0]
    # The median: a single cluster with atoms on top of each other is no reason to doubt the zero of all.
    typical = float(np.median([abs(target.energy) for target in weighty])) if weighty else 0.0
    if typical <= _LARGEST_ENERGY:
        return
    elements = sorted({symbol for target in weighty for symbol in target.atoms.get_chemical_symbols()})
    counts = [[target.atoms.get_chemical_symbols().count(symbol) for symbol in elements] for target in weighty]
    fractions = np.array(counts) / np.sum(counts, axis=1, keepdims=True)
    proposal, *_ = np.linalg.lstsq(fractions, np.array([target.energy for target in weighty]), rcond=None)
    proposed = {symbol: round(float(value), 3) for symbol, value in zip(elements, proposal, strict=True)}
    raise OodalError(
        f'labels of typically {typical:.1f} eV per atom (limit {_LARGEST_ENERGY:g}) are total energies: set '
        f'reference_energies to those of free atoms in the same reference, or add {proposed} to what they are now'
    )
