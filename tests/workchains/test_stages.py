"""A labeller and a trainer of one's own take one class each: the campaign knows their contracts only."""

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from ase.build import bulk
from machine import require

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.crystals import strained_crystals
from aiida_oodal.queue import QueueStatus, find_entries
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.stages import load_labeller, load_trainer


def test_a_campaign_by_a_labeller_and_a_trainer_of_ones_own(build_toy_campaign):
    builder = build_toy_campaign(
        {'hot': {'settings': {'temperature': 3000, 'steps': 400}}},
        {'max_rounds': 1, 'thresholds': {'gamma_ceiling': 1e4}},
        a=4.0,
    )
    outputs, node = run_get_node(builder)
    assert node.exit_status == 501, node.exit_message
    assert outputs['learned']['potential'].cutoff == 6.0
    shown = outputs['results']['n_labels']
    assert shown == sum(labels.n_structures for labels in outputs['labels'].values()) > 1
    entries = find_entries(QueueStatus.LABELLED, campaign=node.uuid)
    assert len(entries) == shown
    assert {entry.labeller for entry in entries} == {'oodal.label.toy'}


@pytest.mark.parametrize(
    ('load', 'name', 'message'),
    [
        (load_labeller, 'oodal.campaign', "'oodal.campaign' is no labeller: it is not a subclass of"),
        (load_trainer, 'oodal.label.ase', "'oodal.label.ase' is no trainer"),
        (load_labeller, 'oodal.label.crystal_ball', "there is no labeller 'oodal.label.crystal_ball'"),
    ],
)
def test_what_keeps_no_contract_is_refused(load, name, message):
    with pytest.raises(OodalError, match=message):
        load(name)


@pytest.mark.slow
def test_the_second_identical_campaign_takes_everything_from_the_first(engine_code, localhost):
    require('lammps', 'pyace')
    crystal = StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(3)]).store()
    known = StructureSetData(strained_crystals(count=6, rattle=(0.02, 0.06), seed=1)).store()

    def run():
        builder = CampaignWorkChain.get_builder_from_protocol(
            code=engine_code,
            computer=localhost,
            protocol='quick',
            initial_structures=known,
            walkers={'hot': {'structure': crystal, 'settings': {'temperature': 3000, 'steps': 400}}},
            overrides={
                'label': {'calculator': {'calculator': 'emt'}},
                'train': {'number_of_functions': 10, 'max_functions': 10},
                'max_rounds': 1,
                'thresholds': {'gamma_ceiling': 1e6},
            },
        )
        outputs, node = run_get_node(builder)
        assert node.exit_status == 501, node.exit_message
        return outputs, node

    def jobs(node):
        return [child for child in node.called_descendants if isinstance(child, orm.CalcJobNode)]

    with enable_caching():
        outputs, first = run()
        queue = {entry.key: entry for entry in find_entries(QueueStatus.LABELLED, campaign=first.uuid)}
        again, second = run()
    made = [job.process_label for job in jobs(first)]
    assert {'MdCalculation', 'CarveClustersCalculation', 'LabelCalculation', 'TrainAceCalculation'} <= set(made)
    assert [job.process_label for job in jobs(second) if not job.base.caching.is_created_from_cache] == []
    assert 'LabelCalculation' not in [job.process_label for job in jobs(second)]
    assert again['potential'].base.caching.compute_hash() == outputs['potential'].base.caching.compute_hash()
    count = sum(labels.n_structures for labels in outputs['labels'].values())
    assert sum(labels.n_structures for labels in again['labels'].values()) == count == len(queue)
    # the queue has one entry of each, which both asked for, and nothing else of the first was touched
    both = {entry.key: entry for entry in find_entries(QueueStatus.LABELLED, campaign=second.uuid)}
    assert set(both) == set(queue)
    for key, entry in both.items():
        assert (entry.node, entry.label, entry.attempts) == (queue[key].node, queue[key].label, queue[key].attempts)
