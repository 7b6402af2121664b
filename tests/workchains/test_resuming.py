"""Steps that are taken again because the worker that took them was killed before it could note it."""

import asyncio
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from aiida import orm
from aiida.common.exceptions import ModificationNotAllowed
from aiida.common.links import LinkType
from aiida.engine import Process, ProcessState
from aiida.engine.runners import Runner
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.manage.caching import enable_caching
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import require
from plumpy.persistence import LoadSaveContext

from aiida_oodal.calculations.make_crystals import make_crystals
from aiida_oodal.calculations.md import MdCalculation
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.engine.label.calculators import label_structure
from aiida_oodal.workchains.broker import read_tasks
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.md_base import MdBaseWorkChain
from aiida_oodal.workchains.resuming import ResumingWorkChain

require('lammps', 'pyace')

ACE_AL = Path(__file__).parents[1] / 'data' / 'ace-al'


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Nobody else writes here, so that nothing has to settle; and nothing is left for the next test to work on."""
    monkeypatch.setattr('aiida_oodal.workchains.resuming._SETTLED', 0.0)
    yield
    for task in asyncio.all_tasks(get_manager().get_runner().loop):
        task.cancel()
    work_on_everything()


@pytest.fixture
def md(engine_code, localhost):
    return {
        'code': engine_code,
        'potential': AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi'),
        'structure': StructureSetData([bulk('Al', cubic=True, a=4.0).repeat(3)]),
        'settings': orm.Dict({'temperature': 300, 'steps': 10, 'sample_every': 10}),
        'metadata': {'computer': localhost},
    }


class Caller:
    """A WorkChain as workers have it in hand: every step may be taken by one that knows only the checkpoint."""

    def __init__(self, process_class, **inputs):
        self.persister = get_manager().get_persister()
        self.process = instantiate_process(get_manager().get_runner(), process_class, **inputs)
        if hasattr(self.process, 'setup'):
            self.process.setup()
        self.persister.save_checkpoint(self.process)
        self.process.close()

    def take(self, step):
        """Take a step from the checkpoint on, as another worker does; return what it put into its context."""
        process = self.persister.load_checkpoint(self.process.pid).unbundle()
        looking = process.look_back()
        with suppress(StopIteration):
            while True:  # not in the loop, where the children would begin
                looking.send(None)
        try:
            with process._process_scope():
                return getattr(process, step)()
        finally:
            process.close()

    def children(self):
        return sorted(self.process.node.called, key=lambda child: child.pk)


def work_on_everything():
    """Let every process of this runner come to its end; return the errors of those that could not."""
    loop = get_manager().get_runner().loop
    tasks = asyncio.all_tasks(loop)
    processes = [task.get_coro().cr_frame.f_locals.get('self') for task in tasks]

    async def work():
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = [error for error in loop.run_until_complete(work()) if isinstance(error, Exception)]
    for process in processes:
        if isinstance(process, Process) and process.future().done() and not process.future().cancelled():
            process.future().exception()  # looked at: else asyncio prints it when the session is over
    return errors


def test_a_run_that_was_stored_but_perhaps_not_handed_on_is_ended_and_replaced(md):
    caller = Caller(MdBaseWorkChain, md=md)
    caller.take('run_process')
    (first,) = caller.children()
    # as far as `Runner.submit` comes before the broker hears of it
    assert first.process_state is ProcessState.CREATED

    caller.take('run_process')
    first, second = caller.children()
    assert (first.process_state, first.is_sealed) == (ProcessState.KILLED, True)
    assert first.process_status == 'ended by its caller: its worker was killed, and no other had begun it'
    assert second.process_state is ProcessState.CREATED

    # The broker had heard of both: a worker that has the first in hand cannot begin it, and nothing of it reaches disk.
    errors = work_on_everything()
    assert [type(error) for error in errors] == [ModificationNotAllowed]
    assert first.process_state is ProcessState.KILLED
    assert first.get_remote_workdir() is None
    assert second.is_finished_ok, second.exit_message

    # One that has finished is taken as it is, however often the step is taken.
    caller.take('run_process')
    assert caller.children() == [first, second]


def test_a_child_of_which_the_broker_never_heard_gets_its_task_from_who_waits_for_it(md, started_daemon_client):
    """As it was left where the broker was stopped while a worker submitted, and the worker noted it none the less."""
    caller = Caller(MdBaseWorkChain, md=md)
    caller.take('run_process')
    (child,) = caller.children()
    assert child.pk not in read_tasks()
    for task in asyncio.all_tasks(get_manager().get_runner().loop):  # the worker that would have begun it is gone
        task.get_coro().cr_frame.f_locals['self'].close()
        task.cancel()
    runner = get_manager().create_runner(broker_submit=True, loop=get_manager().get_runner().loop)
    process = caller.persister.load_checkpoint(caller.process.pid).unbundle(LoadSaveContext(runner=runner))
    hand_on = process._hand_on([child])
    with suppress(StopIteration):
        while True:  # not in the loop, where the child would begin
            hand_on.send(None)
    process.close()
    end = time.monotonic() + 120
    while not child.is_terminated:
        assert time.monotonic() < end, Path(started_daemon_client.daemon_log_file).read_text()
        time.sleep(0.2)
    assert child.is_finished_ok, child.exit_message


def test_a_run_that_another_worker_has_begun_is_waited_for(md):
    caller = Caller(MdBaseWorkChain, md=md)
    caller.take('run_process')
    (job,) = caller.children()
    job.set_process_state(ProcessState.WAITING)
    caller.take('run_process')
    assert caller.children() == [job]
    assert job.process_state is ProcessState.WAITING


@pytest.mark.parametrize('state', [None, ProcessState.CREATED])
def test_what_no_worker_can_begin_is_ended_and_replaced(md, localhost, state):
    """Killed before there was a checkpoint."""
    caller = Caller(MdBaseWorkChain, md=md)
    stored = orm.CalcJobNode(computer=localhost)
    stored.base.links.add_incoming(caller.process.node, LinkType.CALL_CALC, 'iteration_01')
    stored.set_process_state(state)
    stored.store()
    caller.take('run_process')
    left, job = caller.children()
    assert left == stored
    assert (left.process_state, left.is_sealed) == (ProcessState.KILLED, True)
    assert job.process_state is ProcessState.CREATED


def test_siblings_are_not_taken_for_each_other(engine_code, localhost, md):
    """AiiDA's filter of link labels takes an underscore for any letter."""
    walker = {'structure': md['structure'], 'settings': md['settings']}
    job = {'code': engine_code, 'metadata': {'computer': localhost}}
    labelled = StructureSetData([label_structure(bulk('Al', cubic=True).repeat(3), EMT())])
    caller = Caller(
        CampaignWorkChain,
        initial={'potential': md['potential'], 'labels': {'known': labelled}},
        walkers={'w_1': walker, 'w01': walker},
        **dict.fromkeys(('md', 'carve', 'select'), job),
        label={'inputs': {'job': job, 'calculator': orm.Dict({'calculator': 'emt'})}},
        train={'inputs': {'job': job}},
    )
    caller.take('run_explore')
    first, second = caller.children()
    assert first.process_state is second.process_state is ProcessState.CREATED


@pytest.mark.parametrize('written', [{}, {'sealed': True}])
def test_what_two_workers_write_at_once_about_a_child_is_settled(md, monkeypatch, written):
    """One ends it, the other begins it, between its own looks at it; whoever is not sealed out goes on."""
    caller = Caller(MdBaseWorkChain, md=md)
    caller.take('run_process')
    (child,) = caller.children()

    async def begin(seconds):
        others = {'process_state': 'running', 'process_status': None, 'sealed': False}
        child.backend_entity.set_attribute_many(others | ({'process_status': child.process_status} if written else {}))
        child.backend_entity.set_attribute_many(written)

    monkeypatch.setattr('aiida_oodal.workchains.resuming.asyncio.sleep', begin)
    caller.take('run_process')
    if written:
        _, another = caller.children()
        assert (child.process_state, child.is_sealed) == (ProcessState.KILLED, True)
        assert another.process_state is ProcessState.CREATED
    else:
        assert caller.children() == [child]
        assert (child.process_state, child.is_sealed) == (ProcessState.RUNNING, False)


@pytest.mark.parametrize('caching', [False, True])
def test_a_child_that_finished_and_was_not_closed_is_closed(md, caching):
    caller = Caller(MdBaseWorkChain, md=md)
    caller.take('run_process')
    assert work_on_everything() == []
    (child,) = caller.children()
    child.backend_entity.set_attribute('sealed', False)
    with enable_caching(identifier='*') if caching else nullcontext():
        caller.take('run_process')
    assert caller.children() == [child]
    assert child.is_sealed
    assert child.is_finished_ok


class Selecting(ResumingWorkChain):
    """One step that runs a calcfunction."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input('settings', valid_type=orm.Dict)
        spec.outline(cls.make)

    def make(self):
        self.run_once('make', make_crystals, self.inputs.settings)


def make_maker():
    return Caller(Selecting, settings=orm.Dict({'count': 2}))


@pytest.fixture
def maker():
    return make_maker()


def test_a_step_that_was_taken_is_not_taken_again(maker):
    maker.take('make')
    (first,) = maker.children()
    assert first.is_finished_ok, first.exit_message
    assert maker.take('make') is None
    assert maker.children() == [first]


def test_what_is_taken_up_of_a_function_is_what_it_gave(maker):
    with maker.process._process_scope():
        given, node = maker.process.run_once('make', make_crystals, maker.process.inputs.settings)
        again, same = maker.process.run_once('make', make_crystals, maker.process.inputs.settings)
    assert same == node
    assert again == given
    assert given.n_structures == 2


def test_a_function_whose_worker_was_killed_is_ended_and_run_again(maker):
    begun = orm.CalcFunctionNode()
    begun.base.links.add_incoming(maker.process.node, LinkType.CALL_CALC, 'make')
    begun.set_process_state(ProcessState.RUNNING)
    begun.store()
    maker.take('make')
    left, done = maker.children()
    assert left == begun
    assert (left.process_state, left.is_sealed) == (ProcessState.KILLED, True)
    assert done.is_finished_ok, done.exit_message


class Killed(BaseException):
    """What happened to the worker."""


def test_a_copy_from_the_cache_that_was_not_completed_is_made_again(maker, monkeypatch):
    other = make_maker()
    other.take('make')
    (whole,) = other.children()

    def killed(*arguments):
        raise Killed

    with enable_caching(identifier=whole.process_type):
        with monkeypatch.context() as patch:
            patch.setattr(orm.Node, '_add_outputs_from_cache', killed)
            with pytest.raises(Killed):
                maker.take('make')
        (half,) = maker.children()
        assert half.is_finished_ok
        maker.take('make')
    half, copy = maker.children()
    assert half.is_killed
    assert copy.base.caching.is_created_from_cache
    assert 'result' in copy.outputs


@pytest.mark.parametrize('process_class', [MdBaseWorkChain, MdCalculation])
def test_what_goes_on_after_a_pause_does_not_return_to_it_in_another_worker(process_class, md):
    persister = get_manager().get_persister()
    runner = Runner(persister=persister, loop=get_manager().get_runner().loop)
    inputs = {'md': md} if process_class is MdBaseWorkChain else md
    process = instantiate_process(runner, process_class, **inputs)
    process.pause()
    assert persister.load_checkpoint(process.pid)['_paused'] is not None
    process.play()
    assert not process.node.paused
    assert persister.load_checkpoint(process.pid)['_paused'] is None
    process.close()
    process.node.set_process_state(ProcessState.KILLED)
    process.node.seal()
