"""LAMMPS as a library in a folder of its own, ready to be driven."""

from pathlib import Path

import numpy as np
import pytest

from aiida_oodal.engine.md.driver import LammpsDriver, open_lammps, read_commands
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lammps(in_folder):
    instance = open_lammps('-log', 'log.lammps')
    yield instance
    instance.close()


@pytest.fixture
def prepare():
    return _prepare


@pytest.fixture
def drive(lammps):
    """Return what runs a script up to its first step."""

    def run(atoms, evaluator, **values):
        _prepare(atoms, **values)
        driver = LammpsDriver(lammps, evaluator)
        driver.run_script(Path('start.in'))
        return driver

    return run


@pytest.fixture
def by_id(lammps):
    """Return what reads values of atoms in the order of their ids."""

    def read(name, n_atoms, dim=1, of=lammps):
        values = np.array(of.numpy.extract_atom(name, nelem=n_atoms, dim=dim))
        return values[np.argsort(of.numpy.extract_atom('id', nelem=n_atoms))]

    return read


def _prepare(atoms, forces='embedded', **values):
    """Write structure and script into the current folder, and give the commands before the run."""
    settings = MdSettings.load({'temperature': 300, 'gamma_break': 1e8, 'gamma_ceiling': 1e9, **values})
    lines = ['pair_style lj/cut 6.0', 'pair_coeff * * 0.2 2.6'] if forces == 'lines' else []
    Path('structure.data').write_text(write_structure(atoms, ['Al']))
    script = render_input(
        settings,
        forces=forces,
        elements=['Al'],
        cutoff=6.0,
        has_velocities=atoms.has('momenta'),
        pbc=atoms.pbc,
        lines=lines,
    )
    Path('md.in').write_text(script)
    commands = read_commands(Path('md.in'))
    start = next(number for number, command in enumerate(commands) if command.startswith('run '))
    Path('start.in').write_text('\n'.join(commands[:start]) + '\n')
    Path('rest.in').write_text('\n'.join(commands[start:]) + '\n')
    return settings
