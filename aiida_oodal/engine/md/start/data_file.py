"""The file that LAMMPS reads the structure from."""

from __future__ import annotations

from collections.abc import Sequence
from io import TextIOBase
from pathlib import Path
from typing import TextIO

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism

from .box import straighten
from .held import held_atoms
from .types import assign_types

__all__ = ('write_structure',)


def write_structure(path: str | Path, atoms: Atoms, elements: Sequence[str], units: str = 'metal') -> None:
    """Write a structure as LAMMPS data, with velocities if it has any; those of held atoms are 0.

    LAMMPS wants the first cell vector along x and the second in the xy plane, so that cell, positions and velocities
    are rotated (:attr:`.box.LammpsBox.rotation`); :meth:`.box.LammpsBox.equivalent` gives a structure whose cell leans
    no more than LAMMPS likes. Types are those of :func:`.types.assign_types`.

    :param elements: element of each LAMMPS type.
    :raises OodalError: an element that is not in ``elements``, masses that are none, atoms held along single axes.
    """
    from ase.io.lammpsdata import write_lammps_data

    types, prism = assign_types(atoms, elements), Prism(atoms.cell.array, pbc=atoms.pbc)
    straighten(prism.lammps_tilt)
    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc, masses=atoms.get_masses())
    plain.arrays['type'] = types.of_atoms
    moves = atoms.has('momenta')
    if moves:
        momenta = np.array(atoms.get_momenta())
        momenta[held_atoms(atoms)] = 0.0
        plain.set_momenta(momenta)
    rows = [
        f'{number} {float(mass)!r} # {element}\n'
        for number, (mass, element) in enumerate(zip(types.masses, types.elements, strict=True), start=1)
    ]
    with Path(path).open('w', encoding='utf-8') as stream:
        write_lammps_data(
            _BeforeAtoms(stream, f'\nMasses\n\n{"".join(rows)}'),
            plain,
            specorder=list(types.elements),
            prismobj=prism,
            force_skew=bool(prism.get_lammps_prism()[3:].any()),
            velocities=moves,
            units=units,
            atom_style='atomic',
        )


class _BeforeAtoms(TextIOBase):
    """A stream that puts a section before the atoms: ASE writes one mass for each element only.

    All goes to the file at once, as the text of a million atoms takes more memory than the atoms.
    """

    def __init__(self, stream: TextIO, section: str) -> None:
        self._stream, self._section = stream, section

    def write(self, text: str) -> int:
        """Write what ASE writes."""
        if text.startswith('\nAtoms # '):
            self._stream.write(self._section)
        return self._stream.write(text)
