"""Settings of one MD run, checked before anything enters a queue.

They are read on the host, where the LAMMPS input is rendered; the compute node sees the rendered script only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from ase import Atoms
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.settings import Settings
from aiida_oodal.engine.thresholds import Thresholds

from .start.box import LammpsBox
from .start.held import held_atoms
from .start.types import assign_types

__all__ = ['Forces', 'MdSettings', 'check_structure', 'check_units']

#: Where forces come from: LAMMPS's ``pace/extrapolation``, Python through ``fix external``, or any other pair style
#: given as lines. The first two report gamma.
Forces = Literal['native', 'embedded', 'lines']

#: Hottest target [K]; nothing condensed is left long before.
_HOTTEST = 1e5
#: Thinnest cell that is no slip of units [angstrom].
_THINNEST = 1.0
#: No two atoms are that close, whatever the elements and the temperature [angstrom].
_CLOSEST = 0.3
#: How many neighbours of how many atoms at a time are looked at.
_FEW, _BLOCK = 9, 2000


def _read_temperature(value: Any) -> Any:
    """Check a temperature or a pair at once; pydantic would complain about a union once for each of its members."""
    numbers = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(numbers) == 2:
        # bool is an int to Python, but True is no temperature
        valid = [isinstance(number, Real) and not isinstance(number, bool) for number in numbers]
        if all(valid) and all(math.isfinite(number) and 0.0 < number <= _HOTTEST for number in numbers):
            return tuple(numbers) if isinstance(value, (list, tuple)) else value
    raise PydanticCustomError('temperature', f'one number or a pair (start, stop), each > 0 and <= {_HOTTEST:g} K')


class MdSettings(Settings):
    """What one MD run is to do.

    Times are in ps, temperatures in K and pressures in bar whatever ``units`` says: ``units`` is what the LAMMPS script
    is written in.
    """

    TITLE: ClassVar[str] = 'MD settings'

    ensemble: Literal['nve', 'nvt', 'npt'] = Field(
        'nvt', description='Statistical ensemble of MD; nvt and npt use Nosé-Hoover chains.'
    )
    coupling: Literal['iso', 'aniso', 'tri'] = Field('iso', description='How the cell may change in npt.')
    temperature: Annotated[float | tuple[float, float], BeforeValidator(_read_temperature)] = Field(
        description='Target [K], or a ramp (start, stop) over all steps.'
    )
    pressure: float = Field(0.0, ge=-1e7, le=1e7, description='Target of npt [bar].')
    steps: int = Field(10_000, ge=1, le=10**12, description='Step at which the run ends; restarts go on counting.')
    timestep_ps: float = Field(0.001, gt=0.0, le=0.1, description='Time step [ps].')
    temperature_damping_ps: float = Field(0.1, gt=0.0, le=1e3, description='Relaxation time of the thermostat [ps].')
    pressure_damping_ps: float = Field(1.0, gt=0.0, le=1e4, description='Relaxation time of the barostat [ps].')
    velocity_seed: int = Field(1, ge=1, le=900_000_000, description='Seed of new initial velocities.')
    initial_temperature: float | None = Field(
        None,
        gt=0.0,
        le=_HOTTEST,
        description='Temperature of new initial velocities [K]. None: the velocities of the structure or, where it has '
        'none, new ones at the start temperature.',
    )
    sample_every: int = Field(100, ge=1, le=10**9, description='Steps between snapshots.')
    thermo_every: int | None = Field(None, ge=1, le=10**9, description='Steps between log lines; None: sample_every.')
    gamma_every: int = Field(10, ge=1, le=10**6, description='Steps between evaluations of gamma.')
    restart_every: int | None = Field(
        1000, ge=1, le=10**9, description='Steps between restart files; None: at the end.'
    )
    gamma_select: float = Field(
        Thresholds.gamma_select, gt=0.0, description='Frames whose largest gamma is above this are kept as snapshots.'
    )
    gamma_break: float = Field(
        Thresholds.gamma_break,
        gt=0.0,
        description='MD halts when gamma of an atom is above this (uncertainty_threshold).',
    )
    gamma_ceiling: float = Field(
        Thresholds.gamma_ceiling, gt=0.0, description='Frames whose largest gamma is above this are not physical.'
    )
    skin: float = Field(1.0, gt=0.0, le=10.0, description='Margin of the neighbour list [angstrom].')
    units: Literal['metal', 'real'] = Field('metal', description='Units of the LAMMPS script.')
    walltime_s: int | None = Field(None, ge=1, le=10**9, description='Time after which LAMMPS itself ends the run [s].')

    @model_validator(mode='after')
    def _go_together(self) -> Self:
        try:
            _ = self.thresholds
        except OodalError as error:
            raise ValueError(str(error)) from None
        for name in ('sample_every', 'thermo_every', 'restart_every'):
            interval = getattr(self, name)
            if interval is not None and interval % self.gamma_every:
                raise ValueError(
                    f'{name} = {interval} must be a multiple of gamma_every = {self.gamma_every}: in between gamma is '
                    'not up to date'
                )
        dampings = {
            'nve': (),
            'nvt': ('temperature_damping_ps',),
            'npt': ('temperature_damping_ps', 'pressure_damping_ps'),
        }
        for name in dampings[self.ensemble]:
            damping = getattr(self, name)
            if damping < 10 * self.timestep_ps:
                raise ValueError(f'{name} = {damping:g} must be at least 10 timestep_ps = {10 * self.timestep_ps:g}')
        if self.coupling != 'iso' and self.ensemble != 'npt':
            raise ValueError(f"coupling = '{self.coupling}' needs ensemble = 'npt', but it is '{self.ensemble}'")
        if isinstance(self.temperature, tuple) and self.ensemble == 'nve':
            raise ValueError(f"temperature = {self.temperature} is a ramp, which ensemble = 'nve' cannot follow")
        return self

    @property
    def thresholds(self) -> Thresholds:
        """The three thresholds of gamma."""
        return Thresholds(self.gamma_select, self.gamma_break, self.gamma_ceiling)

    @property
    def temperature_start(self) -> float:
        """Target at step 0 [K]."""
        return self.temperature[0] if isinstance(self.temperature, tuple) else self.temperature

    @property
    def temperature_stop(self) -> float:
        """Target at the last step [K]."""
        return self.temperature[1] if isinstance(self.temperature, tuple) else self.temperature


def check_units(settings: MdSettings, forces: Forces) -> None:
    """Refuse units that a way to forces does not speak.

    :raises OodalError: ACE and everything driven from Python is in eV, angstrom and ps.
    """
    if forces != 'lines' and settings.units != 'metal':
        raise OodalError(
            f"MD settings: units = '{settings.units}', but {forces} forces need 'metal' (eV, angstrom, ps)"
        )


def check_structure(
    settings: MdSettings, atoms: Atoms, elements: Sequence[str], cutoff: float | None, *, forces: Forces
) -> None:
    """Refuse a structure that the potential or LAMMPS cannot run.

    A small cell is no reason: LAMMPS repeats the images of atoms as often as the cutoff asks for, and one atom in its
    primitive cell gets the same forces as its supercell. What a cell thinner than twice the cutoff lacks is independent
    atoms, not correct forces.

    :param elements: elements that the potential knows.
    :param cutoff: range of the potential [angstrom]; None where only LAMMPS knows it.
    :raises OodalError: unknown elements, broken positions, masses or cell, atoms in one place, an open direction where
        none can be, held atoms where none can be, wrong units.
    """
    check_units(settings, forces)
    if cutoff is not None and not 0.0 < cutoff < math.inf:
        raise OodalError(f'the cutoff of the potential is {cutoff:g} angstrom, it must be positive')
    if len(atoms) < 2:
        raise OodalError(f'the structure has {len(atoms)} atoms; a temperature needs 2 at least: repeat the cell')
    assign_types(atoms, elements)
    if (broken := np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))).size:
        raise OodalError(f'atom {broken[0]} is at {atoms.positions[broken[0]].tolist()}: positions must be finite')
    _check_cell(settings, atoms)
    _check_held(settings, atoms)
    # in a cell that leans far, neighbours are many cells away
    _check_distances(LammpsBox(atoms.cell.array, atoms.pbc).equivalent(atoms))


def _check_cell(settings: MdSettings, atoms: Atoms) -> None:
    """Refuse a cell that LAMMPS cannot make a box of."""
    cell = atoms.cell.array
    if not np.isfinite(cell).all() or atoms.cell.rank < 3:
        raise OodalError(f'the cell {cell.tolist()} must have three independent vectors, in open directions too')
    box = LammpsBox(cell, atoms.pbc)
    widths = 1.0 / np.linalg.norm(np.linalg.inv(box.cell), axis=0)
    if widths.min() < _THINNEST:
        raise OodalError(f'the cell is {widths.min():.3g} angstrom thin (limit {_THINNEST:g}): check its units')
    if settings.ensemble == 'npt' and not atoms.pbc.all():
        raise OodalError(f"ensemble = 'npt' needs a periodic cell, but its directions are {atoms.pbc.tolist()}")
    # LAMMPS can lean a direction only towards a periodic one: xy needs y, xz and yz need z
    if np.abs(box.tilts[(~atoms.pbc)[[1, 2, 2]]]).max(initial=0.0) > 1e-8:
        raise OodalError(
            f'the cell leans towards an open direction (periodic: {atoms.pbc.tolist()}); make it orthogonal or periodic'
        )


def _check_held(settings: MdSettings, atoms: Atoms) -> None:
    """Refuse held atoms that MD cannot hold."""
    held = held_atoms(atoms)
    if len(held) and settings.ensemble == 'npt':
        raise OodalError(
            f"{len(held)} atoms are held fixed (the first is {held[0]}), but in ensemble = 'npt' the cell moves all "
            "atoms: use 'nvt' or 'nve', or free them"
        )
    if len(held) == len(atoms):
        raise OodalError(f'all {len(held)} atoms are held fixed: nothing would move')


def _check_distances(atoms: Atoms) -> None:
    """Refuse atoms in one place: MD would end at its first step."""
    from scipy.spatial import cKDTree

    # Every cell as a box with its widths for edges: no component of a vector is longer there than the vector is.
    widths = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    scaled = atoms.get_scaled_positions(wrap=True)
    places = scaled * widths
    places[:, atoms.pbc] %= widths[atoms.pbc]  # rounding may put one on the far face
    tree = cKDTree(places, boxsize=np.where(atoms.pbc, widths, 0.0))
    # A few neighbours each, some atoms at a time: in a structure of wrong units all are neighbours of all.
    for start in range(0, len(atoms), _BLOCK):
        _, near = tree.query(places[start : start + _BLOCK], k=_FEW, p=np.inf, distance_upper_bound=_CLOSEST)
        own = np.arange(start, start + len(near))[:, None]
        rows, columns = np.nonzero((near != own) & (near < len(atoms)))
        i, j = rows + start, near[rows, columns]
        vectors = scaled[j] - scaled[i]
        vectors[:, atoms.pbc] -= np.rint(vectors[:, atoms.pbc])
        distances = np.linalg.norm(vectors @ atoms.cell.array, axis=1)
        if distances.min(initial=np.inf) < _CLOSEST:
            closest = distances.argmin()
            first, second = sorted((int(i[closest]), int(j[closest])))
            raise OodalError(
                f'atoms {first} and {second} are {distances[closest]:.3g} angstrom apart (limit {_CLOSEST:g}): an atom '
                'is there twice, or the positions are not in angstrom'
            )
