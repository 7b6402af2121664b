"""Labelled structure sets as ``mace_run_train`` reads them: what each label weighs, and the energies of free atoms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS
from aiida_oodal.engine.structures import StructureSet

__all__ = [
    'ATOM_WEIGHTS',
    'ENERGY_WEIGHT',
    'STRESS_WEIGHT',
    'Part',
    'check_energies',
    'find_isolated_energies',
    'read_part',
    'weigh_parts',
    'write_frames',
]

#: Weight of each atom in the loss of forces, under the name that mace-torch is going to read itself
#: (ACEsuit/mace, pull request 1542).
ATOM_WEIGHTS = 'REF_forces_atomic_weights'
#: Weights of a whole configuration that mace-torch reads.
ENERGY_WEIGHT, _FORCES_WEIGHT, STRESS_WEIGHT = (f'config_{name}_weight' for name in ('energy', 'forces', 'stress'))
_KEPT = ('config_type', 'config_weight', ENERGY_WEIGHT, _FORCES_WEIGHT, STRESS_WEIGHT)
#: eV per atom. Nothing is bound more strongly than about 9 eV per atom: beyond this the E0s are of another method.
_LARGEST_ENERGY = 20.0
#: eV per atom. A total energy in float32 has 7 digits; what is lost must be below what a good model is wrong by.
_LARGEST_ROUNDING = 1e-3


@dataclass
class Part:
    """One labelled set.

    :param name: of its file.
    :param frames: structures with labels and weights only, without isolated atoms.
    :param cores: which atoms are core (``force_mask`` of at least 0.5), shape ``(n_atoms,)`` for each structure.
    :param isolated: energies [eV] of isolated atoms, by element.
    """

    name: str
    frames: list[Atoms]
    cores: list[NDArray[np.bool_]]
    isolated: dict[str, float]

    @property
    def elements(self) -> set[str]:
        """Elements of the structures."""
        return {symbol for atoms in self.frames for symbol in atoms.symbols}

    @property
    def is_weighted(self) -> bool:
        """Whether its atoms have weights."""
        return any(ATOM_WEIGHTS in atoms.arrays for atoms in self.frames)


def read_part(folder: Path, name: str) -> Part:
    """Read one labelled set, and take the isolated atoms out of it.

    A structure of one atom is an isolated atom if it is not periodic, or has ``config_type`` ``IsolatedAtom``.

    :raises OodalError: if the set is empty, a label is missing or not finite, or a mask is not between 0 and 1.
    """
    part = Part(name, [], [], {})
    for index, atoms in enumerate(StructureSet.load(folder / name)):
        where = f'{name}: structure {index}'
        _require_labels(atoms, where)
        if len(atoms) == 1 and (not atoms.pbc.any() or atoms.info.get('config_type') == 'IsolatedAtom'):
            _add_energy(part.isolated, str(atoms.symbols[0]), atoms.info.get(ENERGY), where)
            continue
        mask = np.asarray(atoms.arrays.get('force_mask', np.ones(len(atoms))), dtype=np.float64)
        if not (mask.min() >= 0.0 and mask.max() <= 1.0):
            raise OodalError(
                f'{where}: force_mask must be 1 (core) or 0 (buffer), got values from {mask.min()} to {mask.max()}'
            )
        part.frames.append(_labels_only(atoms))
        part.cores.append(mask >= 0.5)
    if not part.frames:
        raise OodalError(f'{name}: the set has no structure to train on; leave it out of the job')
    return part


def _require_labels(atoms: Atoms, where: str) -> None:
    """Refuse a structure without labels, or with labels that are not finite."""
    if len(atoms) == 0:
        raise OodalError(f'{where} has no atoms: leave it out')
    labels = {ENERGY: atoms.info.get(ENERGY), FORCES: atoms.arrays.get(FORCES), STRESS: atoms.info.get(STRESS)}
    if labels[ENERGY] is None and labels[FORCES] is None:
        raise OodalError(f'{where} has neither {ENERGY} nor {FORCES}: label it before training')
    for key, value in labels.items():
        if value is not None and not np.isfinite(value).all():
            raise OodalError(f'{where}: {key} is not finite; label it again or leave it out')


def _labels_only(atoms: Atoms) -> Atoms:
    """Return the structure with its labels and weights, and nothing else that could be written to a file."""
    kept = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    kept.info = {key: atoms.info[key] for key in (ENERGY, STRESS, *_KEPT) if key in atoms.info}
    if FORCES in atoms.arrays:
        kept.arrays[FORCES] = np.asarray(atoms.arrays[FORCES], dtype=np.float64)
    return kept


def _add_energy(energies: dict[str, float], element: str, energy: Any, where: str) -> None:
    """Note the energy of an isolated atom; two that differ are a mistake in one of them."""
    if energy is None:
        raise OodalError(f'{where} is an isolated {element} atom without {ENERGY}: label it or leave it out')
    known = energies.setdefault(element, float(energy))
    if abs(known - float(energy)) > 1e-3:
        raise OodalError(f'{where}: an isolated {element} atom has {float(energy):.6f} eV, another one {known:.6f} eV')


def weigh_parts(parts: Sequence[Part], mode: str, downweight: float) -> None:
    """Give atoms and structures the weights that the loss uses.

    With ``full`` every atom weighs 1. Otherwise atoms outside the core weigh 0 (``mask``) or ``downweight``, and so do
    energy and stress of a structure that has such atoms, since they cannot be split into a part that is trusted and one
    that is not. Weights of atoms are scaled to a mean of 1 over all parts: MACE's loss is a mean over all atoms, and
    the few that count would weigh less against energies the more others are masked. Weights that structures bring along
    are multiplied.

    :raises OodalError: if no atom is left to learn from.
    """
    outside = {'full': 1.0, 'mask': 0.0, 'downweight': downweight}[mode]
    weights = [np.where(core, 1.0, outside) for part in parts for core in part.cores]
    total, count = sum(float(each.sum()) for each in weights), sum(len(each) for each in weights)
    if total == 0.0:
        raise OodalError(f'weights = {mode!r}: force_mask leaves no atom of {", ".join(part.name for part in parts)}')
    if total == count:
        return
    frames = [atoms for part in parts for atoms in part.frames]
    for atoms, weight in zip(frames, weights, strict=True):
        atoms.arrays[ATOM_WEIGHTS] = weight * count / total
        if weight.min() < 1.0:
            for key in (ENERGY_WEIGHT, STRESS_WEIGHT):
                atoms.info[key] = outside * float(atoms.info.get(key, 1.0))


def find_isolated_energies(
    parts: Sequence[Part], given: Mapping[str, float], elements: Iterable[str]
) -> dict[str, float]:
    """Return the energy [eV] of an isolated atom of each element, from the data or as given.

    :raises OodalError: if one is missing, or data and setting differ.
    """
    energies: dict[str, float] = {}
    for part in parts:
        for element, energy in part.isolated.items():
            _add_energy(energies, element, energy, part.name)
    for element, energy in given.items():
        if abs(energies.setdefault(element, energy) - energy) > 1e-3:
            raise OodalError(
                f'E0s: {element} is given as {energy} eV, but an isolated atom of the training data has '
                f'{energies[element]} eV; leave one of them out'
            )
    if missing := sorted(set(elements) - set(energies)):
        raise OodalError(
            f'no energy of an isolated atom of {", ".join(missing)}: add a structure of one atom to the training data '
            '(config_type = IsolatedAtom where its cell is periodic), or give the setting E0s. An average over the '
            'training set is not taken: isolated atoms would cost nothing, and MD evaporate what it should not'
        )
    return {element: energies[element] for element in sorted(elements, key=atomic_numbers.__getitem__)}


def check_energies(parts: Sequence[Part], isolated: Mapping[str, float], precision: str) -> None:
    """Refuse energies that are not measured from the isolated atoms, and those that float32 would round away.

    :raises OodalError: with the median over all structures; a single cell with atoms on top of each other is no reason
        to doubt the others.
    """
    frames = [atoms for part in parts for atoms in part.frames if atoms.info.get(ENERGY_WEIGHT, 1.0) > 0.0]
    frames = [atoms for atoms in frames if ENERGY in atoms.info]
    if not frames:
        return
    bound = [
        abs(atoms.info[ENERGY] - sum(isolated[symbol] for symbol in atoms.symbols)) / len(atoms) for atoms in frames
    ]
    if (typical := float(np.median(bound))) > _LARGEST_ENERGY:
        raise OodalError(
            f'energies are typically {typical:.1f} eV per atom away from those of isolated atoms (limit '
            f'{_LARGEST_ENERGY:g}): labels and E0s are not of the same method'
        )
    worst = max(abs(atoms.info[ENERGY]) * 2.0**-24 / len(atoms) for atoms in frames)
    if precision == 'float32' and worst > _LARGEST_ROUNDING:
        raise OodalError(
            f'float32 would round total energies by {1000 * worst:.2g} meV per atom (limit '
            f"{1000 * _LARGEST_ROUNDING:g}): set precision = 'float64'"
        )


def write_frames(path: Path, parts: Iterable[Part]) -> None:
    """Write all structures of some parts as extended XYZ, which mace-torch reads."""
    ase.io.write(path, [atoms for part in parts for atoms in part.frames], format='extxyz')
