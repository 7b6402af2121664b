import subprocess
import sys
import textwrap

import pytest
import sqlalchemy as sa
from aiida import orm
from aiida.manage import get_manager
from ase.build import bulk

from aiida_oodal.data import ClusterData
from aiida_oodal.engine.carve.cluster import extract_cluster
from aiida_oodal.engine.content import content_key
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.queue import (
    EXTRA,
    LevelOfTheory,
    OtherLevelError,
    QueueStatus,
    assign,
    claim,
    complete,
    count_entries,
    enqueue,
    fail,
    find_entries,
    get_entries,
    prioritise,
    reject,
    release,
    release_expired,
    retry,
)
from aiida_oodal.queue.transaction import open_table

EMT = LevelOfTheory('oodal.label.ase', {'calculator': 'emt', 'parameters': {}})
LJ = LevelOfTheory('oodal.label.ase', {'calculator': 'lj', 'parameters': {}})


def make_cluster(seed):
    snapshot = bulk('Al', cubic=True).repeat(4)
    snapshot.rattle(0.05, seed=seed)
    cluster = extract_cluster(snapshot, 0, 4.0, 3.0, cutoff=6.0, shape='cube', bond_scale=0.75, repair='drop')
    return ClusterData(cluster).store()


def make_atoms(number):
    """Return a node that is quick to make, other atoms for every number."""
    atoms = bulk('Al', cubic=True)
    atoms.positions[1, 0] += 1e-3 * (number + 1)
    return orm.StructureData(ase=atoms).store()


def status(node):
    return orm.load_node(node.pk).base.extras.get(EXTRA)['status']


def owner_process(state='running', exit_status=None):
    node = orm.WorkChainNode().store()
    node.set_process_state(state)
    if exit_status is not None:
        node.set_exit_status(exit_status)
    return node.uuid


def test_entries_are_pending_and_found_by_a_query():
    clusters = [make_cluster(seed) for seed in (1, 2)]
    entries = enqueue(clusters, EMT, campaign='first')
    assert {entry.status for entry in entries.values()} == {QueueStatus.PENDING_DFT}
    found = find_entries(QueueStatus.PENDING_DFT, campaign='first')
    assert {entry.load_node().pk for entry in found} == {node.pk for node in clusters}
    query = orm.QueryBuilder().append(
        ClusterData, filters={'extras.oodal_queue.status': 'PENDING_DFT', 'id': {'in': [c.pk for c in clusters]}}
    )
    assert query.count() == 2


def test_the_same_atoms_are_one_entry_and_everybody_who_asks_is_known():
    first, twin = make_cluster(3), make_cluster(3)
    before = count_entries()[QueueStatus.PENDING_DFT]
    mine = enqueue([first], EMT, campaign='one')[first.uuid]
    theirs = enqueue([twin], EMT, campaign='two')[twin.uuid]
    assert theirs.key == mine.key
    assert theirs.campaigns == ('one', 'two')
    assert count_entries()[QueueStatus.PENDING_DFT] == before + 1
    assert [entry.key for entry in find_entries(campaign='one')] == [mine.key]
    assert [entry.key for entry in find_entries(campaign='two')] == [mine.key]
    (claimed,) = claim('labeller', keys=[mine.key])
    assert claimed.load_node().pk == first.pk
    complete({mine.key: 'the labelled set'})
    assert (status(first), status(twin)) == ('LABELLED', 'LABELLED')
    assert get_entries([mine.key])[mine.key].label == 'the labelled set'


def test_another_level_of_theory_is_another_entry():
    cluster, twin = make_cluster(4), make_cluster(4)
    emt, lj = enqueue([cluster], EMT)[cluster.uuid], enqueue([twin], LJ)[twin.uuid]
    assert emt.key != lj.key
    claim('labeller', keys=[emt.key])
    complete({emt.key: 'label'})
    assert get_entries([lj.key])[lj.key].status is QueueStatus.PENDING_DFT


def test_queueing_again_changes_nothing():
    node = make_atoms(1)
    (entry,) = enqueue([node], EMT, campaign='again').values()
    claim('labeller', keys=[entry.key])
    assert enqueue([node], EMT, campaign='again')[node.uuid].status is QueueStatus.SUBMITTED
    assert orm.load_node(node.pk).base.extras.get(EXTRA)['campaigns'] == ['again']


def test_what_a_copy_brought_along_does_not_count():
    """AiiDA's cache copies a node with its extras."""
    source, copy = make_atoms(2), make_atoms(2)
    (entry,) = enqueue([source], EMT, campaign='source').values()
    copy.base.extras.set(EXTRA, orm.load_node(source.pk).base.extras.get(EXTRA))
    before = count_entries()
    assert [found.node for found in find_entries(campaign='source')] == [source.uuid]
    claim('labeller', keys=[entry.key])
    assert status(copy) == 'PENDING_DFT'  # nobody's business
    assert count_entries()[QueueStatus.SUBMITTED] == before[QueueStatus.SUBMITTED] + 1
    joined = enqueue([copy], EMT, campaign='second')[copy.uuid]
    assert joined.status is QueueStatus.SUBMITTED
    assert joined.campaigns == ('source', 'second')
    assert status(copy) == 'SUBMITTED'


def test_the_most_wanted_and_then_the_oldest_are_claimed_first():
    nodes = [make_atoms(number) for number in range(10, 14)]
    wanted = (0, 5, 0, 5)
    keys = [enqueue([n], EMT, priority=priority)[n.uuid].key for n, priority in zip(nodes, wanted, strict=True)]
    assert [entry.key for entry in claim('a', keys=keys, n=3)] == [keys[1], keys[3], keys[0]]
    assert [entry.key for entry in claim('b', keys=keys)] == [keys[2]]
    # who was killed in this step takes it again
    assert {entry.key for entry in claim('a', keys=keys, n=3)} == {keys[1], keys[3], keys[0]}
    assert get_entries(keys)[keys[0]].attempts == 1


def test_asking_with_a_higher_priority_raises_it():
    node = make_atoms(15)
    enqueue([node], EMT, priority=1)
    assert enqueue([node], EMT, priority=7)[node.uuid].priority == 7
    assert enqueue([node], EMT, priority=3)[node.uuid].priority == 7


def test_failures_keep_their_reason_and_can_be_tried_again():
    nodes = [make_atoms(number) for number in (20, 21)]
    keys = [enqueue([node], EMT)[node.uuid].key for node in nodes]
    claim('a', keys=keys)
    fail({keys[0]: 'no convergence', keys[1]: 'two atoms on top of each other'})
    assert [get_entries(keys)[key].reason for key in keys] == ['no convergence', 'two atoms on top of each other']
    assert claim('b', keys=keys) == []
    retry(keys[:1])
    (entry,) = claim('b', keys=keys)
    assert (entry.key, entry.attempts, entry.reason) == (keys[0], 2, None)


def test_a_label_stays():
    node = make_atoms(22)
    key = enqueue([node], EMT)[node.uuid].key
    claim('a', keys=[key])
    complete({key: 'first'})
    complete({key: 'second'})
    fail({key: 'too late'})
    assert get_entries([key])[key].label == 'first'
    with pytest.raises(
        OodalError, match=rf'{key} is LABELLED and cannot become REJECTED; .* a label is never taken away'
    ):
        reject([key], 'not wanted')


def test_what_is_being_labelled_is_not_taken_away():
    node = make_atoms(23)
    key = enqueue([node], EMT)[node.uuid].key
    claim('a', keys=[key])
    with pytest.raises(OodalError, match='SUBMITTED and cannot become REJECTED'):
        reject([key], 'not wanted')
    with pytest.raises(OodalError, match='q0 is not in the queue'):
        retry(['q0'])


def test_nothing_expires_where_nothing_is_submitted():
    release_expired()  # what other tests left
    assert release_expired() == []


def test_entries_of_owners_that_came_to_nothing_wait_again():
    nodes = [make_atoms(number) for number in range(30, 36)]
    keys = [enqueue([node], EMT)[node.uuid].key for node in nodes]
    running, killed, finished = owner_process(), owner_process('killed'), owner_process('finished', 0)
    owners = [running, killed, finished, finished, finished, 'of no process']
    children = [None, None, None, owner_process('finished', 0), owner_process('running'), None]
    for key, owner, child in zip(keys, owners, children, strict=True):
        claim(owner, keys=[key])
        if child is not None:
            assign([key], owner, child)
    released = {entry.key for entry in release_expired()}
    assert released & set(keys) == {keys[1], keys[2], keys[5]}
    assert get_entries(keys)[keys[3]].owner == finished
    assert get_entries(keys)[keys[1]].status is QueueStatus.PENDING_DFT


def test_what_has_no_level_gets_that_of_the_labeller_that_takes_it():
    node, twin, other = make_atoms(40), make_atoms(40), make_atoms(41)
    entries = enqueue([node, other], None, campaign='screening', scores={node.uuid: 3.5}, priority=2)
    entry = entries[node.uuid]
    assert (entry.level, entry.labeller, entry.score, entry.formula, entry.elements) == ('', '', 3.5, 'Al4', ('Al',))
    assert enqueue([twin], None, campaign='another')[twin.uuid].key == entry.key
    taken = enqueue([node], EMT, campaign='labeller')[node.uuid]
    assert taken.key == EMT.key(content_key(node.get_ase())) != entry.key
    assert (taken.level, taken.labeller, taken.theory, taken.priority) == (EMT.hash, EMT.labeller, EMT.text, 2)
    assert taken.campaigns == ('screening', 'another', 'labeller')
    assert taken.added == entry.added
    assert get_entries([entry.key]) == {}
    assert status(twin) == 'PENDING_DFT'
    (claimed,) = claim('a', keys=[taken.key])
    assert claimed.load_node().pk == node.pk
    assert status(twin) == 'SUBMITTED'  # the same atoms, the same entry
    assert status(other) == 'PENDING_DFT'
    # who asks for it without a level later gets what there is
    assert enqueue([node], None, campaign='late')[node.uuid].status is QueueStatus.SUBMITTED


def test_what_was_labelled_before_at_the_level_is_there_at_once():
    labelled, candidate = make_atoms(42), make_atoms(42)
    key = enqueue([labelled], EMT, campaign='first')[labelled.uuid].key
    claim('a', keys=[key])
    complete({key: 'the label'})
    enqueue([candidate], None, campaign='screening')
    before = count_entries()
    entry = enqueue([candidate], EMT, campaign='labeller')[candidate.uuid]
    assert (entry.key, entry.status, entry.label) == (key, QueueStatus.LABELLED, 'the label')
    assert entry.campaigns == ('first', 'screening', 'labeller')
    assert not entry.first
    after = count_entries()
    assert after[QueueStatus.PENDING_DFT] == before[QueueStatus.PENDING_DFT] - 1
    assert after[QueueStatus.LABELLED] == before[QueueStatus.LABELLED]


def test_a_node_is_one_entry_and_never_changes_its_level():
    node, free = make_atoms(43), make_atoms(44)
    key = enqueue([node], EMT)[node.uuid].key
    message = rf'node {node.uuid} is entry {key} of the queue at the level of theory .*emt.*: put a copy of the'
    with pytest.raises(OtherLevelError, match=message) as caught:
        enqueue([free, node], LJ)
    assert caught.value.nodes == [node.uuid]
    assert EXTRA not in orm.load_node(free.pk).base.extras.all
    assert get_entries([key])[key].level == EMT.hash


def test_what_attempts_cost_is_added_up():
    nodes = [make_atoms(number) for number in (45, 46)]
    one, two = (enqueue([node], EMT)[node.uuid].key for node in nodes)
    claim('a', keys=[one, two])
    release([one], 'a', hours={one: 0.5})
    release([one], 'a', hours={one: 0.5})  # again: it waits, nothing is spent
    claim('a', keys=[one])
    fail({one: 'no convergence'}, hours={one: 1.0}, max_attempts=3)
    entry = get_entries([one])[one]
    # what was let go costs, and was no attempt
    assert (entry.status, entry.reason, entry.attempts) == (QueueStatus.PENDING_DFT, 'no convergence', 1)
    claim('a', keys=[one])
    fail({one: 'no convergence'}, max_attempts=3)
    claim('a', keys=[one])
    fail({one: 'no convergence again'}, hours={one: 2.0}, max_attempts=3)
    complete({two: 'label'})
    found = get_entries([one, two])
    assert (found[one].status, found[one].core_hours) == (QueueStatus.FAILED, 3.5)
    assert found[two].core_hours is None


def test_priorities_are_set_whatever_they_were():
    node = make_atoms(47)
    key = enqueue([node], EMT, priority=5)[node.uuid].key
    (entry,) = prioritise([key], -1)
    assert (entry.priority, get_entries([key])[key].priority) == (-1, -1)


def test_the_database_finds_entries_by_indexes():
    """Else each look at the queue reads every node of the profile."""
    enqueue([make_atoms(48)], EMT)
    session = get_manager().get_profile_storage().get_session()
    is_postgresql = session.get_bind().dialect.name == 'postgresql'
    where = f"{open_table().field('key')} = 'q'"
    explain = 'EXPLAIN' if is_postgresql else 'EXPLAIN QUERY PLAN'
    session.execute(sa.text('SET enable_seqscan = off' if is_postgresql else 'SELECT 1'))  # few nodes are read faster
    plan = session.execute(sa.text(f'{explain} SELECT id FROM db_dbnode WHERE {where}')).all()
    assert 'ix_oodal_queue_key' in str(plan)
    table = open_table()
    query = sa.select(sa.func.count()).select_from(table._node)
    query = query.where(table.field('key').is_not(None), table.status == 'FAILED')
    text = str(query.compile(session.get_bind(), compile_kwargs={'literal_binds': True}))
    assert 'ix_oodal_queue_status' in str(session.execute(sa.text(f'{explain} {text}')).all())
    query = sa.select(table._node.id).where(table.field('key').is_not(None), table.asked_by('somebody'))
    text = str(query.compile(session.get_bind(), compile_kwargs={'literal_binds': True}))
    plan = str(session.connection().exec_driver_sql(f'{explain} {text}').all())
    if is_postgresql:  # which takes another index where there are few entries
        made = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_oodal_queue_campaigns'"
        assert 'USING gin' in session.execute(sa.text(made)).scalar_one()
        assert 'Seq Scan' not in plan
    else:
        assert all(f'ix_oodal_queue_{name}' in plan for name in ('campaigns', 'shared')), plan
        assert 'SEARCH db_dbnode USING INTEGER PRIMARY KEY' in plan


def test_entries_are_found_by_any_of_those_who_asked():
    own, shared, other = make_atoms(49), make_atoms(50), make_atoms(51)
    enqueue([own, shared], EMT, campaign='asks alone')
    enqueue([shared, other], EMT, campaign='asks as well')
    enqueue([other], EMT, campaign='asks')  # the beginning of a name is not a name
    names = ('asks alone', 'asks as well', 'asks', 'asks nothing')
    assert [{entry.node for entry in find_entries(campaign=name)} for name in names] == [
        {own.uuid, shared.uuid},
        {shared.uuid, other.uuid},
        {other.uuid},
        set(),
    ]


CLAIMER = """
    import sys
    from aiida import load_profile
    load_profile(sys.argv[1])
    from aiida_oodal.queue import claim
    keys = sys.argv[3].split(',')
    for number in range(len(keys)):
        for entry in claim(f'{sys.argv[2]}-{number}', keys=keys, n=1):
            print(entry.key, flush=True)
        if number == 0:
            sys.stdin.readline()
"""


def test_two_who_claim_at_once_never_get_the_same(aiida_profile):
    nodes = [make_atoms(number) for number in range(100, 160)]
    keys = [entry.key for entry in enqueue(nodes, EMT).values()]
    workers = [
        subprocess.Popen(
            [sys.executable, '-c', textwrap.dedent(CLAIMER), aiida_profile.name, name, ','.join(keys)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ('a', 'b')
    ]
    taken = [[worker.stdout.readline().strip()] for worker in workers]
    for worker in workers:  # both are there: now they race
        worker.stdin.write('\n')
        worker.stdin.flush()
    for worker, own in zip(workers, taken, strict=True):
        own += worker.communicate()[0].split()
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(taken[0] + taken[1]) == sorted(keys)
