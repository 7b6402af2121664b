"""A campaign that stops says why, and keeps what it has."""

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


def make_crystals(count):
    frames = []
    for seed in range(count):
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


def test_a_reference_that_is_not_there(engine_code, localhost, tmp_path):
    overrides = {'reference': {'calculator': 'oracle'}}
    _, node = run_get_node(build(engine_code, localhost, overrides=overrides))
    assert node.exit_status == 401
    assert "'oracle' cannot be found" in node.exit_message
    assert read_history(node).rounds == ()
    assert 'No walker was sent out yet.' in write_report(node, tmp_path / 'report.html').read_text()


def test_too_little_data_for_the_potential_keeps_the_labels(engine_code, localhost):
    overrides = {'train': {'number_of_functions': 300}}
    outputs, node = run_get_node(build(engine_code, localhost, overrides=overrides))
    assert node.exit_status == 402
    assert 'All labels are kept and attached' in node.exit_message
    assert outputs['labels']['start'].n_structures == 4


def test_a_spent_budget_attaches_potential_and_labels_whatever_was_lost(engine_code, localhost, tmp_path):
    overrides = {
        'train': {'number_of_functions': 30},
        'md': {'gamma_break': 2.1, 'gamma_ceiling': 1e6},
        'carve': {'gamma_ceiling': 1e6},
        'select': {'gamma_ceiling': 1e6},
        'max_rounds': 1,
    }
    options = {'prepend_text': KILLED_ONCE.format(folder=tmp_path)}
    outputs, node = run_get_node(build(engine_code, localhost, overrides=overrides, options=options))
    assert node.exit_status == 501, node.exit_message
    assert sorted(outputs['labels']) == ['round_1', 'start']
    assert outputs['potential'].pk == node.called[-1].outputs.potential.pk
    jobs = [child for child in node.called_descendants if isinstance(child, CalcJobNode)]
    lost = sorted(child.process_label for child in jobs if child.exit_status == 146)
    assert lost == ['LabelCalculation', 'MdCalculation', 'TrainAceCalculation']
    assert all(child.is_finished_ok for child in jobs if child.exit_status != 146)
    history = read_history(node)
    assert not history.healed
    assert history.rounds[0].potential is not None


def test_a_job_that_is_lost_again_and_again_ends_the_campaign(engine_code, localhost):
    _, node = run_get_node(build(engine_code, localhost, options={'prepend_text': 'kill -9 $$'}))
    assert node.exit_status == 401
    assert 'ended from outside before its program began' in node.exit_message
    assert [child.exit_status for child in node.called] == [146] * 4


def test_a_jump_over_the_ceiling_says_what_to_change(engine_code, localhost):
    overrides = {'train': {'number_of_functions': 30}, 'md': {'gamma_ceiling': 5.1}, 'carve': {'gamma_ceiling': 5.1}}
    outputs, node = run_get_node(build(engine_code, localhost, overrides=overrides))
    assert node.exit_status == 502
    assert 'Evaluate gamma more often' in node.exit_message
    assert sorted(outputs['labels']) == ['start']
    assert 'potential' in outputs
