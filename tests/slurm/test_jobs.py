"""Jobs through daemon and Slurm, with what they ask for."""

from pathlib import Path

import pytest
from aiida.engine import submit
from scripts import run_example

from aiida_oodal.operations.presets import render_script

pytestmark = [pytest.mark.slow, pytest.mark.daemon]


def test_jobs_ask_for_the_partition_the_memory_and_the_card(
    latents_builder, md_builder, label_builder, wait_until, requested, computer_settings
):
    nodes = {'latents': submit(latents_builder()), 'md': submit(md_builder()), 'label': submit(label_builder())}
    for process, node in nodes.items():
        wait_until(lambda node=node: node.is_terminated, f'{node} ends')
        assert node.is_finished_ok, node.exit_message
        assert requested(node) == ['a100', '60G', 'gres:gpu:a100:1']
        # What --dry-run shows is what sbatch gets.
        sent = (Path(node.get_remote_workdir()) / '_aiidasubmit.sh').read_text().replace(f'aiida-{node.pk}', process)
        shown = render_script('a100-slurm', computer_settings, process).replace(f'aiida-{process}', process)
        assert sent.split('\n') == shown.split('\n')
    assert sorted(nodes['latents'].outputs.latents) == ['w1', 'w2', 'w3', 'w4']
    assert nodes['latents'].outputs.latents.w1.get_array('latents').shape[0] > 0
    assert nodes['md'].outputs.results['last_step'] == 20
    assert nodes['label'].outputs.labels.n_structures == 1


def test_a_whole_campaign_with_stages_in_places_of_their_own(slurm_computer, localhost, wait_until, requested):
    """The script for clusters, with ACE in the place of MACE, and small."""
    label = {'calculator': {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}}
    campaign = run_example(
        'launch_slurm.py',
        TRAINER='oodal.train.ace',
        PROTOCOL='quick',
        SETTINGS={'label': label, 'train': {'number_of_functions': 30, 'max_functions': 40}, 'max_rounds': 8},
        CRYSTALS={'count': 10},
        WALKERS={
            'warm': {'steps': 200, 'temperature': [300, 900], 'velocity_seed': 1},
            'hot': {'steps': 200, 'temperature': [300, 1500], 'velocity_seed': 2},
        },
        REPEATS=3,
    )['campaign']
    wait_until(lambda: campaign.is_terminated, 'the campaign ends', seconds=600)
    assert campaign.is_finished_ok, campaign.exit_message
    jobs = [node for node in campaign.called_descendants if hasattr(node, 'get_job_id')]
    kinds = {node.process_label for node in jobs}
    assert kinds == {
        'LabelCalculation',
        'TrainAceCalculation',
        'MdCalculation',
        'CarveClustersCalculation',
        'SelectClustersCalculation',
        'JudgeCalculation',
    }
    here = {node.process_label for node in jobs if node.computer.uuid == localhost.uuid}
    assert here == {'LabelCalculation', 'SelectClustersCalculation'}
    on_slurm = [node for node in jobs if node.process_label not in here]
    assert {node.computer.uuid for node in on_slurm} == {slurm_computer.uuid}
    assert len({node.get_job_id() for node in on_slurm}) == len(on_slurm)
    hours = {node.process_label: node.get_option('max_wallclock_seconds') / 3600 for node in on_slurm}
    assert (hours['MdCalculation'], hours['TrainAceCalculation']) == (6, 12)
    # Slurm forgets a finished job after MinJobAge; those of the last round are still there.
    last = max(on_slurm, key=lambda node: node.pk)
    assert requested(last) == ['a100', '60G', 'gres:gpu:a100:1']
