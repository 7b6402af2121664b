import pytest
from aiida import orm
from ase.build import bulk

from aiida_oodal.data import ClusterData
from aiida_oodal.engine.carve.cluster import extract_cluster
from aiida_oodal.queue import QueueStatus, enqueue, find_entries, find_known, mark


def make_cluster(seed):
    snapshot = bulk('Al', cubic=True).repeat(4)
    snapshot.rattle(0.05, seed=seed)
    cluster = extract_cluster(snapshot, 0, 4.0, 3.0, cutoff=6.0, shape='cube', bond_scale=0.75, repair='drop')
    return ClusterData(cluster).store()


def status(cluster):
    return orm.load_node(cluster.pk).base.extras.get('oodal_queue')['status']


def test_entries_are_pending_and_found():
    clusters = {f'c{seed}': make_cluster(seed) for seed in (1, 2)}
    assert enqueue(clusters, campaign='first') == clusters
    assert {status(cluster) for cluster in clusters.values()} == {'PENDING_DFT'}
    found = find_entries(QueueStatus.PENDING_DFT, campaign='first')
    assert [node.pk for node in found] == [node.pk for node in clusters.values()]
    query = orm.QueryBuilder().append(ClusterData, filters={'extras.oodal_queue.status': 'PENDING_DFT'})
    assert query.count() >= 2


def test_the_same_atoms_are_queued_once():
    first, twin = make_cluster(3), make_cluster(3)
    assert enqueue({'a': first, 'b': twin}, campaign='twins') == {'a': first}
    assert status(twin) == 'REJECTED'
    assert first.uuid in twin.base.extras.get('oodal_queue')['reason']


def test_queueing_again_changes_nothing():
    clusters = {'a': make_cluster(4)}
    enqueue(clusters, campaign='again')
    mark(clusters['a'], QueueStatus.SUBMITTED)
    assert enqueue(clusters, campaign='again') == clusters
    assert status(clusters['a']) == 'SUBMITTED'


def test_a_label_stays():
    cluster = make_cluster(5)
    enqueue({'a': cluster}, campaign='stay')
    for state in (QueueStatus.SUBMITTED, QueueStatus.LABELLED, QueueStatus.LABELLED):
        mark(cluster, state)
    with pytest.raises(ValueError, match=r'is LABELLED and cannot become PENDING_DFT; .* a label stays'):
        mark(cluster, QueueStatus.PENDING_DFT)


def test_a_failure_can_be_tried_again():
    cluster = make_cluster(6)
    enqueue({'a': cluster}, campaign='retry')
    mark(cluster, QueueStatus.SUBMITTED)
    mark(cluster, QueueStatus.FAILED, reason='no convergence')
    assert cluster.base.extras.get('oodal_queue')['reason'] == 'no convergence'
    mark(cluster, QueueStatus.PENDING_DFT)
    assert status(cluster) == 'PENDING_DFT'


def test_what_is_not_in_the_queue_cannot_be_marked():
    with pytest.raises(ValueError, match='is not in the queue: call enqueue first'):
        mark(make_cluster(7), QueueStatus.SUBMITTED)


def test_what_is_known_is_what_was_queued_and_not_rejected():
    first, twin, other = make_cluster(6), make_cluster(6), make_cluster(7)
    enqueue({'a': first, 'b': twin}, campaign='known')
    assert find_known('known', besides=[other]) == {f'c{first.pk}': first}
    # a choice that is made again after a crash is not confronted with its own outcome
    assert find_known('known', besides=[first, other]) == {}
