"""LAMMPS input of one MD run: the script and the structure file.

The names of the files in a run folder are constants of this module; one folder holds one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism, convert
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.settings import Forces, MdSettings, check_units

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ['lammps_rotation', 'render_input', 'turn_back', 'write_structure']

INPUT_FILE = 'md.in'
STRUCTURE_FILE = 'structure.data'
INITIAL_RESTART = 'initial.restart'
POTENTIAL_YAML = 'potential.yaml'
ACTIVE_SET = 'active_set.asi'
LOG_FILE = 'log.lammps'
SNAPSHOTS_FILE = 'snapshots.dump'
FINAL_DUMP = 'final.dump'
FINAL_RESTART = 'final.restart'
FINAL_DATA = 'final.data'
#: Written in turn, so that one of them is whole whenever the run dies.
PERIODIC_RESTARTS = ('periodic.restart.1', 'periodic.restart.2')
#: Exit status of a run that halted on gamma.
EXIT_HALT = 3

_TEMPLATES = Path(__file__).resolve().parents[2] / 'templates' / 'lammps'


@cache
def _template() -> Template:
    """Return the template, compiled once: a daemon renders hundreds of scripts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template('md.in.j2')


def render_input(
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
    title: str = 'MD under watch of the extrapolation grade gamma',
) -> str:
    """Render the LAMMPS script of one run.

    A run that goes on from ``initial.restart`` follows the trajectory of an uninterrupted one to round-off, except in
    npt with a temperature ramp: LAMMPS sets the mass of the barostat from the target at which each run begins.

    :param forces: ``native``, ``embedded`` or ``lines``.
    :param elements: element of each LAMMPS type, in the order given to :func:`write_structure`.
    :param cutoff: range of the potential [angstrom], for embedded forces; None leaves it to who runs the script, as
        ``${cutoff}``.
    :param restart: go on from ``initial.restart``; else start from ``structure.data``.
    :param has_velocities: the structure file has velocities; they are kept unless ``initial_temperature`` is set.
    :param pbc: periodicity of the structure; boundaries of open directions move with the atoms.
    :param lines: pair_style and pair_coeff commands of ``forces='lines'``.
    :param run_to: step at which this run ends, before ``settings.steps`` if it is a segment of a longer one.
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
    return _template().render(
        _motion(settings),
        title=' '.join(title.split()),
        forces=forces,
        lines=list(lines),
        elements=list(elements),
        cutoff='${cutoff}' if cutoff is None else _number(cutoff),
        restart=restart,
        boundary=' '.join('p' if direction else 's' for direction in periodic),
        velocity=_velocity(settings, periodic) if new_velocities else None,
        run_to=settings.steps if run_to is None else run_to,
        exit_halt=EXIT_HALT,
        structure_file=STRUCTURE_FILE,
        restart_file=INITIAL_RESTART,
        potential_yaml=POTENTIAL_YAML,
        active_set=ACTIVE_SET,
        snapshots_file=SNAPSHOTS_FILE,
        final_dump=FINAL_DUMP,
        final_restart=FINAL_RESTART,
        final_data=FINAL_DATA,
        periodic_restarts=PERIODIC_RESTARTS,
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


def _velocity(settings: MdSettings, periodic: Sequence[bool]) -> dict[str, Any]:
    """Give the words of new velocities; only what is open on all sides can be kept from turning."""
    return {
        'temperature': _number(settings.initial_temperature or settings.temperature_start),
        'seed': settings.velocity_seed,
        'rot': 'no' if any(periodic) else 'yes',
    }


def _number(value: float) -> str:
    """Write a number so that it reads back as itself."""
    return repr(float(value))


def write_structure(atoms: Atoms, elements: Sequence[str], units: str = 'metal') -> str:
    """Write a structure as LAMMPS data, with velocities if it has any.

    LAMMPS wants the first cell vector along x and the second in the xy plane, so that cell, positions and velocities
    are rotated; :func:`lammps_rotation` is the way back.

    :param elements: element of each LAMMPS type.
    :raises OodalError: an element that is not in ``elements``.
    """
    from ase.io.lammpsdata import write_lammps_data

    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(elements)):
        raise OodalError(f'the structure has {", ".join(unknown)}, but the potential knows {", ".join(elements)} only')
    # only what is named here: ASE takes an array `type`, as LAMMPS readers leave one, for the types to write
    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc, masses=atoms.get_masses())
    moves = atoms.has('momenta')
    if moves:
        plain.set_momenta(atoms.get_momenta())
    stream = StringIO()
    write_lammps_data(
        stream, plain, specorder=list(elements), masses=True, velocities=moves, units=units, atom_style='atomic'
    )
    return stream.getvalue()


def lammps_rotation(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the rotation that :func:`write_structure` applies to a structure with this cell.

    Row vectors turn by ``v_lammps = v @ rotation`` and back by ``v = v_lammps @ rotation.T``. It holds for the whole
    run, also when the cell changes. A left-handed cell is mirrored, which changes neither energies nor gamma.

    :param cell: cell vectors in rows [angstrom], shape (3, 3).
    :returns: orthogonal matrix, shape (3, 3).
    """
    return np.asarray(Prism(np.asarray(cell, dtype=float)).rot_mat, dtype=float)


def turn_back(atoms: Atoms, rotation: NDArray[np.float64]) -> Atoms:
    """Return a frame of a run in the orientation of the structure that the run began with, its corner at the origin.

    :param atoms: a frame as read from a dump: positions, cell, ``celldisp`` and momenta in the orientation of LAMMPS.
    :param rotation: of :func:`lammps_rotation` for the structure that was written.
    """
    turned: Atoms = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.set_celldisp(np.zeros(3))
    turned.positions = (atoms.positions - atoms.get_celldisp().ravel()) @ rotation.T
    if atoms.has('momenta'):
        turned.set_momenta(atoms.get_momenta() @ rotation.T)
    return turned
