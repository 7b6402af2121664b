"""Jobs through daemon and Slurm, with what they ask for."""

import pytest
from aiida.engine import submit

pytestmark = [pytest.mark.slow, pytest.mark.daemon]


def test_md_and_labels_ask_for_the_partition_the_memory_and_the_card(md_builder, label_builder, wait_until, requested):
    nodes = [submit(md_builder()), submit(label_builder())]
    for node in nodes:
        wait_until(lambda node=node: node.is_terminated, f'{node} ends')
        assert node.is_finished_ok, node.exit_message
        assert requested(node) == ['a100', '60G', 'gres:gpu:a100:1']
    md, label = nodes
    assert md.outputs.results['last_step'] == 20
    assert label.outputs.labels.n_structures == 1


def test_a_whole_campaign(slurm_computer, engine_code, wait_until, requested, slurm):
    from aiida.orm import Dict
    from ase.build import bulk

    from aiida_oodal.calculations.job_options import get_job_options
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
        options=get_job_options(slurm_computer, 'md'),
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
