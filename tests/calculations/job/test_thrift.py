"""What is written down of a process while it runs: inputs as AiiDA does, states of jobs when they change."""

from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.orm import CalcJobNode
from aiida.orm.utils import serialize
from aiida.schedulers import JobInfo, JobState
from ase.build import bulk

from aiida_oodal.calculations.job import submission
from aiida_oodal.calculations.job.submission import _WatchedJob
from aiida_oodal.calculations.label import LabelCalculation
from aiida_oodal.data import StructureSetData


def test_a_process_is_taken_up_with_the_inputs_that_it_had(engine_code, localhost):
    process = instantiate_process(
        get_manager().get_runner(),
        LabelCalculation,
        code=engine_code,
        structures=StructureSetData([bulk('Al', cubic=True)]),
        calculator={'calculator': 'emt'},
        metadata={'computer': localhost},
    )
    persister = get_manager().get_persister()
    for _ in range(2):  # the second one from texts that are kept
        checkpoint = persister.save_checkpoint(process)
        assert checkpoint['INPUTS_RAW'] == serialize.serialize(process.raw_inputs)
        assert checkpoint['INPUTS_PARSED'] == serialize.serialize(process.inputs)
    process.close()
    again = persister.load_checkpoint(process.pid).unbundle()
    assert again.inputs.calculator.get_dict() == {'calculator': 'emt'}
    assert again.inputs.structures.uuid == process.inputs.structures.uuid
    assert again.raw_inputs.metadata['computer'].pk == localhost.pk
    again.close()
    persister.delete_checkpoint(process.pid)


def test_what_a_job_does_is_written_when_it_changes_and_now_and_then(localhost, monkeypatch):
    node = CalcJobNode(computer=localhost, process_type='aiida.calculations:oodal.label')
    node.store()
    watched = _WatchedJob(node)

    def look(state, seconds):
        info = JobInfo()
        info.job_id, info.job_state, info.wallclock_time_seconds = '7', state, seconds
        watched.set_last_job_info(info)
        watched.set_scheduler_state(state)
        return node.get_scheduler_state(), node.get_last_job_info().wallclock_time_seconds

    assert look(JobState.QUEUED, 0) == (JobState.QUEUED, 0)
    assert look(JobState.RUNNING, 1) == (JobState.RUNNING, 1)
    assert look(JobState.RUNNING, 2) == (JobState.RUNNING, 1)
    # The last that was seen before the job was gone is not lost.
    watched.set_scheduler_state(JobState.DONE)
    assert node.get_scheduler_state() is JobState.DONE
    assert node.get_last_job_info().wallclock_time_seconds == 2

    monkeypatch.setattr(submission, '_LONGEST_SILENCE', 0.0)
    assert look(JobState.RUNNING, 3) == (JobState.RUNNING, 3)
    assert look(JobState.RUNNING, 4) == (JobState.RUNNING, 4)
    assert watched.get_authinfo().pk == node.get_authinfo().pk
    assert watched.pk == node.pk
