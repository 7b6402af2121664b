"""How far energies of two levels of theory are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from aiida_oodal.engine.content import content_key
from aiida_oodal.engine.labels import ENERGY
from aiida_oodal.engine.space.geometry import FloatArray


@dataclass(frozen=True)
class Offset:
    """Energy of a second level of theory minus that of a first, as a sum over elements.

    :param per_atom: by element, eV an atom.
    :param rms: root mean square of what the sum does not explain, eV an atom.
    :param n_common: structures that have labels of both; 0 if the offset comes from compositions alone.
    """

    per_atom: dict[str, float]
    rms: float
    n_common: int

    def __str__(self) -> str:
        """Say it in words."""
        shifts = ', '.join(f'{element} {shift:+.4f}' for element, shift in self.per_atom.items())
        basis = f'{self.n_common} structures that have both' if self.n_common else 'compositions alone, so roughly'
        return f'energies differ by {shifts} eV/atom (fitted on {basis}; {1000 * self.rms:.1f} meV/atom is left)'


def fit_offset(first: Sequence[Atoms], second: Sequence[Atoms]) -> Offset | None:
    """Fit an energy for each element by which labels of the second level differ from those of the first.

    Structures with labels of both levels tell it best. Where there are none, each level is fitted to its compositions,
    and the offset is the difference: it contains whatever the structures themselves differ in.

    :param first: with ``info['REF_energy']`` [eV]; those without are left out.
    :param second: the same.
    :return: None if a level has no energies, or the two have no element in common.
    """
    one, two = ([atoms for atoms in frames if ENERGY in atoms.info] for frames in (first, second))
    elements = sorted(
        {symbol for atoms in one for symbol in atoms.symbols} & {s for atoms in two for s in atoms.symbols}
    )
    if not elements:
        return None
    known = {content_key(atoms): atoms.info[ENERGY] for atoms in one}
    common = [(atoms, atoms.info[ENERGY] - known[key]) for atoms in two if (key := content_key(atoms)) in known]
    if common:
        shifts, rms = _fit([atoms for atoms, _ in common], np.array([difference for _, difference in common]), elements)
        return Offset(dict(zip(elements, map(float, shifts), strict=True)), rms, len(common))
    fits = []
    for frames in (one, two):
        own = sorted({symbol for atoms in frames for symbol in atoms.symbols})
        values, rms = _fit(frames, np.array([atoms.info[ENERGY] for atoms in frames]), own)
        fits.append((dict(zip(own, values, strict=True)), rms))
    differences = {element: float(fits[1][0][element] - fits[0][0][element]) for element in elements}
    return Offset(differences, float(np.hypot(fits[0][1], fits[1][1])), 0)


def _fit(frames: Sequence[Atoms], energies: FloatArray, elements: Sequence[str]) -> tuple[FloatArray, float]:
    """Return the energy of each element, and the root mean square error, eV an atom."""
    counts = np.array([[(atoms.symbols == element).sum() for element in elements] for atoms in frames], dtype=float)
    sizes = counts.sum(axis=1)
    values, *_ = np.linalg.lstsq(counts / sizes[:, None], energies / sizes, rcond=None)
    errors = (energies - counts @ values) / sizes
    return values, float(np.sqrt(np.mean(errors**2)))
