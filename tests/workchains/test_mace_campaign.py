"""A campaign of a tiny ensemble of MACE models: it halts, clusters are labelled, and new models learn them."""

import time

import pytest
from machine import require
from scripts import run_example

from aiida_oodal.data import ClusterData
from aiida_oodal.operations.campaign.extend import build_extension
from aiida_oodal.report import read_history, write_report
from aiida_oodal.report.campaign.why import explain

require('lammps', 'mace')

SETTINGS = {
    'updates': 30,
    'evaluations': 3,
    'batch_size': 4,
    'learning_rate': 0.05,
    'device': 'cpu',
    'overrides': {'num_channels': 8, 'r_max': 4.0, 'num_radial_basis': 4, 'radial_MLP': [8]},
}


def say(node):
    return ' '.join(sentence for section in explain(node) for sentence in (section.title, *section.sentences))


@pytest.mark.slow
@pytest.mark.daemon
def test_it_halts_is_labelled_and_learns(localhost, daemon_client, tmp_path):
    if not daemon_client.is_daemon_running:
        daemon_client.start_daemon(2)
    node = run_example(
        'launch_mace.py',
        CRYSTALS={'count': 20, 'repeat': [1, 1, 1], 'strain': 0.02, 'rattle': [0.02, 0.1], 'seed': 5},
        WALKERS={'hot': {'temperature': [600, 4000], 'steps': 400}},
        REPEATS=2,
        VALIDATION={'temperatures': [300], 'samples_per_temperature': 2, 'steps': 20},
        SETTINGS={
            'label': {'calculator': {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}},
            'train': {'seeds': [1, 2], 'settings': SETTINGS, 'start_from': 'last'},
            'thresholds': {'gamma_ceiling': 1e6},
            # The models see two cutoffs, farther than such small cells reach: their grades are only noted.
            'carve': {'radius': 3.0, 'buffer': 2.5, 'unfaithful': 'flag', 'centres_per_snapshot': 2},
            'md': {'ensemble': 'nvt', 'gamma_every': 5, 'timestep_ps': 0.002},
            'select': {'max_clusters': 2},
            'max_rounds': 1,
        },
    )['campaign']
    end = time.monotonic() + 900
    while not node.is_terminated:
        assert time.monotonic() < end, node.process_state
        time.sleep(0.5)
    outputs = node.outputs
    assert node.exit_status == 501, node.exit_message
    (entry,) = read_history(node).rounds
    (walker,) = entry.walkers
    assert walker.outcome == 'UNCERTAIN', walker.message
    assert entry.n_labelled == len(entry.labelled) > 0
    calls = {link.link_label: link.node for link in node.base.links.get_outgoing().all()}
    first, second = (calls[f'train_{number}'].outputs.learned.ensemble for number in (0, 1))
    trainings = {link.link_label: link.node for link in calls['train_1'].base.links.get_outgoing().all()}
    for label, model in first.models.items():
        assert trainings[f'train_{label}'].inputs.start.uuid == model.uuid
    assert calls['explore_1_hot'].inputs.md.ensemble.reference.uuid == first.reference.uuid
    assert outputs['learned']['ensemble']['reference'].uuid == second.reference.uuid
    assert calls['train_1'].inputs.labels['round_1'].uuid == outputs['labels']['round_1'].uuid
    assert outputs['results']['training']['n_atoms'] > calls['train_0'].outputs.results['training']['n_atoms']

    changes = {'train': {'seeds': [1, 2, 3], 'start_from': 'scratch', 'updates': 40}, 'ensemble': {'forces': 'w2'}}
    extension = build_extension(node, changes, rounds=1)
    trainer = extension.train.inputs
    assert (trainer['seeds'].get_list(), trainer['start_from'].value) == ([1, 2, 3], 'scratch')
    assert trainer['settings'].get_dict() == calls['train_1'].inputs.settings.get_dict() | {'updates': 40}
    assert extension.ensemble.settings['forces'] == 'w2'

    cluster = next(iter(entry.labelled.values()))
    assert isinstance(cluster, ClusterData)
    said = say(cluster)
    assert f'OodReferenceData<{first.reference.pk}> was made by FitReferenceCalculation' in said
    assert 'Its label in StructureSetData' in said
    assert 'was the first that learned it' in said
    assert f'ClusterData<{cluster.pk}>' in say(second.models.w1)
    assert 'UNCERTAIN' in write_report(node, tmp_path / 'report.html').read_text()
