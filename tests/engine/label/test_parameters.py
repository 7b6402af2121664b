"""Parameters that nobody would read are refused, those that somebody reads are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.calculators.calculator import Calculator, get_calculator_class
from ase.calculators.espresso import Espresso
from ase.calculators.gaussian import Gaussian
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import find_class, make_calculator
from aiida_oodal.engine.label.parameters import find_placeholders, find_unknown, insert_files


@pytest.mark.parametrize(
    ('name', 'parameters', 'message'),
    [
        ('emt', {'asap_cutof': True}, "'asap_cutof' is no parameter .* would be ignored; did you mean 'asap_cutoff'"),
        ('lj', {'sigmaa': 2.0}, "did you mean 'sigma'"),
        ('lj', {'epsilon': 1.0, 'cutoff': 3.0}, "'cutoff' is no parameter"),
        ('morse', {'rho_0': 2.0}, "did you mean 'rho0'"),
        ('ase.calculators.lj:LennardJones', {'ROC': 1}, "'ROC' is no parameter"),
    ],
)
def test_a_misspelt_parameter_is_refused(name, parameters, message):
    with pytest.raises(OodalError, match=rf'calculator .*{message}'):
        make_calculator({'calculator': name, 'parameters': parameters})


@pytest.mark.parametrize(
    ('name', 'parameters'),
    [
        ('emt', {'asap_cutoff': True}),
        ('emt', {'directory': '.', 'label': 'x'}),
        ('lj', {'sigma': 2.5, 'epsilon': 0.1, 'rc': 6.0, 'ro': 5.0, 'smooth': True}),
        ('morse', {'epsilon': 1.0, 'rho0': 6.0, 'r0': 1.0, 'rcut1': 1.9, 'rcut2': 2.7}),
    ],
)
def test_every_parameter_that_a_calculator_has_is_taken(name, parameters):
    calculator = make_calculator({'calculator': name, 'parameters': parameters})
    assert isinstance(calculator, get_calculator_class(name))


def test_what_goes_into_an_input_file_is_for_the_program_to_judge():
    assert find_unknown(Espresso, ['ecutwfc', 'anything']) is None
    assert find_unknown(Gaussian, ['nosymm']) is None


class Quiet(Calculator):
    """Takes any keyword and reads one that it does not declare."""

    implemented_properties = ['energy']  # noqa: RUF012  # ASE's own way to say it

    def __init__(self, depth=1, **kwargs):
        super().__init__(**kwargs)
        self.head = kwargs.get('head_of_model')


def test_a_keyword_that_the_source_reads_is_known():
    assert find_unknown(Quiet, ['depth', 'head_of_model']) is None
    assert "'head_of_modle' is no parameter that it knows" in find_unknown(Quiet, ['head_of_modle'])


@pytest.mark.filterwarnings('ignore')  # of mace-torch and e3nn
def test_keywords_of_mace_that_no_signature_names_are_known():
    require('mace')
    mace = find_class('mace.calculators:MACECalculator')
    assert find_unknown(mace, ['model_paths', 'device', 'default_dtype', 'head', 'model_path']) is None
    assert "did you mean 'default_dtype'" in find_unknown(mace, ['defaultdtype'])


def test_parameters_of_xtb_that_become_others_are_known():
    require('tblite')
    make_calculator(
        {'calculator': 'tblite.ase:TBLite', 'parameters': {'method': 'GFN1-xTB', 'alpb_solvation': 'water'}}
    )
    with pytest.raises(OodalError, match="did you mean 'method'"):
        make_calculator({'calculator': 'tblite.ase:TBLite', 'parameters': {'metod': 'GFN1-xTB'}})


def test_files_stand_in_braces():
    files = {'model': Path('/job/model.pt'), 'table': Path('/job/t.dat')}
    value = {'paths': ['{model}', '{model}.aux'], 'text': 'as it is', 'n': 3, 'deep': {'t': 'file={table}'}}
    assert find_placeholders(value) == {'model', 'table'}
    assert insert_files(value, files) == {
        'paths': ['/job/model.pt', '/job/model.pt.aux'],
        'text': 'as it is',
        'n': 3,
        'deep': {'t': 'file=/job/t.dat'},
    }
    with pytest.raises(OodalError, match=r"'\{modle\}' stands for a file, and there is none of this name"):
        insert_files({'paths': '{modle}'}, files)
