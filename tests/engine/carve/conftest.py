"""Real data that the tests of carving share."""

from pathlib import Path

import pytest
from ase import Atoms
from ase.io import read

ACE_AL = Path(__file__).parents[2] / 'data' / 'ace-al'


@pytest.fixture
def hot_al() -> Atoms:
    """Return 500 atoms of Al after MD at 3000 K, with the gamma that LAMMPS with ML-PACE gave for this frame."""
    frame = read(ACE_AL / 'native_snapshot' / 'snap.dump', format='lammps-dump-text')
    atoms = Atoms('Al500', positions=frame.positions, cell=frame.cell, pbc=True, info={'step': 300})
    atoms.arrays['gamma'] = frame.arrays['f_pg'].ravel()
    return atoms
