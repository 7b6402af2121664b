import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData

REFERENCE = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}


def make_structures(*symbols):
    frames = [bulk(symbol, 'fcc', a=4.0, cubic=True) for symbol in symbols]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    return frames


def run(engine_code, localhost, **inputs):
    return run_get_node(LabelCalculation, code=engine_code, metadata={'computer': localhost}, **inputs)


def test_labels_are_those_of_the_calculator(engine_code, localhost):
    frames = make_structures('Al', 'Cu')
    outputs, node = run(engine_code, localhost, structures=StructureSetData(frames), reference=Dict(REFERENCE))
    assert node.is_finished_ok, node.exit_message
    for atoms, labelled in zip(frames, outputs['labels'], strict=True):
        atoms.calc = EMT(asap_cutoff=False)
        np.testing.assert_allclose(labelled.arrays['REF_forces'], atoms.get_forces(), atol=1e-10)
        np.testing.assert_allclose(labelled.info['REF_stress'], atoms.get_stress(), atol=1e-10)


def test_what_cannot_be_labelled_does_not_cost_the_others(engine_code, localhost):
    outputs, node = run(
        engine_code,
        localhost,
        structures=StructureSetData(make_structures('Al', 'Pb', 'Cu')),
        reference=Dict(REFERENCE),
    )
    assert node.exit_status == 410
    assert '1 of 3 structures could not be labelled' in node.exit_message
    assert 'Pb' in node.exit_message
    assert [atoms.get_chemical_symbols()[0] for atoms in outputs['labels']] == ['Al', 'Cu']


def test_an_unknown_calculator_is_named(engine_code, localhost):
    _, node = run(
        engine_code,
        localhost,
        structures=StructureSetData(make_structures('Al')),
        reference=Dict({'calculator': 'oracle'}),
    )
    assert node.exit_status == 210
    assert "'oracle' cannot be found" in node.exit_message


def test_there_must_be_something_to_label(engine_code, localhost):
    with pytest.raises(ValueError, match='give either `clusters` or `structures` to label'):
        run(engine_code, localhost, reference=Dict(REFERENCE))
