"""A campaign that stops says why, and keeps what it has."""

import re

import pytest
from aiida.engine import run_get_node
from aiida.orm import CalcJobNode
from ase.build import bulk

from aiida_oodal.data import StructureSetData
from aiida_oodal.report import read_history, write_report
from aiida_oodal.workchains.campaign import CampaignWorkChain

#: The first job of every kind is killed before its program begins.
KILLED_ONCE = """kind=$(grep -o "oodal-engine' '[a-z-]*" _aiidasubmit.sh | tail -1 | tr -dc a-z)
if ! [ -e {folder}/$kind ]; then touch {folder}/$kind; kill -9 $$; fi
"""


def make_crystals(count, first=0):
    frames = []
    for seed in range(first, first + count):
        atoms = bulk('Al', a=4.0, cubic=True).repeat(2)
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    return StructureSetData(frames)


def build(engine_code, localhost, **changes):
    crystal = StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)])
    arguments = {
        'code': engine_code,
        'computer': localhost,
        'protocol': 'quick',
        'initial_structures': make_crystals(4),
        'walkers': {'hot': {'structure': crystal, 'settings': {'temperature': 900, 'steps': 100}}},
    }
    return CampaignWorkChain.get_builder_from_protocol(**arguments | changes)


def test_a_calculator_that_is_not_there(engine_code, localhost, tmp_path):
    with pytest.raises(ValueError, match="'oracle' cannot be found"):
        build(engine_code, localhost, overrides={'label': {'calculator': {'calculator': 'oracle'}}})
    # one that ASE does not bring may be there where the job runs, and only there
    overrides = {'label': {'calculator': {'calculator': 'delphi.priests:Oracle'}}}
    _, node = run_get_node(build(engine_code, localhost, overrides=overrides))
    assert node.exit_status == 401
    assert "'delphi.priests:Oracle' cannot be found" in node.exit_message
    assert read_history(node).rounds == ()
    assert 'No walker was sent out yet.' in write_report(node, tmp_path / 'report.html').read_text()


def test_labels_that_carry_no_potential_are_kept(engine_code, localhost):
    """The zero of energy that was given cannot be that of these labels."""
    overrides = {'train': {'reference_energies': {'Al': 100.0}}}
    outputs, node = run_get_node(build(engine_code, localhost, overrides=overrides))
    assert node.exit_status == 402
    assert 'are total energies' in node.exit_message
    assert 'All labels are kept and attached' in node.exit_message
    assert outputs['labels']['start'].n_structures == 4


def test_a_spent_budget_attaches_potential_and_labels_whatever_was_lost(engine_code, localhost, tmp_path):
    overrides = {
        'train': {'number_of_functions': 30, 'max_functions': 30},
        'thresholds': {'gamma_break': 2.1, 'gamma_ceiling': 1e6},
        'max_rounds': 1,
    }
    options = {'prepend_text': KILLED_ONCE.format(folder=tmp_path)}
    given = {'overrides': overrides, 'options': options, 'initial_structures': make_crystals(4, first=200)}
    outputs, node = run_get_node(build(engine_code, localhost, **given))
    assert node.exit_status == 501, node.exit_message
    assert sorted(outputs['labels']) == ['round_1', 'start']
    train = [child for child in node.called if child.process_label == 'AceTrainWorkChain'][-1]
    assert outputs['potential'].pk == outputs['learned']['potential'].pk == train.outputs.learned.potential.pk
    jobs = [child for child in node.called_descendants if isinstance(child, CalcJobNode)]
    lost = sorted(child.process_label for child in jobs if child.exit_status == 146)
    assert lost == [
        *('CarveClustersCalculation', 'JudgeCalculation', 'LabelCalculation', 'MdCalculation'),
        *('SelectClustersCalculation', 'TrainAceCalculation'),
    ]
    assert all(child.is_finished_ok for child in jobs if child.exit_status != 146)
    history = read_history(node)
    assert not history.healed
    assert history.rounds[0].potential is not None
    # its message, taken at its word
    arguments = dict(re.findall(r'(initial_\w+)=(campaign\.[\w.]+)', node.exit_message))
    assert sorted(arguments) == ['initial_labels', 'initial_potential']
    follow = {name: eval(expression, {'campaign': node}) for name, expression in arguments.items()}
    crystal = StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)])
    hotter = {'hot': {'structure': crystal, 'settings': {'temperature': 4000, 'steps': 400}}}
    given |= {'initial_structures': None, 'options': {}, 'walkers': hotter, **follow}
    again, node = run_get_node(build(engine_code, localhost, **given))
    assert node.exit_status == 501, node.exit_message
    first = next(child for child in node.called if child.process_label == 'ExploreWorkChain')
    assert first.inputs.md.potential.uuid == outputs['potential'].uuid
    train = next(child for child in node.called if child.process_label == 'AceTrainWorkChain')
    assert set(train.inputs.labels) == {'initial_start', 'initial_round_1', 'round_1'}
    assert train.inputs.labels.initial_start.uuid == outputs['labels']['start'].uuid
    assert train.inputs.learned.potential.uuid == outputs['potential'].uuid
    before, after = (each.base.attributes.all for each in (outputs['potential'], again['potential']))
    assert after['cutoff'] >= before['cutoff']
    assert after['n_functions'] >= before['n_functions']


def test_a_job_that_is_lost_again_and_again_ends_the_campaign(engine_code, localhost):
    # structures that nobody labelled before: such labels would be taken as they are
    new = make_crystals(4, first=100)
    _, node = run_get_node(
        build(engine_code, localhost, initial_structures=new, options={'prepend_text': 'kill -9 $$'})
    )
    assert node.exit_status == 401
    assert 'ended from outside before its program began' in node.exit_message
    (labeller,) = node.called
    jobs = [child for child in labeller.called if isinstance(child, CalcJobNode)]
    assert [child.exit_status for child in jobs] == [146] * 4


def test_a_jump_over_the_ceiling_says_what_to_change(engine_code, localhost):
    overrides = {'train': {'number_of_functions': 30, 'max_functions': 30}, 'thresholds': {'gamma_ceiling': 5.1}}
    outputs, node = run_get_node(build(engine_code, localhost, overrides=overrides))
    assert node.exit_status == 502
    assert 'Evaluate gamma more often' in node.exit_message
    assert sorted(outputs['labels']) == ['start']
    assert 'potential' in outputs


def test_a_walker_that_begins_with_what_nobody_knows_says_so(engine_code, localhost):
    wild = bulk('Al', a=4.0, cubic=True).repeat(2)
    wild.rattle(0.5, seed=1)
    walkers = {'wild': {'structure': StructureSetData([wild]), 'settings': {'temperature': 300, 'steps': 100}}}
    small = {'number_of_functions': 30, 'max_functions': 30}
    overrides = {'train': small, 'thresholds': {'gamma_ceiling': 5.1}}
    outputs, node = run_get_node(build(engine_code, localhost, walkers=walkers, overrides=overrides))
    assert node.exit_status == 502
    assert "walker 'wild' ended at the structure that it began with, above gamma_ceiling" in node.exit_message
    for wrong in ('restart', 'Learn from', 'raise gamma_ceiling', 'Evaluate gamma more often'):
        assert wrong not in node.exit_message
    walker = next(child for child in node.called if child.process_label == 'ExploreWorkChain')
    assert walker.outputs.results['trigger_step'] == 0
    assert 'clusters' not in walker.outputs
    assert sorted(outputs['labels']) == ['start']
