import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.settings import MdSettings, _check_distances, check_structure


def test_defaults_are_those_of_the_design():
    settings = MdSettings.load({'temperature': 300})
    assert (settings.steps, settings.timestep_ps, settings.pressure) == (10_000, 0.001, 0.0)
    assert (settings.gamma_select, settings.gamma_break, settings.gamma_every) == (2.0, 5.0, 10)
    assert (settings.sample_every, settings.ensemble, settings.units) == (100, 'nvt', 'metal')


def test_settings_cannot_change():
    settings = MdSettings.load({'temperature': 300})
    with pytest.raises(ValidationError, match='frozen'):
        settings.steps = 5


@pytest.mark.parametrize('temperature', [(300, 900), [300.0, 900.0]])
def test_a_ramp_comes_as_any_pair(temperature):
    settings = MdSettings.load({'temperature': temperature})
    assert (settings.temperature_start, settings.temperature_stop) == (300.0, 900.0)


def test_plain_values_give_the_same_settings_again():
    settings = MdSettings.load({'temperature': (300, 900), 'ensemble': 'npt', 'walltime_s': 60})
    assert MdSettings.load(settings.model_dump(mode='json')) == settings


@pytest.mark.parametrize(
    ('changed', 'parts'),
    [
        ({'temperature': -5}, ['temperature = -5', '> 0', '<= 100000 K']),
        ({'temperature': (300, -1)}, ['temperature = (300, -1)', 'pair (start, stop)']),
        ({'temperature': [300, 400, 500]}, ['temperature = [300, 400, 500]', 'pair']),
        ({'temperature': float('nan')}, ['temperature = nan']),
        ({'temperature': True}, ['temperature = True']),
        ({'temperature': '300'}, ["temperature = '300'"]),
        ({'initial_temperature': 0}, ['initial_temperature = 0', '> 0']),
        ({'pressure': float('inf')}, ['pressure = inf', 'finite']),
        ({'steps': 0}, ['steps = 0', '>= 1']),
        ({'timestep_ps': 1.0}, ['timestep_ps = 1.0', '<= 0.1']),
        ({'velocity_seed': 0}, ['velocity_seed = 0', '>= 1']),
        ({'ensemble': 'nvp'}, ["ensemble = 'nvp'", 'npt']),
        ({'gama_break': 3}, ["'gama_break'", "'gamma_break'"]),
        ({'gamma_select': 6}, ['gamma_select < gamma_break < gamma_ceiling', '6, 5, 100']),
        ({'gamma_ceiling': 5}, ['gamma_select < gamma_break < gamma_ceiling']),
        ({'sample_every': 15}, ['sample_every = 15', 'multiple of gamma_every = 10']),
        ({'thermo_every': 5}, ['thermo_every = 5', 'multiple of gamma_every = 10']),
        ({'restart_every': 999}, ['restart_every = 999', 'multiple of gamma_every = 10']),
        ({'temperature_damping_ps': 0.005}, ['temperature_damping_ps = 0.005', '10 timestep_ps = 0.01']),
        ({'ensemble': 'npt', 'pressure_damping_ps': 0.001}, ['pressure_damping_ps = 0.001']),
        ({'coupling': 'tri'}, ["coupling = 'tri'", "'npt'"]),
        ({'ensemble': 'nve', 'temperature': (300, 400)}, ['ramp', "'nve'"]),
        ({'walltime_s': 0}, ['walltime_s = 0', '>= 1']),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(changed, parts):
    message = MdSettings.check({'temperature': 300, **changed})
    assert message is not None
    for part in parts:
        assert part in message
    assert 'Value error' not in message
    assert '\n' not in message
    with pytest.raises(OodalError, match=r'^MD settings: '):
        MdSettings.load({'temperature': 300, **changed})


def test_every_wrong_field_is_named_once():
    message = MdSettings.check({'temperature': -5, 'steps': 0})
    assert message.count('temperature =') == 1
    assert message.count('steps =') == 1


def test_a_missing_temperature_is_named():
    assert 'temperature is missing' in MdSettings.check({})


def test_good_settings_have_no_message():
    assert MdSettings.check({'temperature': 300}) is None


def test_dampings_that_the_ensemble_does_not_use_are_not_checked():
    assert MdSettings.check({'temperature': 300, 'ensemble': 'nve', 'temperature_damping_ps': 1e-4}) is None


NVT = MdSettings(temperature=300)
NPT = MdSettings(temperature=300, ensemble='npt')
REAL = MdSettings(temperature=300, units='real')


def broken_atoms():
    atoms = bulk('Al', cubic=True)
    atoms.positions[2, 1] = np.nan
    return atoms


@pytest.mark.parametrize(
    ('settings', 'atoms', 'message'),
    [
        (NVT, bulk('NaCl', 'rocksalt', a=5.6), 'the structure has Cl, Na, but the potential knows Al, Cu only'),
        (NVT, bulk('Al'), 'has 1 atoms; .* repeat the cell'),
        (NVT, broken_atoms(), r'atom 2 is at .*nan'),
        (NVT, Atoms('Al2', positions=[[0, 0, 0], [2, 2, 2]], cell=[10, 10, 0], pbc=True), 'three independent vectors'),
        (NVT, bulk('Al', a=0.405) * 2, 'angstrom thin'),
        (
            NPT,
            Atoms('Al2', positions=[[0, 0, 0], [2, 2, 2]], cell=[10, 10, 10], pbc=[True, True, False]),
            "ensemble = 'npt' needs a periodic cell",
        ),
        (
            NVT,
            Atoms(
                'Al2', positions=[[0, 0, 0], [2, 2, 2]], cell=[[9, 0, 0], [4, 9, 0], [0, 0, 9]], pbc=[True, False, True]
            ),
            'leans towards an open',
        ),
        (
            NVT,
            bulk('Al', cubic=True) + Atoms('Cu', [[0, 0, 4.05]]),
            r'atoms 0 and 4 are \S+ angstrom apart \(limit 0.3\)',
        ),
        (REAL, bulk('Al', cubic=True), "units = 'real', but embedded forces need 'metal'"),
    ],
)
def test_what_cannot_run_is_refused(settings, atoms, message):
    with pytest.raises(OodalError, match=message):
        check_structure(settings, atoms, ['Al', 'Cu'], 6.0, forces='embedded')


@pytest.mark.parametrize(
    'atoms',
    [
        bulk('Al') * (2, 1, 1),
        bulk('Cu', cubic=True) * (3, 3, 3),
        Atoms('Al2', positions=[[0, 0, 0], [2, 2, 2]], cell=[9, 9, 9]),
        Atoms('Al2', positions=[[0, 0, 0], [2, 2, 2]], cell=[[9, 0, 0], [4, 9, 0], [0, 0, 9]], pbc=[True, True, False]),
    ],
)
def test_what_can_run_is_not(atoms):
    check_structure(NVT, atoms, ['Al', 'Cu'], 6.0, forces='embedded')


@given(
    first=arrays(float, 3, elements=st.floats(-20, 20)),
    vector=arrays(float, 3, elements=st.floats(-0.5, 0.5)),
    image=arrays(int, 3, elements=st.integers(-2, 2)),
    tilt=st.floats(-4, 4),
    pbc=arrays(bool, 3),
)
def test_atoms_in_one_place_are_refused_through_every_boundary(first, vector, image, tilt, pbc):
    cell = np.array([[5.0, 0, 0], [tilt, 7, 0], [tilt / 2, -1, 4]])
    assume(abs(np.linalg.norm(vector) - 0.3) > 1e-6)
    atoms = Atoms('Al2', positions=[first, first + vector + (image * pbc) @ cell], cell=cell, pbc=pbc)
    if np.linalg.norm(vector) < 0.3:
        with pytest.raises(OodalError, match=r'atoms 0 and 1 are \S+ angstrom apart'):
            _check_distances(atoms)
    else:
        _check_distances(atoms)


@pytest.mark.parametrize('edge', [4.1, 4.05, 7.3])
def test_an_atom_on_the_far_face_is_none(edge):
    last = np.nextafter(1.0, 0.0)
    _check_distances(Atoms('Al2', scaled_positions=[[last] * 3, [0.5] * 3], cell=[edge] * 3, pbc=True))


def test_a_structure_in_other_units_is_refused_though_all_its_atoms_are_near_each_other():
    positions = np.random.default_rng(0).random((20_000, 3))
    with pytest.raises(OodalError, match='the positions are not in angstrom'):
        _check_distances(Atoms(numbers=[13] * len(positions), positions=positions, cell=[40] * 3, pbc=True))


def test_real_units_are_for_pair_styles_given_as_lines():
    check_structure(REAL, bulk('Al', cubic=True), ['Al'], 6.0, forces='lines')


def test_a_potential_without_range_is_refused():
    with pytest.raises(OodalError, match='cutoff'):
        check_structure(NVT, bulk('Al', cubic=True), ['Al'], 0.0, forces='embedded')
