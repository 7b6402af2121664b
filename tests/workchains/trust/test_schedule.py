"""Replicas of walkers, schedules, and what of them a campaign refuses."""

import itertools

import pytest
from aiida import orm
from aiida.engine import run
from ase.build import bulk

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.trust.schedule import count_legs, list_legs, reseed, settings_of_leg


def crystal(moving=False):
    atoms = bulk('Al', cubic=True, a=4.05)
    if moving:
        atoms.set_momenta([[1.0, 0.0, 0.0]] * len(atoms))
    return StructureSetData([atoms])


@pytest.fixture
def build(engine_code, localhost):
    def make(walkers, **arguments):
        walkers = {name: {**each, 'structure': crystal(each['structure'])} for name, each in walkers.items()}
        return CampaignWorkChain.get_builder_from_protocol(
            code=engine_code, computer=localhost, initial_structures=crystal(), walkers=walkers, **arguments
        )

    return make


def walker(moving=False, settings=None, **more):
    """Return a walker whose structure `build` makes."""
    return {'structure': moving, 'settings': {'temperature': 900, **(settings or {})}, **more}


def test_replicas_differ_in_their_velocities_only(build):
    schedule = [{'steps': 20000}]
    builder = build(
        {'hot': walker(replicas=3, schedule=schedule), 'warm': walker(replicas=1)},
        overrides={'md': {'velocity_seed': 7}},
    )
    assert sorted(builder.walkers) == ['hot_1', 'hot_2', 'hot_3', 'warm']
    settings = [builder.walkers[f'hot_{number}']['settings'].get_dict() for number in (1, 2, 3)]
    assert [each.pop('velocity_seed') for each in settings] == [7, 8, 9]
    assert settings[0] == settings[1] == settings[2]
    assert {walker['structure'].uuid for name, walker in builder.walkers.items() if name != 'warm'} == {
        builder.walkers['hot_1']['structure'].uuid
    }
    assert builder.walkers['hot_2']['schedule'].get_list() == schedule
    assert builder.walkers['warm']['settings']['velocity_seed'] == 7


@pytest.mark.parametrize(
    ('walkers', 'message'),
    [
        ({'hot': walker(replicas=0)}, "walker 'hot': replicas = 0 must be a whole number, 1 to 1000"),
        ({'hot': walker(replicas=True)}, 'replicas = True must be a whole number'),
        ({'hot': walker(replicas=2), 'hot_2': walker()}, "its replica 'hot_2' has the name of another walker"),
        ({'hot_2': walker(), 'hot': walker(replicas=2)}, "its replica 'hot_2' has the name of another walker"),
        ({'hot': walker(True, replicas=2)}, 'its structure has velocities, .* initial_temperature'),
        ({'hot': walker(schedule=[{'velocity_seed': 5}], replicas=2)}, 'entry 1 of its schedule gives velocity_seed'),
        ({'hot': walker(replica=2)}, "'replica' is not known; did you mean 'replicas'"),
        ({'hot': walker(schedule={'steps': 5})}, "schedule = {'steps': 5} must be a list of settings"),
    ],
)
def test_walkers_that_cannot_be_made_are_refused(build, walkers, message):
    with pytest.raises(OodalError, match=message):
        build(walkers)


def test_replicas_of_a_moving_structure_get_velocities_of_their_own(build):
    hot = walker(True, {'initial_temperature': 900}, replicas=2)
    assert sorted(build({'hot': hot}).walkers) == ['hot_1', 'hot_2']


def test_legs_are_the_settings_and_what_is_merged_over_them(build):
    shared = [{'steps': 20000}, {'temperature': [300, 1500]}]
    builder = build(
        {
            'hot': walker(settings={'steps': 500}),
            'own': walker(schedule=[{'pressure': 1e4}]),
            'one': walker(schedule=()),
        },
        overrides={'schedule': shared},
    )
    assert count_legs(builder.walkers) == 3
    legs = [(leg['steps'], leg['temperature']) for leg in list_legs(builder.walkers['hot'])]
    assert legs == [(500, 900), (20000, 900), (500, [300, 1500])]  # each over the settings, not over the one before
    own = [settings_of_leg(builder.walkers['own'], leg).get('pressure', 0.0) for leg in (1, 2, 3)]
    assert own == [0.0, 1e4, 1e4]
    assert 'schedule' not in builder.walkers['one']
    assert settings_of_leg(builder.walkers['one'], 3) == builder.walkers['one']['settings'].get_dict()


def test_no_run_of_a_replica_has_the_seed_of_another():
    replicas = [{'temperature': 300, 'velocity_seed': 1 + number} for number in range(50)]
    seeds = [
        reseed(settings, shift).get('velocity_seed') for settings, shift in itertools.product(replicas, range(100))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(1 <= seed <= 900_000_000 for seed in seeds)
    assert reseed(replicas[0], 0) == replicas[0]
    assert reseed({'temperature': 300}, 1) == {'temperature': 300, 'velocity_seed': 1_000_004}


@pytest.mark.parametrize(
    ('walkers', 'overrides', 'message'),
    [
        (
            {'hot': walker(schedule=[{'steps': 5, 'gamma_every': 5, 'temprature': 4}])},
            {},
            'entry 1 of its schedule: .*did',
        ),
        ({'hot': walker(schedule=[{}, {'steps': -5}])}, {}, 'entry 2 of its schedule: MD settings: steps = -5'),
        ({'hot': walker(schedule=[5])}, {}, "walker 'hot': schedule: entry 1 is 5, and must be settings of MD by name"),
        (
            {'hot': walker(schedule=[{'gamma_break': 9.0}])},
            {},
            'entry 1 of its schedule: gamma_break = 9.0: thresholds',
        ),
        ({'hot': walker()}, {'convergence': {'round': 2}}, "did you mean 'rounds'"),
        ({'hot': walker()}, {'convergence': {'gamma': 1.0}}, 'gamma = 1 is below gamma_select = 2'),
        ({'hot': walker()}, {'convergence': {'flat_share': 0.1}}, 'flat_share = 0.1 is about .* give `validation`'),
        (
            {'hot': walker(True)},
            {'convergence': {'rounds': 2}},
            "walker 'hot': its structure has velocities, and convergence.rounds = 2",
        ),
        (
            {'hot': walker(schedule=[{'steps': 20000}])},
            {'convergence': {'rounds': 2}, 'max_rounds': 3},
            'max_rounds = 3 is too few: 2 legs of the schedule with convergence.rounds = 2 each take 4 rounds at least',
        ),
    ],
)
def test_what_a_campaign_could_not_reach_is_refused(build, walkers, overrides, message):
    before = orm.QueryBuilder().append(orm.ProcessNode).count()
    with pytest.raises(ValueError, match=message):
        run(build(walkers, overrides=overrides))
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == before


@pytest.mark.parametrize(
    ('progress', 'message'),
    [
        ({'leg': 3}, 'leg = 3, but the schedule has 2 legs'),
        ({'leg': 0}, 'leg = 0: give whole numbers'),
        ({'legs': 2}, 'legs = 2: give whole numbers, `leg` from 1 and `reseeded` from 0'),
    ],
)
def test_a_campaign_begins_in_a_leg_that_there_is(build, progress, message):
    builder = build({'hot': walker(schedule=[{'steps': 20000}])})
    inputs = builder._inputs(prune=True)
    inputs['initial']['progress'] = orm.Dict(progress)
    with pytest.raises(ValueError, match=message):
        run(CampaignWorkChain, **inputs)
