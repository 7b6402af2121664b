"""Thermo output of MD runs as columns, and how consecutive runs become one series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.calculators.lammps import convert
from numpy.typing import NDArray

__all__ = ('FloatArray', 'ThermoTable', 'join_tables', 'to_metal')

FloatArray = NDArray[np.float64]

#: What the thermo columns of our scripts measure, where its unit depends on the units of the script.
_QUANTITIES = {'Time': 'time', 'PotEng': 'energy', 'KinEng': 'energy', 'TotEng': 'energy', 'Press': 'pressure'}


@dataclass(frozen=True, eq=False)
class ThermoTable:
    """Thermo output of one ``run`` or ``minimize``.

    :ivar columns: values by column name as printed (``Step``, ``Temp``, ``v_max_gamma`` ...), each float64
        ``(n_rows,)``, in the units of the run.
    :ivar line: line number of the header.
    :ivar finished: whether LAMMPS left the loop in order (``Loop time of``), be it at the end, by a halt or at a time
        limit.
    :ivar loop_steps: steps done, as LAMMPS counted them; None while not finished.
    :ivar atoms: number of atoms at the beginning and at the end; None while not finished, or not known.
    """

    columns: Mapping[str, FloatArray]
    line: int
    finished: bool = False
    loop_steps: int | None = None
    atoms: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def steps(self) -> NDArray[np.int64]:
        """Return the MD steps of the rows, int64 ``(n_rows,)``; empty if the table has no column ``Step``."""
        return self.columns.get('Step', np.empty(0)).astype(np.int64)

    @property
    def last_step(self) -> int | None:
        """Return the last MD step known to be done: a loop halted between two rows went further than its last row."""
        steps = self.steps
        if not len(steps):
            return None
        return max(int(steps[-1]), int(steps[0]) + (self.loop_steps or 0))


def join_tables(tables: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """Join thermo tables of consecutive runs, of one log or of several, so that every step counts once.

    The later run wins from its first step on: rows of earlier runs at or after that step are dropped. A run continued
    from a restart file thus replaces what was done after the restart was written, and a run after ``reset_timestep 0``
    replaces the minimisation before it.

    :param tables: columns of each table, each array ``(n_rows,)``; tables without ``Step`` or without rows are left
        out.
    :returns: columns by name, each float64 ``(n_steps,)``, steps rising; NaN where a table lacks the column.
    """
    parts = [table for table in tables if len(table.get('Step', ()))]
    kept: list[tuple[Mapping[str, FloatArray], int]] = []
    first_later = np.inf
    for table in reversed(parts):
        n_rows = int(np.searchsorted(table['Step'], first_later, side='left'))
        first_later = min(first_later, float(table['Step'][0]))
        if n_rows:
            kept.append((table, n_rows))
    kept.reverse()
    names = dict.fromkeys(name for table, _ in kept for name in table)
    return {
        name: np.concatenate([table[name][:n] if name in table else np.full(n, np.nan) for table, n in kept])
        for name in names
    }


def to_metal(columns: Mapping[str, FloatArray], units: str) -> dict[str, FloatArray]:
    """Return thermo columns in LAMMPS's metal units: ps, eV, bar; temperature [K] and volume [angstrom^3] stay.

    :param columns: values by column name as LAMMPS prints it.
    :param units: ``metal`` or ``real`` (fs, kcal/mol, atm), those of the script.
    """
    return {
        name: convert(values, _QUANTITIES[name], units, 'metal') if name in _QUANTITIES else values
        for name, values in columns.items()
    }
