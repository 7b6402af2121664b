from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import find_elements, label_structure, make_calculator


class Unstable(Calculator):
    """A calculator that gives nonsense, as one that did not converge may."""

    implemented_properties = ['energy', 'forces']  # noqa: RUF012  # ASE's own way to say it

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {'energy': 1.0, 'forces': np.full((len(atoms), 3), np.nan)}


@pytest.fixture
def crystal():
    atoms = bulk('Al', 'fcc', a=4.05, cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def test_emt_is_the_smooth_one_by_default():
    calculator = make_calculator({'calculator': 'emt', 'parameters': {}})
    assert isinstance(calculator, EMT)
    assert calculator.parameters['asap_cutoff'] is False


def test_parameters_reach_the_calculator():
    calculator = make_calculator({'calculator': 'lj', 'parameters': {'sigma': 2.5, 'rc': 6.0}})
    assert (calculator.parameters['sigma'], calculator.parameters['rc']) == (2.5, 6.0)


def test_a_calculator_outside_ase_is_named_by_its_path():
    assert isinstance(make_calculator({'calculator': 'ase.calculators.emt:EMT'}), EMT)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({}, "'calculator' is needed by name"),
        ({'calculator': 'emtt'}, "'emtt' cannot be found"),
        ({'calculator': 'no.such.module:Class'}, "'no.such.module:Class' cannot be found"),
        ({'calculator': 'ase.calculators.emt:Nothing'}, "'ase.calculators.emt:Nothing' cannot be found"),
        ({'calculator': 'emt', 'parameter': {}}, 'unknown entries parameter'),
        ({'calculator': 'emt', 'parameters': [1]}, "'parameters' must be a mapping"),
        ({'calculator': 'ase.calculators.emt:EMT', 'parameters': {'label': 3}}, "refuses the parameters {'label': 3}"),
    ],
)
def test_wrong_specifications_are_explained(spec, message):
    with pytest.raises(OodalError, match=message):
        make_calculator(spec)


def test_labels_are_those_of_the_calculator_and_the_rest_is_kept(crystal):
    crystal.info['step'] = 7
    crystal.arrays['force_mask'] = np.array([1.0, 0.0, 0.0, 1.0])
    crystal.set_momenta(np.ones((4, 3)))
    labelled = label_structure(crystal, EMT())
    crystal.calc = EMT()
    assert labelled.info['REF_energy'] == crystal.get_potential_energy()
    assert np.array_equal(labelled.arrays['REF_forces'], crystal.get_forces())
    assert np.array_equal(labelled.info['REF_stress'], crystal.get_stress())
    assert np.abs(labelled.arrays['REF_forces']).max() > 0.1
    assert labelled.calc is None
    assert labelled.info['step'] == 7
    assert np.array_equal(labelled.arrays['force_mask'], crystal.arrays['force_mask'])
    assert np.array_equal(labelled.get_momenta(), crystal.get_momenta())
    assert 'REF_forces' not in crystal.arrays


def test_a_fixed_atom_keeps_its_true_force(crystal):
    free = label_structure(crystal, EMT())
    crystal.set_constraint(FixAtoms([0, 1]))
    assert np.array_equal(label_structure(crystal, EMT()).arrays['REF_forces'], free.arrays['REF_forces'])


def test_the_energy_is_the_one_that_forces_belong_to(crystal):
    class Smeared(EMT):
        def calculate(self, *arguments, **keywords):
            super().calculate(*arguments, **keywords)
            self.results['energy'] += 1.0  # extrapolated to zero smearing; free_energy stays

    assert label_structure(crystal, Smeared()).info['REF_energy'] == label_structure(crystal, EMT()).info['REF_energy']


@pytest.mark.parametrize('pbc', [False, (True, True, False)])
def test_stress_is_given_for_bulk_only_and_an_old_one_is_dropped(crystal, pbc):
    crystal.info['REF_stress'] = np.zeros(6)
    crystal.pbc = pbc
    assert 'REF_stress' not in label_structure(crystal, EMT()).info


def test_a_calculator_without_stress_still_labels(crystal):
    class NoStress(EMT):
        implemented_properties = ('energy', 'free_energy', 'forces')

    assert 'REF_stress' not in label_structure(crystal, NoStress()).info


def test_an_element_the_calculator_does_not_know_is_named():
    with pytest.raises(OodalError, match=r'EMT cannot label structure 4 \(2 atoms of Na\).*choose a calculator'):
        label_structure(Atoms('Na2', positions=[[0, 0, 0], [0, 0, 3]]), EMT(), index=4)


def test_labels_that_are_not_finite_are_refused():
    with pytest.raises(OodalError, match=r'Unstable gives .* not finite for structure 2 \(3 atoms of H O\)'):
        label_structure(molecule('H2O'), Unstable(), index=2)


def test_elements_are_known_where_a_calculator_of_ase_tells_them_and_nothing_else_is_imported(tmp_path, monkeypatch):
    (tmp_path / 'elsewhere.py').write_text('raise RuntimeError("imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    metals = {'Al', 'Cu', 'Ag', 'Au', 'Ni', 'Pd', 'Pt', 'H', 'C', 'N', 'O'}
    assert set(find_elements('emt')) == set(find_elements('ase.calculators.emt:EMT')) == metals
    assert find_elements('lj') is None
    assert find_elements('elsewhere:Calculator') is None
