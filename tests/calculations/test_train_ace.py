"""A real fit in a job of its own."""

from __future__ import annotations

import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require

from aiida_oodal.calculations.train_ace import TrainAceCalculation
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.engine.label.crystals import strained_crystals

require('pyace')

SMALL = {
    'number_of_functions': 6,
    'max_functions': 12,
    'force_tolerance': 1e-6,
    'cutoff': 4.5,
    'spline_spacing': 0.01,
    'radial_functions_by_order': [6, 3, 1],
    'angular_momentum_by_order': [0, 2, 1],
}


@pytest.fixture(scope='module')
def cells():
    return [label_structure(atoms, EMT()) for atoms in strained_crystals(count=4, rattle=(0.05, 0.15), seed=3)]


@pytest.fixture
def inputs(engine_code, localhost, cells):
    def make(**changes):
        given = {
            'code': engine_code,
            'training': {'start': StructureSetData(cells[:2]), 'round_1': StructureSetData(cells[2:3])},
            'validation': StructureSetData(cells[3:]),
            'settings': Dict(SMALL),
            'metadata': {'computer': localhost},
        }
        return {name: value for name, value in (given | changes).items() if value is not None}

    return make


def test_a_potential_its_errors_on_every_set_and_its_successor(inputs, cells):
    outputs, node = run_get_node(TrainAceCalculation, **inputs(anchors={'cold': StructureSetData(cells[:1])}))
    assert node.is_finished_ok, node.exit_message
    results, potential = outputs['results'].get_dict(), outputs['potential']
    assert [(part, each['role']) for part, each in sorted(results['parts'].items())] == [
        ('cold', 'anchor'),
        ('round_1', 'training'),
        ('start', 'training'),
        ('validation', 'validation'),
    ]
    assert results['parts']['validation']['by_element']['Al']['force_rmse'] > 0
    assert [step['number_of_functions'] for step in results['growth']] == [6, 12]
    assert sum(results['number_of_functions'].values()) == potential.n_functions
    assert results['size'].startswith(('6 functions', '12 functions'))

    # The next potential is told to be small, and is not.
    smaller = Dict(SMALL | {'max_functions': None, 'cutoff': 4.0})
    outputs, node = run_get_node(TrainAceCalculation, **inputs(settings=smaller, learned=potential, validation=None))
    assert node.is_finished_ok, node.exit_message
    after = outputs['results'].get_dict()
    assert (after['number_of_functions'], after['cutoff']) == (results['number_of_functions'], 4.5)
    assert after['validation'] is None


def test_what_can_be_known_is_refused_before_anything_is_submitted(inputs, cells):
    bare = StructureSetData([bulk('Al')])
    copper = StructureSetData([label_structure(bulk('Cu'), EMT())])
    for changes, message in (
        ({'validation': bare}, 'validation: structure 0 has no REF_energy'),
        ({'training': {'start': bare}}, 'start: structure 0 has no REF_energy'),
        ({'validation': copper}, 'validation has Cu, which the training data'),
        ({'anchors': {'start': StructureSetData(cells[:1])}}, 'start: each training set and anchor needs a label'),
        ({'settings': Dict({'cutof': 3.0})}, "did you mean 'cutoff'"),
    ):
        with pytest.raises(ValueError, match=message):
            run_get_node(TrainAceCalculation, **inputs(**changes))
