"""Every row of the tables in docs/checks.md is submitted, and refused with the message that the row has."""

import re
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_oodal.data import AcePotentialData, MaceModelData, OodReferenceData, StructureSetData
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.carve import CarveWorkChain

ROOT = Path(__file__).parents[2]
DATA = ROOT / 'tests' / 'data'
ROWS = [
    tuple(cell.strip().strip('`') for cell in line.split('|')[1:-1])
    for line in (ROOT / 'docs' / 'checks.md').read_text().splitlines()
    if line.startswith('| `')
]


def crystal(symbol='Al', a=4.0):
    return StructureSetData([bulk(symbol, 'fcc', a=a, cubic=True)])


def labelled(symbol='Al', a=4.0):
    atoms = bulk(symbol, 'fcc', a=a, cubic=True)
    atoms.rattle(0.05, seed=1)
    return StructureSetData([label_structure(atoms, EMT(asap_cutoff=False))])


def other_level():
    (atoms,) = labelled()
    atoms.info['level_of_theory'] = 'f' * 64
    return StructureSetData([atoms])


def dilute():
    atoms = bulk('Al', cubic=True, a=4.0).repeat(3)
    atoms.symbols[0] = 'Cu'
    return StructureSetData([atoms])


def foreign():
    return AcePotentialData(DATA / 'ace-al' / 'Al.yaml', DATA / 'ace-al' / 'Al.asi')


def twins():
    models = {label: MaceModelData(DATA / 'mace_alcu' / 'w1.model') for label in ('w1', 'w2')}
    return {'models': models, 'reference': OodReferenceData()}


def walker(structure=None, **settings):
    return {'walkers': {'hot': {'structure': structure or crystal(), 'settings': {'temperature': 900, **settings}}}}


def moving():
    (atoms,) = crystal()
    atoms.set_momenta([[1.0, 0.0, 0.0]] * len(atoms))
    return StructureSetData([atoms])


def replicas(count, structure=None):
    given = walker(structure)
    given['walkers']['hot']['replicas'] = count
    return given


def overrides(**values):
    return {'overrides': values}


#: By the beginning of the message of a row, what is given to the builder of a campaign.
CAMPAIGN = {
    "'max_round'": lambda: overrides(max_round=2),
    'overrides: thresholds = 5': lambda: overrides(thresholds=5),
    'there is no protocol': lambda: {'protocol': 'quik'},
    "options: 'max_wallclock_second'": lambda: {'options': {'max_wallclock_second': 60}},
    "'num_machine'": lambda: {'options': {'resources': {'num_machine': 1}}},
    'max_memory_kb = 60': lambda: {'options': {'max_memory_kb': 60}},
    "stages: 'lable'": lambda: {'stages': {'lable': {}}},
    'max_rounds = 2.5': lambda: overrides(max_rounds=2.5),
    "budget: 'label'": lambda: overrides(budget={'label': 30}),
    "mix_levels = 'yes'": lambda: overrides(mix_levels='yes'),
    'thresholds must rise': lambda: overrides(thresholds={'gamma_break': 1.0}),
    'gamma_break = nan': lambda: overrides(thresholds={'gamma_break': float('nan')}),
    'give at least one walker': lambda: {'walkers': {}},
    "walkers: the name 'a b'": lambda: {'walkers': {'a b': walker()['walkers']['hot']}},
    "walker 'hot': 'structur'": lambda: {'walkers': {'hot': {'structur': crystal()}}},
    "walker 'hot': structure is a set": lambda: walker(StructureSetData(list(crystal()) * 3)),
    "walker 'hot': the structure has Cu": lambda: walker(crystal('Cu', 3.6)),
    "walker 'hot': the cell is": lambda: walker(crystal(a=0.4)),
    "walker 'hot': replicas = 0": lambda: replicas(0),
    "walker 'hot': its replica": lambda: {'walkers': {**replicas(2)['walkers'], 'hot_2': walker()['walkers']['hot']}},
    "walker 'hot': its structure has velocities, so that": lambda: replicas(2, moving()),
    "walker 'hot': schedule = ": lambda: overrides(schedule={'steps': 5}),
    "walker 'hot': entry 2 of its schedule": lambda: overrides(schedule=[{'steps': 5}, {'step': 5}]),
    "convergence: 'round'": lambda: overrides(convergence={'round': 2}),
    'convergence: gamma = 1': lambda: overrides(convergence={'gamma': 1.0}),
    'convergence: flat_share': lambda: overrides(convergence={'flat_share': 0.1}),
    'max_rounds = 3': lambda: overrides(schedule=[{'steps': 500}], convergence={'rounds': 2}, max_rounds=3),
    "walker 'hot': its structure has velocities, and": lambda: {
        **walker(moving()),
        **overrides(convergence={'rounds': 2}),
    },
    "walker 'hot': MD settings": lambda: walker(temprature=300),
    "walker 'hot': gamma_break": lambda: overrides(md={'gamma_break': 1.0}),
    'give initial.structures': lambda: {'initial_structures': None},
    'initial: give either': lambda: {'initial_potential': foreign(), 'initial_ensemble': twins()},
    'initial.potential was not': lambda: {'initial_structures': None, 'initial_potential': foreign()},
    "walker 'hot' has Al": lambda: {
        'initial_structures': None,
        'initial_potential': foreign(),
        'initial_labels': labelled('Cu', 3.6),
    },
    'initial_a: structure 0': lambda: {'initial_structures': None, 'initial_labels': {'a': crystal()}},
    'none within the cutoff': lambda: {'initial_structures': crystal(a=40.0)},
    'Cu-Cu': lambda: {'initial_structures': dilute()},
    'initial: the models w1 and w2': lambda: {'initial_ensemble': twins()},
    'labels of 2 levels': lambda: {'initial_labels': other_level()},
    'validation: structure 0': lambda: {'validation': crystal()},
    'validation has Cu': lambda: {'validation': labelled('Cu', 3.6)},
    'anchors.slab': lambda: {'anchors': {'slab': crystal()}},
    "'oodal.train.ace' is no labeller": lambda: {'labeller': 'oodal.train.ace'},
    "calculator 'oracle'": lambda: overrides(label={'calculator': {'calculator': 'oracle'}}),
    "calculator 'emt':": lambda: overrides(
        label={'calculator': {'calculator': 'emt', 'parameters': {'asap_cutof': 1}}}
    ),
    "calculator 'emt' does": lambda: {'initial_structures': crystal('Fe', 2.87)},
    "enough: 'shares'": dict,
    'there is no trainer': lambda: {'trainer': 'oodal.train.acee'},
    'ACE fit settings': lambda: overrides(train={'cutof': 5.0}),
    'part_weights': lambda: overrides(train={'part_weights': {'strat': 2.0}}),
    "carve settings: 'radiuss'": lambda: overrides(carve={'radiuss': 3.0}),
    'the edge of the cluster cell': lambda: overrides(carve={'buffer': 1.0}, train={'cutoff': 5.5, 'max_cutoff': 5.5}),
    'select settings': lambda: overrides(select={'max_clusters': 0}),
    "guard: 'tolerence'": lambda: overrides(guard={'tolerence': 1.5}),
    "calibration: 'halterror'": lambda: overrides(calibration={'halterror': 0.3}),
    'audit: max_labels': lambda: overrides(audit={'max_labels': 3, 'frames': 4}),
}


def submit_campaign(key, engine_code, localhost):
    given = {'initial_structures': crystal(), **walker(), **CAMPAIGN[key]()}
    builder = CampaignWorkChain.get_builder_from_protocol(code=engine_code, computer=localhost, **given)
    if key.startswith('enough'):
        builder.label.enough = orm.Dict({'shares': 0.5})
    run(builder)


def submit_carving(key, engine_code, localhost):
    run(CarveWorkChain, carve={'code': engine_code, 'metadata': {'computer': localhost}}, **CARVING[key]())


def snapshots(change):
    frames = [bulk('Al', cubic=True, a=4.0).repeat(2) for _ in range(2)]
    for step, atoms in enumerate(frames):
        atoms.info['step'] = float(step)
        atoms.arrays['gamma'] = np.full(len(atoms), 3.0)
    change(frames[1])
    return StructureSetData(frames)


CARVING = {
    'snapshots have no': lambda: {'snapshots': crystal(), 'potential': foreign()},
    'snapshot 1': lambda: {
        'snapshots': snapshots(lambda atoms: atoms.arrays['gamma'].__setitem__(3, np.nan)),
        'potential': foreign(),
    },
    'give either potential or': lambda: {'snapshots': snapshots(lambda _: None)},
}


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[2][:40])
def test_a_row_is_refused_as_it_says(row, engine_code, localhost):
    _, _, message = row
    pattern = '.*'.join(re.escape(part.strip()) for part in message.split('...'))
    (key,) = [key for key in (*CAMPAIGN, *CARVING) if message.startswith(key)]
    before = orm.QueryBuilder().append(orm.ProcessNode).count()
    submit = submit_carving if key in CARVING else submit_campaign
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the message is compared below
        submit(key, engine_code, localhost)
    assert re.search(pattern, str(refused.value).replace('`', ''), flags=re.DOTALL), refused.value
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == before


def test_every_case_is_a_row():
    for key in (*CAMPAIGN, *CARVING):
        assert len([row for row in ROWS if row[2].startswith(key)]) == 1, key
