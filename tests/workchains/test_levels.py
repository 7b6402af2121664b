"""Labels of different levels of theory do not mix unless somebody says so, and then the offset is shown."""

import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_oodal.calculations.label import get_ase_level
from aiida_oodal.data import StructureSetData
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.campaign_inputs import find_doubts, validate_campaign
from aiida_oodal.workchains.train.ace import AceTrainWorkChain
from aiida_oodal.workchains.train.levels import check_levels

EMT = get_ase_level({'calculator': 'emt'}, {})


def make_labels(level, per_atom=0.0, count=4):
    """Return labelled crystals; their energies are -3 eV an atom and what is said."""
    frames = []
    for seed in range(count):
        atoms = bulk('Al', a=4.0, cubic=True).repeat(2)
        atoms.rattle(0.05, seed=seed)
        atoms.info['REF_energy'] = len(atoms) * (-3.0 + per_atom)
        atoms.arrays['REF_forces'] = 0.0 * atoms.positions
        if level is not None:
            atoms.info['level_of_theory'] = level
        frames.append(atoms)
    return StructureSetData(frames)


def build(engine_code, localhost, labels, **overrides):
    crystal = StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)])
    builder = CampaignWorkChain.get_builder_from_protocol(
        code=engine_code,
        computer=localhost,
        protocol='quick',
        initial_labels=labels,
        walkers={'hot': {'structure': crystal, 'settings': {'temperature': 900, 'steps': 100}}},
        overrides=overrides,
    )
    return builder._inputs(prune=True)


def test_a_campaign_does_not_add_labels_of_another_level(engine_code, localhost):
    inputs = build(engine_code, localhost, make_labels('0123456789abcdef'))
    problem = validate_campaign(inputs, None)
    assert problem.startswith("labels of 2 levels of theory: '0123456789abcdef' (4), 'emt' (to come)")
    assert 'unless `mix_levels` is true' in problem
    assert validate_campaign(build(engine_code, localhost, make_labels(EMT.hash)), None) is None
    mixed = build(engine_code, localhost, make_labels('0123456789abcdef'), mix_levels=True)
    assert validate_campaign(mixed, None) is None
    assert find_doubts(mixed)[0].startswith('labels of 2 levels of theory: ')


def test_labels_that_name_no_level_are_a_doubt(engine_code, localhost):
    inputs = build(engine_code, localhost, make_labels(None))
    assert validate_campaign(inputs, None) is None
    assert find_doubts(inputs)[0].startswith('4 labels name no level of theory, so it is not known')


def test_the_offset_is_fitted_and_shown():
    sets = [make_labels('a' * 16), make_labels('b' * 16, per_atom=-0.25)]
    problem, doubts = check_levels(sets, mix=False)
    assert 'energies differ by Al -0.2500 eV/atom (fitted on 4 structures that have both' in problem
    assert doubts == []
    problem, doubts = check_levels(sets, mix=True)
    assert problem is None
    assert 'Al -0.2500' in doubts[0]
    assert check_levels(sets[:1], mix=False) == (None, [])


def test_a_trainer_refuses_them_too(engine_code, localhost):
    builder = AceTrainWorkChain.get_builder_from_protocol(
        code=engine_code, computer=localhost, overrides={'number_of_functions': 20}
    )
    builder.labels = {'one': make_labels('a' * 16), 'two': make_labels('b' * 16)}
    with pytest.raises(ValueError, match='They are not learned together unless `mix_levels` is true'):
        run_get_node(builder)
    builder.mix_levels = orm.Bool(True)
    _, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
