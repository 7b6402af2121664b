"""LAMMPS input of one MD run: the script and the structure file.

The names of the files in a run folder are constants of this module; one folder holds one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from ase.calculators.lammps import convert
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import (
    ACTIVE_SET_FILE,
    BASIS_FILE,
    FINAL_DATA_FILE,
    FINAL_FILE,
    FINAL_RESTART_FILE,
    INITIAL_RESTART_FILE,
    PERIODIC_RESTART_FILES,
    SNAPSHOTS_FILE,
    STRUCTURE_FILE,
)

from . import EXIT_HALT
from .pair_lines import sets_masses
from .settings import Forces, MdSettings, check_units
from .start.data_file import write_structure
from .start.held import group_words

__all__ = ['render_input', 'write_structure']


class Template(Protocol):
    """A template of a LAMMPS script: ``templates/lammps/md.in.j2``, compiled by Jinja2."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """Return the script with the values filled in."""


def render_input(
    template: Template,
    settings: MdSettings,
    *,
    forces: Forces,
    elements: Sequence[str],
    cutoff: float | None = None,
    restart: bool = False,
    has_velocities: bool = False,
    pbc: Sequence[bool] = (True, True, True),
    lines: Sequence[str] = (),
    run_to: int | None = None,
    held: Sequence[int] | NDArray[np.int64] = (),
    masses: Sequence[float] | NDArray[np.float64] = (),
    title: str = 'MD under watch of the extrapolation grade gamma',
) -> str:
    """Render the LAMMPS script of one run.

    A run that goes on from ``initial.restart`` follows the trajectory of an uninterrupted one to round-off, except in
    npt with a temperature ramp: LAMMPS sets the mass of the barostat from the target at which each run begins.

    :param template: as :func:`aiida_oodal.templates.get_template` gives it for ``lammps/md.in.j2``.
    :param forces: ``native``, ``embedded`` or ``lines``.
    :param elements: element of each LAMMPS type, as :func:`.start.types.assign_types` gives them.
    :param cutoff: range of the potential [angstrom], for embedded forces; None leaves it to who runs the script, as
        ``${cutoff}``.
    :param restart: go on from ``initial.restart``; else start from ``structure.data``.
    :param has_velocities: the structure file has velocities; they are kept unless ``initial_temperature`` is set.
    :param pbc: periodicity of the structure; boundaries of open directions move with the atoms.
    :param lines: pair_style and pair_coeff commands of ``forces='lines'``.
    :param run_to: step at which this run ends, before ``settings.steps`` if it is a segment of a longer one.
    :param held: atoms that are held fixed, by index from 0; never in npt.
    :param masses: of each type [u], where the structure has its own: they come after the pair style, as some styles
        set masses from their files, and frames carry them. Frames carry those that ``lines`` set, too.
    :raises OodalError: what these forces cannot do.
    """
    check_units(settings, forces)
    if bool(lines) != (forces == 'lines'):
        raise OodalError(
            f"forces = '{forces}' with {len(lines)} lines: lines of a pair style belong to forces = 'lines'"
        )
    if run_to is not None and not 0 < run_to <= settings.steps:
        raise OodalError(f'run_to = {run_to} must lie in 1 ... steps = {settings.steps}')
    periodic = [bool(direction) for direction in pbc]
    new_velocities = not restart and (settings.initial_temperature is not None or not has_velocities)
    return template.render(
        _motion(settings),
        title=' '.join(title.split()),
        forces=forces,
        lines=list(lines),
        elements=list(elements),
        cutoff='${cutoff}' if cutoff is None else _number(cutoff),
        restart=restart,
        boundary=' '.join('p' if direction else 's' for direction in periodic),
        velocity=_velocity(settings, periodic, holds=len(held) > 0) if new_velocities else None,
        run_to=settings.steps if run_to is None else run_to,
        held=group_words(np.asarray(held, dtype=np.int64)),
        masses=[_number(mass) for mass in masses],
        dump_masses=len(masses) > 0 or sets_masses(lines),
        exit_halt=EXIT_HALT,
        structure_file=STRUCTURE_FILE,
        restart_file=INITIAL_RESTART_FILE,
        potential_yaml=BASIS_FILE,
        active_set=ACTIVE_SET_FILE,
        snapshots_file=SNAPSHOTS_FILE,
        final_dump=FINAL_FILE,
        final_restart=FINAL_RESTART_FILE,
        final_data=FINAL_DATA_FILE,
        periodic_restarts=PERIODIC_RESTART_FILES,
    )


def _motion(settings: MdSettings) -> dict[str, Any]:
    """Give the settings as words of LAMMPS, in its units."""
    units = settings.units

    def time(picoseconds: float) -> str:
        return _number(convert(picoseconds, 'time', 'metal', units))

    pressure = _number(convert(settings.pressure, 'pressure', 'metal', units))
    targets = (_number(settings.temperature_start), _number(settings.temperature_stop))
    return {
        'units': units,
        'ensemble': settings.ensemble,
        'coupling': settings.coupling,
        'triclinic': settings.ensemble == 'npt' and settings.coupling == 'tri',
        'temperature': ' '.join((*targets, time(settings.temperature_damping_ps))),
        'pressure': ' '.join((pressure, pressure, time(settings.pressure_damping_ps))),
        'timestep': time(settings.timestep_ps),
        'steps': settings.steps,
        'skin': _number(settings.skin),
        'walltime': settings.walltime_s,
        'gamma_every': settings.gamma_every,
        'gamma_select': _number(settings.gamma_select),
        'gamma_break': _number(settings.gamma_break),
        'sample_every': settings.sample_every,
        'thermo_every': settings.thermo_every or settings.sample_every,
        'restart_every': settings.restart_every,
    }


def _velocity(settings: MdSettings, periodic: Sequence[bool], *, holds: bool) -> dict[str, Any]:
    """Give the words of new velocities.

    Only what is open on all sides can be kept from turning. Held atoms take up momentum: the others may have some.
    """
    return {
        'mom': 'no' if holds else 'yes',
        'temperature': _number(settings.initial_temperature or settings.temperature_start),
        'seed': settings.velocity_seed,
        'rot': 'no' if holds or any(periodic) else 'yes',
    }


def _number(value: float) -> str:
    """Write a number so that it reads back as itself."""
    return repr(float(value))
