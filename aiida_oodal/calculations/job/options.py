"""What a job asks of its computer: the defaults of ``aiida-oodal setup computer``, looked at before submission.

A wrong option that only ``sbatch`` finds costs minutes of silent retries; found here it costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import CalcJob

from aiida_oodal.engine.errors import require_known

#: Where a computer keeps ``options`` by process, ``partitions`` as Slurm described them, and ``allow_h200``.
PROPERTY = 'oodal'
H200_REFUSED = (
    'embedding jobs do not go to the h200 partition: their batches are cut to a budget that fits into one A100 with 60 '
    'GB of memory, so that they would only keep an H200 from the jobs that need it. Ask for partition a100, or run '
    '`aiida-oodal setup computer` with --allow-h200.'
)
#: Less memory than this [kB] no Python with numpy can do with: who asks for it was thinking of another unit.
_LEAST_MEMORY = 100 * 1024
_RENEW = ' (if that is out of date, repeat `aiida-oodal setup computer`)'
_GRES = re.compile(r'--gres=(\S+)')
#: Lines for ``sbatch`` that ask for something; others, as ``--exclude``, may name what is to be avoided.
_ASKED = re.compile(r'(?<!\S)(?:--(?:gres|gpus\S*?|partition|constraint|nodelist|qos|reservation)[= ]|-[pCwG] ?)(\S+)')


def get_job_options(computer: orm.Computer, process: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the options of a process on a computer: those it was set up with, and those given, which win.

    :param process: the entry point without its prefix: ``latents``, ``md``, ``label``, ``judge``, ``train_ace``,
        ``train_mace``, ``reference_md``.
    :param given: by name.
    :raises OodalError: if AiiDA or the scheduler of the computer does not know one that is given.
    """
    given = given or {}
    require_known(given, CalcJob.spec().inputs['metadata']['options'], 'options')
    resources = computer.get_scheduler().job_resource_class.get_valid_keys()
    require_known(given.get('resources', {}), resources, f'options: resources on computer {computer.label!r}')
    options: dict[str, Any] = computer.get_property(PROPERTY, {}).get('options', {}).get(process, {})
    return {**options, **given}


def check_job_options(computer: orm.Computer, process: str, options: Mapping[str, Any]) -> str | None:
    """Say what Slurm, or the policy of the computer, would refuse; None if nothing is known against the options."""
    for limit in ('max_wallclock_seconds', 'max_memory_kb'):
        if (value := options.get(limit)) is not None and value <= 0:
            return f'{limit} = {value} must be positive; leave it out for the default of the computer'
    if (memory := options.get('max_memory_kb')) is not None and memory < _LEAST_MEMORY:
        return f'max_memory_kb = {memory} is {memory / 1024:.3g} MB, too little for any job; 60 GB are {60 * 1024**2}'
    facts = computer.get_property(PROPERTY, {})
    name = options.get('queue_name')
    commands = options.get('custom_scheduler_commands') or ''
    gres = _GRES.findall(commands)
    asked = ' '.join([name or '', *_ASKED.findall(commands)])
    if process == 'latents' and not facts.get('allow_h200') and 'h200' in asked.lower():
        return H200_REFUSED
    partitions = facts.get('partitions', {})
    if name is None or not partitions:
        return None
    if name not in partitions:
        return (
            f'computer {computer.label!r} has no partition {name!r}; there are {", ".join(sorted(partitions))}{_RENEW}'
        )
    return _check_limits(name, partitions[name], options, gres)


def _check_limits(name: str, limits: Mapping[str, Any], options: Mapping[str, Any], gres: list[str]) -> str | None:
    memory_mb = (options.get('max_memory_kb') or 0) // 1024
    if memory_mb > limits['memory_mb']:
        return (
            f'max_memory_kb asks for {memory_mb} MB, nodes of partition {name!r} have {limits["memory_mb"]} MB{_RENEW}'
        )
    seconds, most = options.get('max_wallclock_seconds') or 0, limits['walltime_s']
    if most is not None and seconds > most:
        return f'max_wallclock_seconds = {seconds} is over the limit of partition {name!r}, {most} s{_RENEW}'
    for request in ','.join(gres).split(','):
        kind = ':'.join(word for word in request.split(':') if not word.isdigit())
        if kind and not any(f'{known}:'.startswith(f'{kind}:') for known in limits['gres']):
            known = ', '.join(limits['gres']) or 'none'
            return f'--gres={request}: nodes of partition {name!r} have no {kind}, but {known}{_RENEW}'
    return None


def parse_walltime(text: str) -> int | None:
    """Return the seconds of Slurm's ``[days-]hours:minutes:seconds``; None for ``infinite``.

    Source: ``sbatch(1)``, ``--time``; ``90`` and ``90:00`` are minutes.

    :raises ValueError: if it is none of these.
    """
    if text in ('infinite', 'UNLIMITED', 'n/a'):
        return None
    days, dash, clock = text.rpartition('-')
    parts = [int(part) for part in clock.split(':')]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return (int(days or 0) * 24 + hours) * 3600 + minutes * 60 + seconds


#: Columns of :func:`parse_partitions`: partition, time limit, memory [MB], gres.
SINFO_COMMAND = "sinfo --noheader --format='%R|%l|%m|%G'"


def parse_partitions(text: str) -> dict[str, dict[str, Any]]:
    """Return by partition what :data:`SINFO_COMMAND` says: ``walltime_s``, ``memory_mb`` of the largest node, ``gres``.

    A partition has a line for every kind of node.
    """
    partitions: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        name, limit, memory, gres = line.strip().split('|')
        entry = partitions.setdefault(name, {'walltime_s': parse_walltime(limit), 'memory_mb': 0, 'gres': []})
        # `+` says that there are nodes with more.
        entry['memory_mb'] = max(entry['memory_mb'], int(memory.rstrip('+')))
        kinds = [re.sub(r'\(.*?\)', '', item).rsplit(':', 1)[0] for item in _split_gres(gres)]
        entry['gres'] = sorted({*entry['gres'], *kinds})
    return partitions


def _split_gres(text: str) -> list[str]:
    """Split ``gpu:a100:4(S:0,1),gpu:h200:2`` at the commas outside of brackets."""
    return [] if text in ('', '(null)') else re.split(r',(?![^(]*\))', text)
