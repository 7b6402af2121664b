"""B-projections and gamma, against LAMMPS with ML-PACE and against pyace's own calculator."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from machine import require

from aiida_oodal.engine.ace.evaluate import (
    AceEvaluator,
    load_inverse_active_set,
)
from aiida_oodal.engine.errors import OodalError

require('pyace')

FOLDER = Path(__file__).parents[2] / 'data' / 'ace-al'
YAML, ASI = FOLDER / 'Al.yaml', FOLDER / 'Al.asi'


@pytest.fixture(scope='module')
def ace() -> AceEvaluator:
    return AceEvaluator(YAML, ASI)


def with_pyace(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Return gamma and projections by pyace's calculator with its own neighbour list."""
    from pyace.asecalc import PyACECalculator

    calculator = PyACECalculator(str(YAML))
    calculator.set_active_set(str(ASI))
    copy = atoms.copy()
    copy.calc = calculator
    copy.get_potential_energy()
    return calculator.results['gamma'], np.asarray(calculator.projections)


def test_gamma_is_that_of_lammps(ace: AceEvaluator) -> None:
    frame = read(FOLDER / 'native_snapshot' / 'snap.dump', format='lammps-dump-text')
    atoms = Atoms('Al500', positions=frame.positions, cell=frame.cell, pbc=True)
    native = frame.arrays['f_pg'].ravel()
    np.testing.assert_allclose(ace.gamma(atoms), native, rtol=0, atol=1e-10)
    some = [223, 0, 499, 223]
    np.testing.assert_allclose(ace.gamma(atoms, some), native[some], rtol=0, atol=1e-10)
    projections = np.array(ace.projections(atoms, some))
    inverse = load_inverse_active_set(ASI)['Al']
    np.testing.assert_allclose(np.abs(projections @ inverse).max(axis=1), native[some], rtol=0, atol=1e-10)


@pytest.mark.parametrize('size', [1, 2, 3])
def test_cells_smaller_than_twice_the_cutoff(ace: AceEvaluator, size: int) -> None:
    atoms = bulk('Al', a=4.0) * (size, 1, 2)  # primitive vectors of 2.8 angstrom, cutoff 6
    atoms.rattle(0.1, seed=size)
    gamma, projections = with_pyace(atoms)
    np.testing.assert_allclose(ace.gamma(atoms), gamma, rtol=1e-10)
    np.testing.assert_allclose(np.array(ace.projections(atoms)), projections, rtol=1e-10, atol=1e-12)
    # the same environments in a cell of a safe size
    large = atoms * (6, 6, 4)
    np.testing.assert_allclose(ace.gamma(large, list(range(len(atoms)))), gamma, rtol=1e-8)


def test_without_periodicity_and_with_some(ace: AceEvaluator) -> None:
    atoms = bulk('Al', cubic=True) * (3, 3, 3)
    atoms.pbc = False
    np.testing.assert_allclose(ace.gamma(atoms), with_pyace(atoms)[0], rtol=1e-10)
    atoms.pbc = [True, False, True]
    padded = atoms.copy()
    padded.center(vacuum=10.0, axis=1)
    padded.pbc = True
    np.testing.assert_allclose(ace.gamma(atoms), with_pyace(padded)[0], rtol=1e-8)


def test_more_atoms_than_a_batch_and_none(ace: AceEvaluator) -> None:
    atoms = bulk('Al', cubic=True) * (5, 5, 3)
    gamma = ace.gamma(atoms)
    assert gamma.shape == (300,)
    np.testing.assert_allclose(gamma, gamma[0], rtol=1e-9)
    assert ace.gamma(atoms, []).shape == (0,)
    assert ace.projections(atoms, []) == []


def test_what_it_says_of_itself(ace: AceEvaluator) -> None:
    assert ace.cutoff == 6.0
    assert ace.elements == ('Al',)


def test_what_is_wrong_is_said(ace: AceEvaluator, tmp_path: Path) -> None:
    with pytest.raises(OodalError, match='knows Al, not Cu, O'):
        ace.gamma(Atoms('AlCuO', positions=np.eye(3) * 2))
    with pytest.raises(OodalError, match='structure has 1 atoms'):
        ace.gamma(Atoms('Al'), [1])
    with pytest.raises(OodalError, match='not finite'):
        ace.gamma(Atoms('Al', positions=[[np.nan, 0, 0]]))
    with pytest.raises(OodalError, match=r'gamma needs the \.asi file'):
        AceEvaluator(YAML).gamma(Atoms('Al'))
    with pytest.raises(OodalError, match='no such file'):
        AceEvaluator(tmp_path / 'X.yaml')
    with pytest.raises(OodalError, match='no such file'):
        AceEvaluator(YAML, tmp_path / 'X.asi')
    (tmp_path / 'bad.asi').write_text('nonsense')
    with pytest.raises(OodalError, match=r'bad\.asi: not a readable active set'):
        load_inverse_active_set(tmp_path / 'bad.asi')
    (tmp_path / 'bad.yaml').write_text('nonsense: 1')
    with pytest.raises(OodalError, match='pyace cannot read the potential'):
        AceEvaluator(tmp_path / 'bad.yaml')
    with pytest.raises(OodalError, match='pyace cannot read the potential'):
        AceEvaluator(YAML, tmp_path / 'bad.asi')
