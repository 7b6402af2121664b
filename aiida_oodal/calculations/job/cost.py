"""What a process cost: the core hours of its jobs, from the best source that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.manage import get_manager
from aiida.orm.nodes.caching import NodeCaching

#: Lines for a submit script: they leave in the scheduler's stdout when the program began and ended.
BEGIN, END = 'echo "oodal-begin $(date +%s)"', 'echo "oodal-end $(date +%s)"'
_TIMES = re.compile(r'oodal-begin (\d+)[\s\S]*oodal-end (\d+)')


def count_core_hours(process: orm.ProcessNode) -> float | None:
    """Return the core hours of a job, or of all jobs that a process called, as :func:`add_core_hours` does."""
    return add_core_hours({process.pk} if isinstance(process, orm.CalcJobNode) else find_jobs(process))


def add_core_hours(jobs: set[int]) -> float | None:
    """Return the core hours of jobs together, as far as they are known; None if they are not known for any.

    For a job the first known of these counts: ``core_seconds`` of its output ``results``, Slurm's accounting, the times
    at which its script began and ended (:data:`BEGIN`, :data:`END`), the time that the scheduler saw it run. Jobs that
    were taken from AiiDA's cache cost nothing.

    :param jobs: their PKs.
    """
    known = _read_core_seconds(jobs)
    seconds = [*known.values(), *_count_core_seconds(jobs - set(known))]
    return sum(seconds) / 3600.0 if seconds else None


def find_jobs(process: orm.ProcessNode) -> set[int]:
    """Return the PKs of all jobs that a process called, itself or by others: one query for each generation."""
    jobs: set[int] = set()
    callers = {process.pk}
    while callers:
        query = orm.QueryBuilder().append(orm.WorkflowNode, filters={'id': {'in': sorted(callers)}}, tag='caller')
        query.append(
            orm.ProcessNode,
            with_incoming='caller',
            edge_filters={'type': {'in': [LinkType.CALL_CALC.value, LinkType.CALL_WORK.value]}},
            project=['id', 'node_type'],
        )
        called = dict(query.all())
        jobs.update(pk for pk, kind in called.items() if kind.startswith('process.calculation.calcjob.'))
        callers = {pk for pk, kind in called.items() if kind.startswith('process.workflow.')}
    return jobs


def _read_core_seconds(jobs: set[int]) -> dict[int, float]:
    """Return by job what its results say, in one query; jobs that do not say it or came from the cache are left out."""
    if not jobs:
        return {}
    own = {'id': {'in': sorted(jobs)}, 'extras': {'!has_key': NodeCaching.CACHED_FROM_KEY}}
    query = orm.QueryBuilder().append(orm.CalcJobNode, filters=own, project='id', tag='job')
    query.append(orm.Dict, with_incoming='job', edge_filters={'label': 'results'}, project='attributes.core_seconds')
    return {pk: float(seconds) for pk, seconds in query.all() if seconds is not None}


def _count_core_seconds(jobs: set[int]) -> Iterator[float]:
    """Go through what jobs cost whose results do not say it, as far as it is known; no node is loaded if it can be."""
    if not jobs:
        return
    times = _read_times(jobs)
    query = orm.QueryBuilder().append(
        orm.CalcJobNode,
        filters={'id': {'in': sorted(jobs)}},
        project=['id', f'extras.{NodeCaching.CACHED_FROM_KEY}', 'attributes.detailed_job_info', 'attributes.resources'],
    )
    for pk, cached_from, detailed, resources in query.all():
        if cached_from is not None:
            yield 0.0
            continue
        accounting = _read_accounting((detailed or {}).get('stdout', ''))
        if accounting is not None:
            yield accounting
            continue
        elapsed = times[pk] if pk in times else _ask_scheduler(pk)
        if elapsed is not None:
            yield float(elapsed) * count_cores(resources or {})


def _ask_scheduler(job: int) -> float | None:
    """Return the seconds that the scheduler saw a job run; None if it saw it for a moment only, or does not say."""
    seen = orm.load_node(job).get_last_job_info()
    return None if seen is None else seen.wallclock_time_seconds or None


def _read_accounting(text: str) -> float | None:
    """Return the core seconds that ``sacct --parsable`` gives for the job itself, its first row."""
    rows = [line.split('|') for line in text.splitlines()[:2]]
    value = dict(zip(*rows, strict=False)).get('CPUTimeRAW', '') if len(rows) == 2 else ''
    return float(value) if value.isdecimal() else None


def _read_times(jobs: set[int]) -> dict[int, float]:
    """Return by job the seconds that it ran, where its script left them; the object store is opened once for all."""
    query = orm.QueryBuilder().append(
        orm.CalcJobNode,
        filters={'id': {'in': sorted(jobs)}},
        project=['id', 'attributes.scheduler_stdout'],
        tag='job',
    )
    query.append(
        orm.FolderData, with_incoming='job', edge_filters={'label': 'retrieved'}, project='repository_metadata'
    )
    keys: dict[str, list[int]] = {}
    for pk, name, files in query.all():
        if (file := (files or {}).get('o', {}).get(name)) is not None:
            keys.setdefault(file['k'], []).append(pk)
    times: dict[int, float] = {}
    repository = get_manager().get_profile_storage().get_repository()
    for key, stream in repository.iter_object_streams(list(keys)) if keys else ():
        match = _TIMES.search(stream.read().decode(errors='replace'))
        if match is not None:
            times |= dict.fromkeys(keys[key], float(match[2]) - float(match[1]))
    return times


def count_cores(resources: Mapping[str, Any]) -> int:
    """Return how many cores a job asks for.

    :param resources: option of the job.
    """
    processes = resources.get('tot_num_mpiprocs') or (
        resources.get('num_machines', 1) * resources.get('num_mpiprocs_per_machine', 1)
    )
    return int(processes) * int(resources.get('num_cores_per_mpiproc', 1) or 1)
