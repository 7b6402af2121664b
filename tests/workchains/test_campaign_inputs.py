"""A campaign that cannot work is refused before anything is submitted."""

import pytest
from aiida import orm
from aiida.engine import run
from ase.build import bulk

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.carve.settings import CarveSettings, SelectSettings
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.settings import MdSettings
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.campaign_inputs import find_doubts


def build(engine_code, localhost, **changes):
    crystal = StructureSetData([bulk('Al', cubic=True)])
    arguments = {
        'code': engine_code,
        'computer': localhost,
        'initial_structures': crystal,
        'walkers': {'hot': {'structure': crystal, 'settings': {'temperature': 900}}},
    }
    return CampaignWorkChain.get_builder_from_protocol(**arguments | changes)


@pytest.mark.parametrize('protocol', ['quick', 'balanced', 'careful'])
def test_protocols_give_inputs_that_are_accepted(engine_code, localhost, protocol):
    builder = build(engine_code, localhost, protocol=protocol)
    ports = CampaignWorkChain.spec().inputs
    assert ports.validate(ports.pre_process(builder._inputs(prune=True))) is None
    assert builder.walkers['hot']['settings']['temperature'] == 900
    # What MD keeps is carved, and what is carved may be chosen.
    thresholds = [
        MdSettings.load(builder.walkers['hot']['settings'].get_dict()).gamma_select,
        CarveSettings.load(builder.carve.get_dict()).gamma_select,
        SelectSettings.load(builder.select.get_dict()).gamma_min,
    ]
    assert len(set(thresholds)) == 1


def test_an_unknown_protocol_names_those_there_are(engine_code, localhost):
    with pytest.raises(OodalError, match="no protocol 'fast' of campaign; there are balanced, quick, careful"):
        build(engine_code, localhost, protocol='fast')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'walkers': {}}, 'give at least one walker'),
        ({'initial_structures': None}, 'to start from'),
        ({'overrides': {'carve': {'radiuss': 3.0}}}, "'radiuss' is not a setting; did you mean 'radius'"),
        ({'overrides': {'select': {'max_clusters': 0}}}, r'max_clusters = 0: .* >= 1'),
        (
            {'overrides': {'select': {'method': 'kmeans'}}},
            "method = 'kmeans' chooses by latents: give `ensemble`",
        ),
        ({'overrides': {'train': {'cutoff': -1.0}}}, r'cutoff = -1\.0'),
        ({'overrides': {'max_rounds': 0}}, 'max_rounds must be at least 1, got 0'),
        ({'overrides': {'reference': {'calculator': 7}}}, 'reference must be'),
        ({'overrides': {'carve': {'buffer': 1.0}}}, 'carve: the edge of the cluster cell is .* twice the cutoff of 6'),
        ({'overrides': {'md': {'gamma_break': 1.0}}}, "walker 'hot': .*gamma_select"),
        ({'overrides': {'md': {'temprature': 1.0}}}, "walker 'hot': .*did you mean 'temperature'"),
    ],
)
def test_what_cannot_work_is_refused(engine_code, localhost, changes, message):
    before = orm.QueryBuilder().append(orm.ProcessNode).count()
    with pytest.raises(ValueError, match=message):
        run(build(engine_code, localhost, **changes))
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == before


def test_a_walker_of_another_element_is_refused(engine_code, localhost):
    copper = StructureSetData([bulk('Cu', cubic=True)])
    walkers = {'alien': {'structure': copper, 'settings': {'temperature': 300}}}
    with pytest.raises(ValueError, match=r"walker 'alien': the structure has Cu, .* Al"):
        run(build(engine_code, localhost, walkers=walkers))


@pytest.mark.parametrize(
    ('shape', 'weights', 'doubts'), [('cube', 'full', 0), ('sphere', 'mask', 0), ('sphere', 'full', 1)]
)
def test_learning_surfaces_is_warned_of(engine_code, localhost, shape, weights, doubts):
    builder = build(engine_code, localhost, overrides={'carve': {'shape': shape}, 'train': {'weights': weights}})
    assert len(find_doubts(builder)) == doubts
