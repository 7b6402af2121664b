from __future__ import annotations

import json
from dataclasses import replace

import pytest

from aiida_oodal.engine.ace.settings import AceFitSettings
from aiida_oodal.engine.errors import OodalError


def test_defaults_are_valid():
    assert AceFitSettings.check({}) is None


def test_plain_values_survive_the_way_through_json():
    settings = AceFitSettings.load({'weights': 'mask', 'reference_energies': {'Al': -3.0}, 'max_functions': 80})
    assert AceFitSettings.read(json.loads(json.dumps(settings.plain()))) == settings


def test_a_potential_of_another_size_does_not_grow():
    grown = AceFitSettings(max_functions=300, max_cutoff=7.0).with_form(120, 6.0)
    assert (grown.number_of_functions, grown.max_functions, grown.cutoff, grown.max_cutoff) == (120, None, 6.0, None)
    assert AceFitSettings(cutoff=5.0, max_cutoff=7.0).largest_cutoff == 7.0
    assert AceFitSettings(cutoff=5.0).largest_cutoff == 5.0
    assert AceFitSettings(cutoff=8.0, max_cutoff=7.0).largest_cutoff == 8.0


@pytest.mark.parametrize(
    ('settings', 'parts'),
    [
        ({'ridgee': 1}, ["'ridgee' is not a setting", "did you mean 'ridge'?"]),
        ({'xyzzy': 1}, ["'xyzzy' is not a setting", 'there are number_of_functions, max_functions, cutoff']),
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


def test_stricter_settings_weigh_what_got_worse_and_end_somewhere():
    settings = AceFitSettings(number_of_functions=100)
    first = settings.stricter(['start'])
    assert first == replace(settings, part_weights={'start': 2.0}, max_functions=150)
    assert first.stricter(['round_1']).part_weights == {'start': 2.0, 'round_1': 2.0}
    assert settings.stricter([]) == replace(settings, max_functions=150)
    changed, count = settings, 0
    while (changed := changed.stricter(['start'])) is not None:
        last, count = changed, count + 1
        assert count < 20
    assert (last.part_weights, last.max_functions) == ({'start': 8.0}, 1000)
    larger = AceFitSettings(number_of_functions=2000)
    assert larger.stricter([]) is None
    assert larger.stricter(['start']).max_functions == 2000


def test_weights_of_parts_are_positive():
    with pytest.raises(OodalError, match=r"part_weights = \{'start': 0.0\}: a weight must lie above 0"):
        AceFitSettings.load({'part_weights': {'start': 0.0, 'round_1': 1.0}})
