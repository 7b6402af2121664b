"""Jobs through daemon and Slurm, with what they ask for."""

from pathlib import Path

import pytest
from aiida.engine import submit

from aiida_oodal.cli.setup_computer import render_script

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


def test_a_whole_campaign(slurm_computer, engine_code, wait_until, requested, slurm):
    from aiida.orm import Dict
    from ase.build import bulk

    from aiida_oodal.calculations.make_crystals import make_crystals
    from aiida_oodal.data import StructureSetData
    from aiida_oodal.workchains.campaign import CampaignWorkChain

    crystal = StructureSetData([bulk('Al', 'fcc', a=4.0, cubic=True).repeat(3)])
    builder = CampaignWorkChain.get_builder_from_protocol(
        code=engine_code,
        computer=slurm_computer,
        protocol='quick',
        initial_structures=make_crystals(Dict({'count': 10})),
        walkers={
            name: {'structure': crystal, 'settings': {'steps': 200, 'temperature': [300, top], 'velocity_seed': seed}}
            for name, top, seed in (('warm', 900, 1), ('hot', 1500, 2))
        },
        overrides={'train': {'number_of_functions': 30}, 'max_rounds': 8},
    )
    campaign = submit(builder)
    wait_until(lambda: campaign.is_terminated, 'the campaign ends', seconds=600)
    assert campaign.is_finished_ok, campaign.exit_message
    jobs = [node for node in campaign.called_descendants if hasattr(node, 'get_job_id')]
    kinds = {node.process_label for node in jobs}
    assert kinds == {'LabelCalculation', 'TrainAceCalculation', 'MdCalculation'}
    assert len({node.get_job_id() for node in jobs}) == len(jobs)
    # Slurm forgets a finished job after MinJobAge; those of the last round are still there.
    last = max(jobs, key=lambda node: node.pk)
    assert requested(last) == ['a100', '60G', 'gres:gpu:a100:1']
