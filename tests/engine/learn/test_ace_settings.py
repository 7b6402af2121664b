from __future__ import annotations

import pytest
from pydantic import ValidationError

from aiida_oodal.engine.learn.ace_basis import AceFitValues
from aiida_oodal.engine.learn.ace_settings import AceFitSettings


def test_defaults_are_valid_and_frozen():
    assert AceFitSettings.check({}) is None
    with pytest.raises(ValidationError):
        AceFitSettings().ridge = 1.0


def test_the_plain_values_of_the_compute_node_name_every_setting():
    assert list(AceFitValues.__annotations__) == list(AceFitSettings.model_fields)


def test_plain_values_survive_the_way_through_json():
    settings = AceFitSettings(weights='mask', reference_energies={'Al': -3.0})
    assert AceFitSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize('name', list(AceFitSettings.model_fields))
def test_every_field_says_what_it_is_and_takes(name):
    assert AceFitSettings.model_fields[name].description
    assert AceFitSettings.allowed(name).startswith('allowed: ')


@pytest.mark.parametrize(
    ('settings', 'parts'),
    [
        ({'ridgee': 1}, ["'ridgee' is not a setting", "did you mean 'ridge'?"]),
        ({'xyzzy': 1}, ["'xyzzy' is not a setting", 'there are number_of_functions, cutoff']),
        ({'cutoff': 0.5}, ['cutoff = 0.5', '> 1.0, <= 20.0']),
        ({'cutoff': float('nan')}, ['cutoff = nan']),
        ({'number_of_functions': 'many'}, ["number_of_functions = 'many'", 'int, >= 1, <= 20000']),
        ({'weights': 'maks'}, ["weights = 'maks'", "'full', 'mask', 'downweight'"]),
        ({'downweight': 1.0}, ['downweight = 1.0', '< 1.0']),
        ({'active_set_tolerance': 1.0}, ['active_set_tolerance = 1.0', '> 1.0']),
        ({'radial_functions_by_order': [3, 2]}, ['radial_functions_by_order has 2 entries', '4']),
        (
            {'radial_functions_by_order': [3], 'angular_momentum_by_order': [1]},
            ['angular_momentum_by_order = (1,)', 'first entry exactly 0'],
        ),
        ({'reference_energies': {'Alu': 1.0}}, ['reference_energies', 'Alu is no element']),
        ({'cutoff': -1, 'ridge': -1}, ['cutoff = -1', 'ridge = -1']),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(settings, parts):
    message = AceFitSettings.check(settings)
    assert message is not None
    for part in parts:
        assert part in message
