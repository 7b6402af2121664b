"""Labels that somebody else computed: find them in a structure from a file, match the atoms, and check the values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, STRESS

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Angstrom that an atom, or the end of a cell vector, may be away from where it was: files round.
TOLERANCE = 1e-3
#: eV/angstrom. No structure worth a label has larger forces: other units, or atoms on top of each other.
FORCE_LIMIT = 1000.0


@dataclass(frozen=True)
class Label:
    """Energy, forces and stress of one structure.

    :param energy: that the forces are the derivative of, eV.
    :param forces: shape ``(n_atoms, 3)``, eV/angstrom.
    :param stress: shape ``(6,)``, Voigt order xx yy zz yz xz xy, eV/angstrom^3, ASE's sign; None where there is none.
    :raises OodalError: if a value is not finite, of the wrong shape, or a force is over :data:`FORCE_LIMIT`.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a label."""
        if self.forces.ndim != 2 or self.forces.shape[1] != 3:
            raise OodalError(f'forces have shape {self.forces.shape}; (n_atoms, 3) is needed')
        if not np.isfinite(self.energy) or not np.isfinite(self.forces).all():
            raise OodalError('the energy or a force is not finite')
        largest = float(np.abs(self.forces).max(initial=0.0))
        if largest > FORCE_LIMIT:
            raise OodalError(
                f'the largest component of a force is {largest:.3g} eV/angstrom (limit {FORCE_LIMIT:g}): are they in '
                'other units, or are atoms on top of each other?'
            )
        if self.stress is not None and (self.stress.shape != (6,) or not np.isfinite(self.stress).all()):
            raise OodalError(f'the stress has shape {self.stress.shape} or is not finite; 6 numbers are needed')

    def put_into(self, atoms: Atoms) -> Atoms:
        """Return a copy of a structure with this label and without any it had.

        :raises OodalError: if it has another number of atoms.
        """
        if len(self.forces) != len(atoms):
            raise OodalError(f'there are forces on {len(self.forces)} atoms, and the structure has {len(atoms)}')
        labelled: Atoms = atoms.copy()
        labelled.info.pop(STRESS, None)
        labelled.info[ENERGY] = self.energy
        labelled.arrays[FORCES] = self.forces
        if self.stress is not None and atoms.pbc.all():
            labelled.info[STRESS] = self.stress
        return labelled


def read_label(atoms: Atoms) -> Label:
    """Find the label of a structure that a labelled file holds.

    Names that say so come first (``REF_energy``, ``REF_forces``, ``REF_stress``), then what ASE's reader took for
    results: of the energies the free energy, which is the one that forces belong to.

    :raises OodalError: if there is no energy or no force, or a value cannot be a label.
    """
    results: dict[str, Any] = {} if atoms.calc is None else dict(atoms.calc.results)
    energy = _first(atoms.info.get(ENERGY), results.get('free_energy'), results.get('energy'))
    forces = _first(atoms.arrays.get(FORCES), results.get('forces'))
    stress = _first(atoms.info.get(STRESS), results.get('stress'))
    for name, value in (('energy', energy), ('forces', forces)):
        if value is None:
            raise OodalError(f'it has no {name}: REF_{name} is looked for, and {name} as ASE writes it')
    try:
        return Label(
            float(energy),
            np.asarray(forces, dtype=np.float64),
            None if stress is None else _to_voigt(np.asarray(stress, dtype=np.float64)),
        )
    except (TypeError, ValueError) as error:
        raise OodalError(f'the label is no number: {error}') from error


def match_atoms(asked: Atoms, given: Atoms, tolerance: float = TOLERANCE) -> IntArray:
    """Find the atoms of a structure in another that somebody worked on.

    Atoms may be in another order, moved by cell vectors along periodic axes, and all of them shifted together: none of
    it changes energy or forces.

    :param tolerance: angstrom.
    :return: for each atom of ``asked`` its index in ``given``, shape ``(n_atoms,)``.
    :raises OodalError: saying what differs: composition, cell, or an atom and by how much.
    """
    if asked.get_chemical_formula() != given.get_chemical_formula():
        raise OodalError(f'it is {given.get_chemical_formula()}, and {asked.get_chemical_formula()} was asked for')
    moved = np.linalg.norm(np.asarray(given.cell.array) - np.asarray(asked.cell.array), axis=1)[asked.pbc]
    if moved.size and moved.max() > tolerance:
        raise OodalError(
            f'its cell differs by {moved.max():.3g} angstrom (limit {tolerance:g}): {given.cell.array.tolist()} where '
            f'{asked.cell.array.tolist()} was asked for'
        )
    worst = ''
    for shift in _list_shifts(asked, given):
        order, distances = _find_nearest(asked, given.positions - shift, given.numbers)
        if distances.max(initial=0.0) <= tolerance and len(np.unique(order)) == len(order):
            return order
        atom = int(np.argmax(distances))
        worst = worst or (
            f'atom {atom} ({asked.symbols[atom]}) is {distances[atom]:.3g} angstrom away from where it was '
            f'(limit {tolerance:g})'
        )
    raise OodalError(f'{worst}: a label belongs to the very structure that was asked for, not to a relaxed one')


def take_label(asked: Atoms, given: Atoms, tolerance: float = TOLERANCE) -> Atoms:
    """Return a structure with the label that somebody gave to it, in its own order of atoms.

    :param asked: the structure in the queue; its arrays and values are kept.
    :param given: the same structure with a label, see :func:`read_label`.
    :raises OodalError: if it is another structure, or has no label.
    """
    order = match_atoms(asked, given, tolerance)
    label = read_label(given)
    if len(label.forces) != len(order):
        raise OodalError(f'there are forces on {len(label.forces)} atoms, and the structure has {len(order)}')
    return Label(label.energy, label.forces[order], label.stress).put_into(asked)


def _list_shifts(asked: Atoms, given: Atoms) -> Iterator[FloatArray]:
    """Yield the shifts of all atoms together that may make two structures one: none, then those of the rarest element.

    An atom of the rarest element must lie on one of its kind.
    """
    yield np.zeros(3)
    if len(asked) == 0:
        return
    numbers, counts = np.unique(asked.numbers, return_counts=True)
    rarest = numbers[np.argmin(counts)]
    start = asked.positions[np.argmax(asked.numbers == rarest)]
    for place in given.positions[given.numbers == rarest]:
        yield place - start


def _find_nearest(asked: Atoms, positions: FloatArray, numbers: IntArray) -> tuple[IntArray, FloatArray]:
    """Return for each atom the nearest of its element among others in the same cell, and how far that is [angstrom].

    Distances are right where they are small, which is what counts here.
    """
    # Directions without a cell vector, as those of a molecule, get one of length 1.
    cell = np.asarray(asked.cell.complete().array)
    periodic = np.asarray(asked.pbc, dtype=bool)
    order = np.zeros(len(asked), dtype=np.int64)
    distances = np.zeros(len(asked))
    for number in np.unique(asked.numbers):
        mine, theirs = np.flatnonzero(asked.numbers == number), np.flatnonzero(numbers == number)
        here, there = (_fractional(array, cell, periodic) for array in (asked.positions[mine], positions[theirs]))
        tree = cKDTree(there, boxsize=np.where(periodic, 1.0, 0.0))
        nearest = tree.query(here)[1]
        difference = here - there[nearest]
        difference[:, periodic] -= np.rint(difference[:, periodic])
        order[mine] = theirs[nearest]
        distances[mine] = np.linalg.norm(difference @ cell, axis=1)
    return order, distances


def _fractional(positions: FloatArray, cell: FloatArray, periodic: NDArray[np.bool_]) -> FloatArray:
    """Return positions in units of the cell vectors, within the cell along periodic axes."""
    fractional = np.asarray(np.linalg.solve(cell.T, positions.T).T, dtype=np.float64)
    fractional[:, periodic] %= 1.0
    fractional[:, periodic] %= 1.0  # a tiny negative number becomes 1.0 at first
    return fractional


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _to_voigt(stress: FloatArray) -> FloatArray:
    """Return the six components of a stress that came as six, nine, or three times three numbers."""
    if stress.size != 9:
        return stress.reshape(-1)
    full = stress.reshape(3, 3)
    return np.array([full[0, 0], full[1, 1], full[2, 2], full[1, 2], full[0, 2], full[0, 1]])
