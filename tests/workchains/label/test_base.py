"""The way of every labeller through the queue: nobody pays twice, nobody waits for a label that does not come."""

import asyncio
from contextlib import nullcontext

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState, run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.manage.caching import enable_caching
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_oodal.data import StructureSetData
from aiida_oodal.queue import QueueStatus, assign, claim, enqueue, find_entries, get_entries, reject, retry
from aiida_oodal.workchains.label.ase import AseLabelWorkChain

CALCULATOR = {'calculator': 'emt', 'parameters': {'asap_cutoff': False}}


def make_frames(*seeds, symbol='Al'):
    frames = []
    for seed in seeds:
        atoms = bulk(symbol, cubic=True)
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    return frames


@pytest.fixture
def inputs(engine_code, localhost):
    def factory(frames, **more):
        return {
            'job': {'code': engine_code, 'metadata': {'computer': localhost}},
            'calculator': orm.Dict(CALCULATOR),
            'clusters': {f'c{number}': orm.StructureData(ase=atoms) for number, atoms in enumerate(frames)},
            **more,
        }

    return factory


def jobs_of(node):
    return [child for child in node.called_descendants if child.process_label == 'LabelCalculation']


def test_labels_come_back_under_the_keys_of_the_queue(inputs):
    frames = make_frames(1, 2, 3)
    outputs, node = run_get_node(AseLabelWorkChain, **inputs(frames))
    assert node.is_finished_ok, node.exit_message
    assert outputs['failures'].get_dict() == {}
    entries = {entry.key: entry for entry in find_entries(campaign=node.uuid)}
    assert {entry.status for entry in entries.values()} == {QueueStatus.LABELLED}
    by_node = {entry.node: key for key, entry in entries.items()}
    labels = {atoms.info['queue_key']: atoms for atoms in outputs['labels']}
    for number, atoms in enumerate(frames):
        labelled = labels[by_node[node.inputs.clusters[f'c{number}'].uuid]]
        atoms.calc = EMT(asap_cutoff=False)
        np.testing.assert_allclose(labelled.arrays['REF_forces'], atoms.get_forces(), atol=1e-9)
        assert labelled.info['level_of_theory'] == AseLabelWorkChain.get_level(node.inputs).hash
    assert len(jobs_of(node)) == 1


def test_a_set_keeps_what_it_holds_beside_the_labels(inputs):
    frames = make_frames(4, 5) + make_frames(4)  # the first again
    for number, atoms in enumerate(frames):
        atoms.info['config_type'] = f'kind {number}'
        atoms.arrays['site'] = np.arange(4) + number
    given = inputs([], structures=StructureSetData(frames))
    del given['clusters']
    outputs, node = run_get_node(AseLabelWorkChain, **given)
    assert node.is_finished_ok, node.exit_message
    labelled = list(outputs['labels'])
    assert [atoms.info['config_type'] for atoms in labelled] == ['kind 0', 'kind 1', 'kind 2']
    assert [atoms.arrays['site'].tolist() for atoms in labelled] == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]
    np.testing.assert_array_equal(labelled[0].arrays['REF_forces'], labelled[2].arrays['REF_forces'])
    (job,) = jobs_of(node)
    assert len(job.inputs.clusters) == 2


def test_what_was_labelled_before_is_taken_as_it_is(inputs):
    first, node = run_get_node(AseLabelWorkChain, **inputs(make_frames(6, 7)))
    again, twin = run_get_node(AseLabelWorkChain, **inputs(make_frames(6, 7)))
    assert again['labels'].uuid == first['labels'].uuid
    assert jobs_of(twin) == []
    more, third = run_get_node(AseLabelWorkChain, **inputs(make_frames(7, 8)))
    (job,) = jobs_of(third)
    assert len(job.inputs.clusters) == 1
    assert more['labels'].n_structures == 2
    assert set(more['labels'].get_set().info['queue_key']) & set(first['labels'].get_set().info['queue_key'])
    for entry in find_entries(campaign=twin.uuid):
        assert entry.campaigns == (node.uuid, twin.uuid)[: len(entry.campaigns)] or third.uuid in entry.campaigns


def test_one_that_fails_fails_alone_with_its_own_reason(inputs):
    frames = make_frames(9) + make_frames(9, symbol='W') + make_frames(10, symbol='Pb')
    outputs, node = run_get_node(AseLabelWorkChain, **inputs(frames))
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 1
    failures = outputs['failures'].get_dict()
    assert sorted(failures) == ['c1', 'c2']
    assert 'of W' in failures['c1']
    assert 'of Pb' in failures['c2']
    failed = {entry.reason for entry in find_entries(QueueStatus.FAILED, campaign=node.uuid)}
    assert failed == set(failures.values())
    # it is not tried again by itself, but when somebody says so
    outputs, node = run_get_node(AseLabelWorkChain, **inputs(frames[1:]))
    assert node.exit_status == 401
    assert jobs_of(node) == []
    assert 'not one of 2 structures could be labelled' in node.exit_message
    retry(entry.key for entry in find_entries(QueueStatus.FAILED, campaign=node.uuid))
    outputs, node = run_get_node(AseLabelWorkChain, **inputs(frames[1:]))
    assert len(jobs_of(node)) == 1


def test_what_was_rejected_is_not_labelled(inputs):
    given = inputs(make_frames(11, 12))
    nodes = [node.store() for node in given['clusters'].values()]
    keys = [entry.key for entry in enqueue(nodes, AseLabelWorkChain.get_level(given)).values()]
    reject(keys[:1], 'looks like a typo')
    outputs, _ = run_get_node(AseLabelWorkChain, **given)
    assert outputs['labels'].n_structures == 1
    assert list(outputs['failures'].get_dict().values()) == ['looks like a typo']


def test_a_job_that_the_machine_ended_is_sent_again(inputs, tmp_path):
    given = inputs(make_frames(13))
    killed_once = f'if mkdir {tmp_path}/killed 2>/dev/null; then kill -9 $$; fi'
    given['job']['metadata']['options'] = {'prepend_text': killed_once}
    _, node = run_get_node(AseLabelWorkChain, **given)
    assert node.is_finished_ok, node.exit_message
    assert [job.exit_status for job in sorted(jobs_of(node), key=lambda job: job.pk)] == [146, 0]
    (entry,) = find_entries(campaign=node.uuid)
    assert entry.attempts == 1


def test_what_a_job_had_no_time_for_is_sent_again(inputs, monkeypatch):
    """As if a walltime had ended it after the first of three."""
    given = inputs(make_frames(14, 15, 16))
    original, calls = AseLabelWorkChain.read_labels.__func__, []

    def cut_short(cls, process, keys):
        labels, reasons = original(cls, process, keys)
        calls.append(len(keys))
        if len(calls) > 1:
            return labels, reasons
        part = StructureSetData(list(labels)[:1])
        part.store()
        return part, {}

    monkeypatch.setattr(AseLabelWorkChain, 'read_labels', classmethod(cut_short))
    outputs, node = run_get_node(AseLabelWorkChain, **given)
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 3
    assert calls == [3, 2]
    assert outputs['failures'].get_dict() == {}


class Waiting:
    """A labeller in hand, step by step, beside a process of somebody else that holds its entries."""

    def __init__(self, inputs):
        self.runner = get_manager().get_runner()
        self.process = instantiate_process(self.runner, AseLabelWorkChain, **inputs)
        self.process.setup()
        self.keys = sorted(self.process.ctx.asked.values())

    def hold(self, keys, exit_status=None):
        """Let a process of somebody else hold entries."""
        other = orm.CalcJobNode().store()
        other.set_process_state(ProcessState.FINISHED if exit_status is not None else ProcessState.RUNNING)
        if exit_status is not None:
            other.set_exit_status(exit_status)
        owner = orm.WorkChainNode().store()
        owner.set_process_state(ProcessState.RUNNING)
        claim(owner.uuid, keys=keys)
        assign(keys, owner.uuid, other.uuid)
        return other


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    for task in asyncio.all_tasks(get_manager().get_runner().loop):
        task.cancel()


def test_what_somebody_else_is_labelling_is_waited_for(inputs):
    labeller = Waiting(inputs(make_frames(20, 21)))
    other = labeller.hold(labeller.keys)
    labeller.process.plan_jobs()
    waited = labeller.process.run_jobs()
    assert [node.pk for node in waited.values()] == [other.pk]
    assert jobs_of(labeller.process.node) == []


@pytest.mark.parametrize(
    ('enough', 'is_enough'),
    [(None, False), ({'share': 0.5}, True), ({'share': 0.9}, False), ({'hours': 1e-9}, True), ({'hours': 5}, False)],
)
def test_enough_labels_end_the_waiting(inputs, enough, is_enough):
    labeller = Waiting(inputs(make_frames(30, 31), **({} if enough is None else {'enough': orm.Dict(enough)})))
    done, late = labeller.keys
    labeller.hold([done], exit_status=0)
    labeller.hold([late])
    assert labeller.process.is_enough() is is_enough
    seconds = labeller.process.seconds_until_enough()
    assert (seconds is not None) == ('hours' in (enough or {}))


class OneByOneLabelWorkChain(AseLabelWorkChain):
    """A job for every structure; that of the larger one is slow."""

    def make_jobs(self, nodes):
        for key, node in nodes.items():
            (job,) = super().make_jobs({key: node})
            if len(node.sites) > 4:
                job.inputs['metadata'] = {'computer': localhost_of(self), 'options': {'prepend_text': 'sleep 20'}}
            yield job


def localhost_of(process):
    return process.inputs.job.metadata.computer


def test_a_late_label_does_not_hold_a_round_and_joins_the_next(inputs):
    small, large = make_frames(50)[0], make_frames(51)[0].repeat((2, 1, 1))
    outputs, node = run_get_node(OneByOneLabelWorkChain, **inputs([small, large], enough=orm.Dict({'share': 0.5})))
    assert node.is_finished_ok, node.exit_message
    assert outputs['labels'].n_structures == 1
    (slow,) = [job for job in jobs_of(node) if not job.is_terminated]
    assert outputs['failures'].get_dict() == {
        'c1': f'the label is not there yet: LabelCalculation<{slow.pk}> computes it'
    }
    (late,) = find_entries(QueueStatus.SUBMITTED, campaign=node.uuid)
    outputs, again = run_get_node(AseLabelWorkChain, **inputs([large]))
    assert again.is_finished_ok, again.exit_message
    assert jobs_of(again) == []
    assert outputs['labels'].get_set().info['queue_key'].tolist() == [late.key]
    assert get_entries([late.key])[late.key].attempts == 1


@pytest.mark.parametrize(
    ('enough', 'message'),
    [
        ({'shares': 1}, "'shares' is not known"),
        ({'share': 0}, 'share = 0 must be above 0'),
        ({'hours': 0}, 'hours = 0'),
    ],
)
def test_enough_that_means_nothing_is_refused(inputs, enough, message):
    with pytest.raises(ValueError, match=message):
        run_get_node(AseLabelWorkChain, **inputs(make_frames(1), enough=orm.Dict(enough)))


def test_there_must_be_something_to_label(inputs):
    with pytest.raises(ValueError, match='give either `clusters` or `structures` to label'):
        run_get_node(AseLabelWorkChain, **inputs([]))


@pytest.mark.parametrize('caching', [False, True])
def test_with_caching_everything_is_taken_from_the_first(inputs, caching):
    """Copies of nodes carry the extras of their source: the queue does not take them for entries."""
    frames = make_frames(*((40, 41) if caching else (42, 43)))
    with enable_caching(identifier='*') if caching else nullcontext():
        given = inputs([], structures=StructureSetData(frames))
        del given['clusters']
        first, one = run_get_node(AseLabelWorkChain, **given)
        given = inputs([], structures=StructureSetData(frames))
        del given['clusters']
        second, two = run_get_node(AseLabelWorkChain, **given)
    assert one.is_finished_ok
    assert two.is_finished_ok, two.exit_message
    assert jobs_of(two) == []
    for left, right in zip(first['labels'], second['labels'], strict=True):
        np.testing.assert_array_equal(left.arrays['REF_forces'], right.arrays['REF_forces'])
    entries = find_entries(campaign=two.uuid)
    assert len(entries) == 2
    assert all(set(entry.campaigns) == {one.uuid, two.uuid} for entry in entries)
    assert all(entry.attempts == 1 for entry in get_entries(entry.key for entry in entries).values())
    calls = two.base.links.get_outgoing(link_type=LinkType.CALL_CALC).all_nodes()
    assert all(call.base.caching.is_created_from_cache for call in calls) is caching
