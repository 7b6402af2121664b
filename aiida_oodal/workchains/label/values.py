"""Energy, forces and stress that a code computed for a structure, and the checks before they become a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS


@dataclass(frozen=True)
class LabelValues:
    """Energy, forces and stress of a structure as a code reports them, in the units and signs of labels.

    :param symbols: the element of every atom, in the order of the forces, as the code's own output names them.
    :param energy: eV; the one that the forces are the derivative of (with smearing the free energy).
    :param forces: eV/angstrom, shape ``(n_atoms, 3)``.
    :param stress: eV/angstrom^3, shape ``(6,)``, Voigt order xx yy zz yz xz xy, ASE's sign: positive means that the
        cell wants to shrink; or None.
    :param positions: of the atoms in the code's own output, angstrom, shape ``(n_atoms, 3)``; None if it names none.
    """

    symbols: Sequence[str]
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None = None
    positions: NDArray[np.float64] | None = None


#: Angstrom by which the code's own output may round or convert the positions that it was given.
_ROUNDING = 1e-3


def label_atoms(atoms: Atoms, values: LabelValues, *, max_force: float) -> Atoms:
    """Return a copy of a structure with its label.

    :param max_force: eV/angstrom; a longer force is refused: such atoms are closer to each other than any that a
        potential should learn, or the code converged to a wrong state.
    :raises OodalError: if the values belong to other atoms or to another order of them, are not finite, or a force is
        too long.
    """
    _require_same_atoms(atoms, values)
    forces = np.asarray(values.forces, dtype=np.float64)
    if forces.shape != (len(atoms), 3):
        raise OodalError(f'the forces have shape {forces.shape}, not ({len(atoms)}, 3): the output is incomplete')
    for name, value in (('energy', values.energy), ('forces', forces), ('stress', values.stress)):
        if value is not None and not np.isfinite(value).all():
            raise OodalError(f'the {name} in the output is not finite: look for atoms on top of each other')
    lengths = np.linalg.norm(forces, axis=1)
    worst = int(lengths.argmax())
    if lengths[worst] > max_force:
        raise OodalError(
            f'the force on atom {worst} ({atoms.symbols[worst]}) is {lengths[worst]:.3g} eV/angstrom, over the limit '
            f'max_force = {max_force:g}: look for atoms that are too close to each other, or raise the limit'
        )
    labelled: Atoms = atoms.copy()
    labelled.calc = None
    labelled.info[ENERGY] = float(values.energy)
    labelled.arrays[FORCES] = forces
    labelled.info.pop(STRESS, None)
    if values.stress is not None and labelled.pbc.all():
        labelled.info[STRESS] = np.asarray(values.stress, dtype=np.float64)
    return labelled


def _require_same_atoms(atoms: Atoms, values: LabelValues) -> None:
    found, asked = list(values.symbols), atoms.get_chemical_symbols()
    if sorted(found) != sorted(asked):
        composition = str(Atoms(found).symbols)
        raise OodalError(f'the output is of {composition}, not of {atoms.symbols}: it belongs to another structure')
    if found != asked:
        index = next(number for number, pair in enumerate(zip(found, asked, strict=True)) if pair[0] != pair[1])
        raise OodalError(f'atom {index} is {found[index]} in the output and {asked[index]} here: the order differs')
    if values.positions is None:
        return
    shifts = np.asarray(values.positions, dtype=np.float64) - atoms.positions
    if atoms.cell.rank == 3:
        fractional = atoms.cell.scaled_positions(shifts)
        fractional -= np.rint(fractional) * atoms.pbc
        shifts = fractional @ atoms.cell.array
    distances = np.linalg.norm(shifts, axis=1)
    worst = int(distances.argmax())
    if distances[worst] > _ROUNDING:
        raise OodalError(
            f'atom {worst} is {distances[worst]:.3g} angstrom from where it is in the output: the order of atoms '
            'differs, or the workflow moved them'
        )


def to_voigt(stress: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a symmetric tensor, shape ``(3, 3)``, in Voigt order xx yy zz yz xz xy."""
    tensor = np.asarray(stress, dtype=np.float64)
    tensor = (tensor + tensor.T) / 2
    return np.array([tensor[0, 0], tensor[1, 1], tensor[2, 2], tensor[1, 2], tensor[0, 2], tensor[0, 1]])
