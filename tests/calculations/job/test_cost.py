"""Core hours are added up over all that a process called, each job by the best source."""

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_oodal.calculations.job.cost import count_core_hours


def call(caller, kind, name, **options):
    node = kind(**options)
    link = LinkType.CALL_WORK if kind is orm.WorkChainNode else LinkType.CALL_CALC
    node.base.links.add_incoming(caller, link, name)
    return node


@pytest.fixture
def campaign(localhost):
    """Return a campaign with jobs in two generations."""
    top = orm.WorkChainNode().store()
    walk = call(top, orm.WorkChainNode, 'explore_1_hot').store()
    for number, caller in enumerate((top, walk, walk)):
        job = call(caller, orm.CalcJobNode, f'job_{number}', computer=localhost).store()
        results = orm.Dict({'core_seconds': 3600.0 * 10**number})
        results.base.links.add_incoming(job, LinkType.CREATE, 'results')
        results.store()
    call(top, orm.CalcFunctionNode, 'merge').store()
    return top


def test_jobs_of_all_generations_count(campaign):
    assert count_core_hours(campaign) == pytest.approx(111.0)


def test_a_job_from_the_cache_costs_nothing(campaign):
    job = next(node for node in campaign.called_descendants if 'results' in node.outputs)
    job.base.extras.set('_aiida_cached_from', 'another')
    assert count_core_hours(campaign) == pytest.approx(111.0 - job.outputs.results['core_seconds'] / 3600.0)


def test_what_the_scheduler_says_counts_where_the_results_say_nothing(campaign, localhost):
    job = call(campaign, orm.CalcJobNode, 'scf', computer=localhost)
    job.store()
    job.set_detailed_job_info({'retval': 0, 'stderr': '', 'stdout': 'JobID|CPUTimeRAW\n7|7200\n'})
    assert count_core_hours(campaign) == pytest.approx(113.0)


@pytest.mark.parametrize(('end', 'hours'), [(1000, 111.0), (8200, 127.0)])
def test_the_times_of_the_script_count_also_where_it_took_no_second(campaign, localhost, end, hours):
    job = call(campaign, orm.CalcJobNode, 'short', computer=localhost)
    job.set_option('resources', {'num_machines': 1, 'num_mpiprocs_per_machine': 8})
    job.set_option('scheduler_stdout', 'scheduler.out')
    job.store()
    retrieved = orm.FolderData()
    retrieved.base.repository.put_object_from_bytes(
        f'oodal-begin 1000\nhello\noodal-end {end}\n'.encode(), 'scheduler.out'
    )
    retrieved.base.links.add_incoming(job, LinkType.CREATE, 'retrieved')
    retrieved.store()
    assert count_core_hours(campaign) == pytest.approx(hours)
    assert count_core_hours(job) == pytest.approx(hours - 111.0)


def test_without_jobs_nothing_is_known(aiida_profile):
    assert count_core_hours(orm.WorkChainNode().store()) is None
