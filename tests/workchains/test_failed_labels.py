"""Clusters that could not be labelled: what is said of each, and that they come back when they are retried."""

import itertools

import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk
from toys import ToyLabelWorkChain, ToyTrainWorkChain

from aiida_oodal.data import StructureSetData
from aiida_oodal.queue import QueueStatus, find_entries, get_entries, retry
from aiida_oodal.report.campaign.figures import draw_clusters, draw_gamma
from aiida_oodal.report.campaign.history import read_history
from aiida_oodal.report.campaign.page import _list_clusters
from aiida_oodal.report.campaign.provenance import find_clusters
from aiida_oodal.workchains.campaign import CampaignWorkChain


class FlakyLabelWorkChain(ToyLabelWorkChain):
    """Labels the first two structures that it is given, every other at its second attempt only."""

    COUNTER = itertools.count()

    @classmethod
    def read_labels(cls, process, keys):
        (key,) = keys
        if next(cls.COUNTER) > 1 and get_entries(keys)[key].attempts < 2:
            return None, {key: f'the SCF of {key} did not converge'}
        return process.outputs.labels, {}


class MendingTrainWorkChain(ToyTrainWorkChain):
    """Does between the rounds what a user does who reads that labels have failed."""

    def train(self):
        retry(entry.key for entry in find_entries(QueueStatus.FAILED, campaign=self.node.caller.uuid))
        super().train()


@pytest.fixture
def campaign(entry_points, engine_code, localhost):
    entry_points.add(FlakyLabelWorkChain, 'aiida.workflows:oodal.label.flaky')
    entry_points.add(MendingTrainWorkChain, 'aiida.workflows:oodal.train.mending')
    crystal = StructureSetData([bulk('Al', a=4.0, cubic=True).repeat(2)])
    builder = CampaignWorkChain.get_builder_from_protocol(
        code=engine_code,
        computer=localhost,
        labeller='oodal.label.flaky',
        trainer='oodal.train.mending',
        protocol='quick',
        initial_structures=crystal,
        walkers={'hot': {'structure': crystal, 'settings': {'temperature': 3000, 'steps': 400}}},
        overrides={
            'label': {'stiffness': 0.125},
            # what is forgotten is not promoted, and walkers go on with other velocities: they find other clusters
            'train': {'forgetful': True},
            'guard': {'action': 'refuse'},
            'max_rounds': 2,
            'thresholds': {'gamma_select': 1.9, 'gamma_ceiling': 1e4},
        },
    )
    FlakyLabelWorkChain.COUNTER = itertools.count()
    return run_get_node(builder)[1]


def test_each_has_its_own_reason_and_comes_back_when_it_is_retried(campaign):
    links = {link.link_label: link.node for link in campaign.base.links.get_outgoing().all()}
    first, second = links['label_1'], links['label_2']
    failures = first.outputs.failures.get_dict()
    assert len(failures) >= 2
    assert failures == {key: f'the SCF of {key} did not converge' for key in failures}
    assert first.outputs.labels.n_structures == 1
    # the round after asks for them again, and gets them
    assert set(failures) < set(second.inputs.clusters)
    labelled = set(second.outputs.labels.get_set().info['queue_key'])
    assert labelled == set(failures)
    for key, entry in get_entries(second.inputs.clusters).items():
        # the others were let wait again after the last round, too
        assert entry.status is (QueueStatus.LABELLED if key in labelled else QueueStatus.PENDING_DFT)
    said = ' '.join(entry.message for entry in orm.Log.collection.get_logs_for(campaign))
    assert 'what waits again after `aiida-oodal queue retry` is asked for in the next round' in said

    history = read_history(campaign)
    assert [entry.n_labelled for entry in history.rounds] == [1, len(labelled)]
    assert [set(entry.labelled) for entry in history.rounds] == [set(first.inputs.clusters) - set(failures), labelled]
    assert {shape.y0 for shape in draw_gamma(history)['hot'].layout.shapes} == {1.9, 5.0}
    buttons = draw_clusters(history).layout.updatemenus[0].buttons
    drawn = {int(button.label.split()[-1]) for button in buttons}
    assert drawn == {cluster.pk for entry in history.rounds for cluster in entry.labelled.values()}
    rows = {row['pk']: row['status'] for row in _list_clusters(history)}
    for key, entry in get_entries(second.inputs.clusters).items():
        assert rows[second.inputs.clusters[key].pk] == entry.status.value
    for label in (first, second):
        keys = set(label.outputs.labels.get_set().info['queue_key'])
        found = {cluster.uuid for _, cluster in find_clusters([label.outputs.labels])}
        assert found == {label.inputs.clusters[key].uuid for key in keys}
