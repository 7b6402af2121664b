"""A campaign that cannot work is refused before anything is submitted."""

from pathlib import Path

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_oodal.calculations.labels import merge_labels
from aiida_oodal.calculations.labels.sets import hold_out
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.campaign_inputs import find_doubts, find_labels

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'


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
    # Thresholds stand once.
    for settings in (builder.walkers['hot']['settings'], builder.carve.settings, builder.select.settings):
        assert not set(settings.get_dict()) & {'gamma_select', 'gamma_break', 'gamma_ceiling', 'gamma_min'}


def test_an_unknown_protocol_names_those_there_are(engine_code, localhost):
    with pytest.raises(OodalError, match="no protocol 'fast' of campaign; there are balanced, quick, careful"):
        build(engine_code, localhost, protocol='fast')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'walkers': {}}, 'give at least one walker'),
        ({'initial_structures': None}, 'give `initial.structures` or `initial.labels`'),
        ({'overrides': {'carve': {'radiuss': 3.0}}}, "'radiuss' is not a setting; did you mean 'radius'"),
        ({'overrides': {'select': {'max_clusters': 0}}}, r'max_clusters = 0: .* >= 1'),
        ({'overrides': {'train': {'cutoff': -1.0}}}, r'cutoff = -1\.0'),
        ({'overrides': {'max_rounds': 0}}, 'max_rounds must be at least 1, got 0'),
        ({'overrides': {'label': {'calculator': {'calculator': 7}}}}, "a 'calculator' is needed by name"),
        ({'overrides': {'carve': {'buffer': 1.0}}}, 'the edge of the cluster cell is .* twice the cutoff of 5.5'),
        ({'overrides': {'md': {'gamma_break': 1.0}}}, "walker 'hot': gamma_break = 1.0: thresholds are given once"),
        ({'overrides': {'thresholds': {'gamma_break': 1.0}}}, 'thresholds must rise'),
        ({'overrides': {'max_round': 2}}, "'max_round' is not an input of protocol .* did you mean 'max_rounds'"),
        ({'overrides': {'max_rounds': 2.5}}, r'max_rounds = 2\.5 must be a whole number'),
        ({'labeller': 'oodal.train.ace'}, "'oodal.train.ace' is no labeller"),
        ({'trainer': 'oodal.train.alchemy'}, "there is no trainer 'oodal.train.alchemy'"),
        ({'stages': {'dft': {}}}, "stages: 'dft' is not known; there are md, carve, select, label, train"),
        ({'stages': {'md': {'queue': 'a'}}}, "stages: md: 'queue' is not known; there are code, computer, options"),
        ({'overrides': {'md': {'temprature': 1.0}}}, "walker 'hot': .*did you mean 'temperature'"),
        ({'overrides': {'thresholds': {'gamma_brake': 5.0}}}, "did you mean 'gamma_break'"),
        ({'overrides': {'thresholds': {'gamma_break': 200.0}}}, 'thresholds must rise.* are 2, 200, 100'),
        ({'overrides': {'thresholds': {'gamma_select': 5.0}}}, 'thresholds must rise.* are 5, 5, 100'),
        ({'overrides': {'thresholds': {'gamma_break': float('nan')}}}, 'gamma_break = nan: .* finite'),
        ({'overrides': {'thresholds': {'gamma_ceiling': -1.0}}}, r'gamma_ceiling = -1\.0: .* greater than 0'),
        ({'overrides': {'thresholds': 5}}, 'thresholds = 5 of campaign must be values by name'),
        ({'overrides': {'guard': {'tolerence': 5}}}, "did you mean 'tolerance'"),
        ({'overrides': {'mix_levels': 'yes'}}, "mix_levels = 'yes' must be true or false"),
        ({'overrides': {'label': {'calculater': {}}}}, "did you mean 'calculator'"),
        ({'overrides': {'label': {'calculator': {'calculator': 'emt', 'paramters': {}}}}}, "did you mean 'parameters'"),
        ({'overrides': {'train': {'cutof': 5.0}}}, "did you mean 'cutoff'"),
        (
            {'overrides': {'train': {'part_weights': {'strat': 2.0}}}},
            "'strat' is no training set; did you mean 'start'",
        ),
        ({'options': {'max_wallclock_second': 60}}, "options: .* did you mean 'max_wallclock_seconds'"),
        ({'options': {'resources': {'num_machine': 1}}}, "resources on computer .* did you mean 'num_machines'"),
        ({'stages': {'train': {'options': {'queue': 'gpu'}}}}, "options: .* did you mean 'queue_name'"),
        ({'stages': {'lable': {}}}, "stages: .* did you mean 'label'"),
        ({'protocol': 'quik'}, "did you mean 'quick'"),
        ({'labeller': 'oodal.label.asee'}, "did you mean 'oodal.label.ase'"),
        ({'initial_ensemble': {'model': {}}}, "initial_ensemble: .* did you mean 'models'"),
        ({'second_opinion': {'refrence': None}}, "second_opinion: .* did you mean 'reference'"),
        ({'walkers': {'hot': {'structur': None}}}, "walker 'hot': .* did you mean 'structure'"),
        ({'walkers': {'hot': {'settings': {}}}}, "walker 'hot' lacks a structure"),
        ({'walkers': {'hot': 300}}, "walker 'hot': give {'structure': node"),
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


def test_a_validation_set_without_labels_is_refused_before_anything_is_labelled(engine_code, localhost):
    bare = StructureSetData([bulk('Al', cubic=True)])
    with pytest.raises(ValueError, match='validation: structure 0 has no REF_energy'):
        run(build(engine_code, localhost, validation=bare))


def test_elements_that_would_never_meet_are_named_before_anything_is_labelled(engine_code, localhost):
    """One impurity in a cell: the potential would be asked for two that meet, and know nothing of them."""
    dilute = bulk('Al', cubic=True, a=4.0).repeat(3)
    dilute.symbols[0] = 'Cu'
    impure = StructureSetData([dilute])
    with pytest.raises(ValueError, match=r'Cu-Cu: these elements are never within 5\.5 angstrom of each other'):
        run(build(engine_code, localhost, initial_structures=impure))


@pytest.mark.parametrize(
    ('shape', 'weights', 'doubts'), [('cube', 'full', 0), ('sphere', 'mask', 0), ('sphere', 'full', 1)]
)
def test_learning_surfaces_is_warned_of(engine_code, localhost, shape, weights, doubts):
    builder = build(engine_code, localhost, overrides={'carve': {'shape': shape}, 'train': {'weights': weights}})
    assert len([sentence for sentence in find_doubts(builder) if 'surfaces' in sentence]) == doubts


@pytest.mark.parametrize(('repeats', 'doubts'), [(2, 1), (5, 0)])
def test_clusters_that_are_larger_than_the_cell_of_their_walker_are_warned_of(engine_code, localhost, repeats, doubts):
    cell = StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(repeats)])
    walkers = {'hot': {'structure': cell, 'settings': {'temperature': 300}}}
    builder = build(engine_code, localhost, walkers=walkers, overrides={'carve': {'radius': 4.0, 'buffer': 3.0}})
    found = [sentence for sentence in find_doubts(builder) if 'is larger than the cell' in sentence]
    assert len(found) == doubts
    # 32 atoms in 512 cubic angstrom
    assert all('hot (32 atoms, a cube about 191)' in sentence for sentence in found)
    # and what it advises is the way out
    assert all('by the carve setting whole_atoms = 32' in sentence for sentence in found)
    whole = build(engine_code, localhost, walkers=walkers, overrides={'carve': {'whole_atoms': 32}})
    assert not [sentence for sentence in find_doubts(whole) if 'is larger than the cell' in sentence]


@pytest.mark.parametrize(('ensemble', 'has_stress', 'doubts'), [('npt', False, 1), ('npt', True, 0), ('nvt', False, 0)])
def test_constant_pressure_without_a_stress_to_learn_is_warned_of(engine_code, localhost, ensemble, has_stress, doubts):
    labelled = label_structure(bulk('Al', cubic=True, a=4.0).repeat(2), EMT())
    if not has_stress:
        del labelled.info['REF_stress']
    crystal = StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(3)])
    builder = build(
        engine_code,
        localhost,
        initial_structures=None,
        initial_labels=StructureSetData([labelled]),
        walkers={'hot': {'structure': crystal, 'settings': {'temperature': 300, 'ensemble': ensemble}}},
    )
    found = [sentence for sentence in find_doubts(builder) if 'stress' in sentence]
    assert len(found) == doubts
    assert all(sentence.startswith('walkers at constant pressure (hot)') for sentence in found)


def test_a_set_as_the_start_of_a_walker_is_refused(engine_code, localhost):
    three = StructureSetData([bulk('Al', cubic=True)] * 3)
    walkers = {'hot': {'structure': three, 'settings': {'temperature': 300}}}
    with pytest.raises(ValueError, match="walker 'hot': structure is a set of 3: give one structure"):
        run(build(engine_code, localhost, walkers=walkers))


def test_a_potential_from_elsewhere_needs_its_training_data(engine_code, localhost):
    """Refitted to new labels alone it would forget what it knows."""
    potential = AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi')
    with pytest.raises(ValueError, match=r'initial.potential was not trained here.*as `initial.labels`'):
        run(build(engine_code, localhost, initial_structures=None, initial_potential=potential))


def trained(localhost, **sets):
    """Return a potential that provenance says was trained on sets."""
    job = orm.CalcJobNode(computer=localhost, process_type='aiida.calculations:oodal.train_ace')
    for name, node in sets.items():
        job.base.links.add_incoming(node.store(), LinkType.INPUT_CALC, f'training__{name}')
    job.store()
    potential = AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi')
    potential.base.links.add_incoming(job, LinkType.CREATE, 'potential')
    return potential.store()


def labelled(a, symbol='Al'):
    crystal = bulk(symbol, a=a, cubic=True)
    crystal.rattle(0.05, seed=1)
    return StructureSetData([label_structure(crystal, EMT(asap_cutoff=False))])


def test_training_data_come_with_a_potential_once(localhost):
    """However they are given besides: not at all, by themselves, again from a file, or merged with others."""
    sets = {'start': labelled(4.0), 'round_1': labelled(4.1)}
    potential = trained(localhost, **sets)
    new = labelled(4.2)
    assert find_labels({'potential': potential}) == sets
    assert find_labels({'labels': {'new': new}, 'potential': potential}) == {'new': new, **sets}
    again = StructureSetData(list(sets['round_1']))
    assert find_labels({'labels': {'again': again}, 'potential': potential}) == {
        'again': again,
        'start': sets['start'],
    }
    merged = merge_labels(**sets, new=new)
    assert find_labels({'labels': {'merged': merged}, 'potential': potential}) == {'merged': merged}
    other = find_labels({'labels': {'start': new}, 'potential': potential})
    assert other == {'start': new, 'round_1': sets['round_1'], f'start_{sets["start"].uuid[:8]}': sets['start']}
    # what was held out of the training of a model was known, too
    parts = hold_out(fraction=orm.Float(0.5), set_a=merge_labels(**sets), set_b=new)
    model = trained(localhost, labels=parts['training'])
    assert {node.uuid for node in find_labels({'potential': model}).values()} == {
        node.uuid for node in (*sets.values(), new)
    }


def test_a_potential_that_was_trained_here_needs_nothing_else(engine_code, localhost):
    start = {'initial_structures': None, 'initial_potential': trained(localhost, start=labelled(4.0))}
    cut = {'radius': 6.0, 'buffer': 4.0}
    assert refusal(build(engine_code, localhost, **start, overrides={'carve': cut})) is None


@pytest.mark.parametrize(
    ('train', 'carve', 'message'),
    [
        # of the potential that is given, and of those that will be trained
        ({'cutoff': 5.0}, {'radius': 3.0, 'buffer': 2.5}, 'twice the cutoff of 6'),
        ({'cutoff': 9.0}, {'radius': 5.0, 'buffer': 3.5}, 'twice the cutoff of 9'),
    ],
)
def test_the_larger_cutoff_counts(engine_code, localhost, train, carve, message):
    start = {'initial_structures': None, 'initial_potential': trained(localhost, start=labelled(4.0))}
    builder = build(engine_code, localhost, **start, overrides={'train': train, 'carve': carve})
    assert message in refusal(builder)


def test_data_that_would_make_it_forget_an_element_are_refused(engine_code, localhost):
    start = {
        'initial_structures': None,
        'initial_potential': AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi'),
        'initial_labels': labelled(3.6, 'Cu'),
    }
    message = refusal(build(engine_code, localhost, **start))
    assert "walker 'hot' has Al, which the training data (Cu) lack" in message
    assert 'as `initial.labels` or `initial.structures`' in message


@pytest.mark.parametrize('name', ['a b', 'a__b', '2nd', '_a', 'a-b'])
def test_names_that_no_link_can_have(engine_code, localhost, name):
    crystal = StructureSetData([bulk('Al', cubic=True)])
    walkers = {name: {'structure': crystal, 'settings': {'temperature': 300}}}
    for what, changes in (
        ('walkers', {'walkers': walkers}),
        ('anchors', {'anchors': {name: crystal}}),
        ('initial_labels', {'initial_labels': {name: crystal}}),
    ):
        with pytest.raises(OodalError, match=f"{what}: the name '{name}' may have letters, digits"):
            build(engine_code, localhost, **changes)


def refusal(builder):
    ports = CampaignWorkChain.spec().inputs
    error = ports.validate(ports.pre_process(builder._inputs(prune=True)))
    return None if error is None else error.message


def test_every_stage_has_a_place_of_its_own(engine_code, localhost):
    stages = {'train': {'options': {'max_wallclock_seconds': 7200}}, 'md': {'computer': localhost}}
    builder = build(engine_code, localhost, stages=stages, options={'max_wallclock_seconds': 600})
    assert builder.md.metadata.options.max_wallclock_seconds == 600
    assert builder.train['inputs']['job']['metadata']['options']['max_wallclock_seconds'] == 7200
