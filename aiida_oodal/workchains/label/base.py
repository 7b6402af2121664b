"""The base class of labellers: the ports, and the way of structures through the DFT queue."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiida import orm
from aiida.common import NotExistent
from aiida.engine import ExitCode, Process, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.job.cost import count_core_hours
from aiida_oodal.calculations.job.engine_job import was_lost
from aiida_oodal.calculations.labels import copy_structures, split_structures, take_labels
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import QUEUE_KEY
from aiida_oodal.queue import (
    Entry,
    LevelOfTheory,
    OtherLevelError,
    QueueStatus,
    assign,
    claim,
    complete,
    enqueue,
    fail,
    get_entries,
    release,
    release_expired,
)

from .patience import PatientWorkChain
from .ports import define_label_ports

__all__ = ('LabelJob', 'LabelWorkChain', 'explain_failure', 'settle')


@dataclass(frozen=True)
class LabelJob:
    """A process that labels some entries of the queue.

    :param process: its class.
    :param inputs: its inputs.
    :param keys: of the entries that it labels.
    """

    process: type[Process]
    inputs: Mapping[str, Any]
    keys: Sequence[str]


class LabelWorkChain(PatientWorkChain):
    """Put structures into the DFT queue, label those that wait there, and return all labels that were asked for.

    A labeller is a subclass with three methods: :meth:`get_level` says what decides the values of its labels,
    :meth:`make_jobs` how entries become processes, :meth:`read_labels` what such a process found. If another process is
    labelling the same structure at the same level of theory, its label is waited for; if there is a label already, it
    is used.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define the ports of the contract."""
        super().define(spec)
        define_label_ports(spec)
        spec.outline(cls.setup, while_(cls.should_wait)(cls.plan_jobs, cls.run_jobs, cls.inspect_jobs), cls.collect)

    @classmethod
    @abstractmethod
    def get_level(cls, inputs: Mapping[str, Any]) -> LevelOfTheory:
        """Return the level of theory of the labels.

        :param inputs: of the labeller; the structures need not be there.
        """

    @abstractmethod
    def make_jobs(self, nodes: Mapping[str, orm.StructureData]) -> Iterable[LabelJob]:
        """Return processes that label all given structures, each in one of them; the same structures give the same.

        :param nodes: by key of the entry, which may serve as link label.
        """

    @classmethod
    @abstractmethod
    def read_labels(
        cls, process: orm.ProcessNode, keys: Sequence[str]
    ) -> tuple[StructureSetData | None, dict[str, str]]:
        """Return the labels that a process made, and for each structure that failed the reason, by its key.

        Structures of the set have ``info['queue_key']``. Keys that are in neither were not tried, and wait again.
        """

    @classmethod
    def read_costs(cls, process: orm.ProcessNode, keys: Sequence[str]) -> dict[str, float]:
        """Return by key the core hours that a process spent; empty if they are not known."""
        hours = count_core_hours(process)
        return {} if hours is None else dict.fromkeys(keys, hours / len(keys))

    @classmethod
    def fill_elements(cls, overrides: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
        """Return overrides of the protocol that suit structures of these elements; what the user says wins."""
        return dict(overrides)

    @classmethod
    def check_symbols(cls, inputs: Mapping[str, Any], symbols: set[str]) -> str | None:
        """Say which elements cannot be labelled, or return None.

        :param inputs: of the labeller; the structures need not be there.
        :param symbols: elements that the structures will have.
        """
        return None

    def count_at_once(self) -> int | None:
        """Return how many entries may be labelled at the same time; None for all."""
        return None

    def setup(self) -> None:
        """Put all structures into the queue."""
        nodes = dict(self.inputs.get('clusters', {}))
        if 'structures' in self.inputs:
            nodes = dict(self.result_of('split_structures', split_structures, self.inputs.structures))
        campaign = self.inputs.campaign.value if 'campaign' in self.inputs else self.node.uuid
        level = self.get_level(self.inputs)
        try:
            entries = enqueue(nodes.values(), level, campaign=campaign)
        except OtherLevelError as error:
            taken = {name: node for name, node in nodes.items() if node.uuid in error.nodes}
            nodes |= self.result_of('copy_structures', copy_structures, **taken)
            entries = enqueue(nodes.values(), level, campaign=campaign)
        self.ctx.started = datetime.now(UTC).isoformat()
        #: Key of the queue entry by the key of the structure here.
        self.ctx.asked = {name: entries[node.uuid].key for name, node in nodes.items()}
        #: Entries that had failed before.
        self.ctx.failed = sum(entry.status is QueueStatus.FAILED for entry in entries.values())
        count = sum(not entry.is_open for entry in entries.values())
        self.report(f'{len(nodes)} structures to label, {count} of them were labelled or refused before')

    def should_wait(self) -> bool:
        """Return whether to wait for labels that are still missing."""
        entries = self._entries()
        expected = [entry for entry in entries if entry.is_open]
        if self._is_budget_spent(entries):
            expected = [entry for entry in expected if entry.status is QueueStatus.SUBMITTED]
        return bool(expected) and not self.is_enough()

    def is_enough(self) -> bool:
        """Tell whether to go on without the labels that are missing."""
        if 'enough' not in self.inputs:
            return False
        enough, entries = self.inputs.enough.get_dict(), self._entries()
        labelled = sum(entry.status is QueueStatus.LABELLED for entry in entries)
        ended = sum(not entry.is_open for entry in entries) + self._count_ended(entries)
        if ended >= enough.get('share', 1.0) * len(entries):
            return True
        return 'hours' in enough and self._seconds_left(enough['hours']) <= 0 and (labelled > 0 or ended > 0)

    def should_wake(self) -> bool:
        """Tell whether to go on: there are enough labels, or something ended and others wait to take its place."""
        entries = self._entries()
        waiting = any(entry.status is QueueStatus.PENDING_DFT for entry in entries)
        return self.is_enough() or (waiting and self.count_at_once() is not None and self._count_ended(entries) > 0)

    def seconds_until_enough(self) -> float | None:
        """Return when the time that labels are waited for is over."""
        enough = self.inputs.enough.get_dict() if 'enough' in self.inputs else {}
        return self._seconds_left(enough['hours']) if 'hours' in enough else None

    def plan_jobs(self) -> None:
        """Claim what waits in the queue, and decide which structures go into one job.

        The plan is in the checkpoint before anything is submitted: a worker that is killed while it submits leaves
        nothing behind that the next one would submit again in another grouping.
        """
        release_expired()
        at_once = 0 if self._is_budget_spent(self._entries()) else self.count_at_once()
        held = claim(self.node.uuid, keys=self.ctx.asked.values(), n=at_once)
        nodes = {entry.key: entry.load_node() for entry in held if entry.process is None}
        jobs = self.make_jobs(dict(sorted(nodes.items()))) if nodes else ()
        self.ctx.plan = [sorted(job.keys) for job in jobs]

    def run_jobs(self) -> ToContext:
        """Submit what was planned, and wait for it and for what others have claimed."""
        entries = {entry.key: entry for entry in self._entries()}
        for keys in self.ctx.plan:
            for job in self.make_jobs({key: entries[key].load_node() for key in keys}):
                call = _name_call([entries[key] for key in job.keys])
                try:
                    child = self.submit_once(call, job.process, dict(job.inputs))
                except OodalError as error:  # these structures fail, the others are labelled
                    fail(dict.fromkeys(job.keys, str(error)))
                    continue
                assign(job.keys, self.node.uuid, child.uuid)
        waited = {}
        for entry in self._entries():
            if entry.status is QueueStatus.SUBMITTED:
                process = orm.load_node(entry.process or entry.owner)
                waited[f'process_{process.pk}'] = process
        return ToContext(**waited)

    def inspect_jobs(self) -> None:
        """Enter labels and failures of the processes that ended into the queue."""
        for process, entries in self._assigned():
            keys = [entry.key for entry in entries]
            if was_lost(process) and process.caller == self.node and self.may_send_again(_name_call(entries)):
                release(keys, self.node.uuid)
            elif process.is_terminated:
                settle(type(self), process, keys, self.inputs.max_attempts.value)

    def collect(self) -> ExitCode | None:
        """Attach all labels, including those that existed before, and the reasons for those that are missing."""
        entries = {entry.key: entry for entry in self._entries()}
        failures, sets = {}, {}
        for name, key in self.ctx.asked.items():
            entry = entries[key]
            if entry.status is QueueStatus.LABELLED:
                sets[key] = orm.load_node(entry.label)
            else:
                failures[name] = entry.reason or f'the label is not there yet: {_say_who(entry)}'
        self.out('failures', self._note(failures))
        if not sets:
            first = next(iter(failures.values()), 'there was nothing to label')
            return self.exit_codes.ERROR_NOTHING_LABELLED.format(total=len(self.ctx.asked), message=first)
        self.out('labels', self._join(sets))
        for name, reason in failures.items():
            self.report(f'{name} has no label: {reason}')
        if self._is_budget_spent(entries.values()):
            failed = [entry for entry in entries.values() if entry.status is QueueStatus.FAILED]
            waiting = sum(entry.status is QueueStatus.PENDING_DFT for entry in entries.values())
            if waiting:
                return self.exit_codes.ERROR_TOO_MANY_FAILURES.format(
                    failed=len(failed),
                    budget=self.inputs.max_failures.value,
                    waiting=waiting,
                    message=failed[0].reason,
                )
        return None

    def _join(self, sets: Mapping[str, StructureSetData]) -> StructureSetData:
        """Return one set with the labels that were asked for and no others."""
        keys = [key if key in sets else None for key in self.ctx.asked.values()]
        nodes = {node.uuid: node for node in sets.values()}
        if 'structures' in self.inputs:
            inputs = {'structures': self.inputs.structures, 'keys': orm.List(keys)}
        else:
            wanted = list(dict.fromkeys(key for key in keys if key is not None))
            if len(nodes) == 1:
                (only,) = nodes.values()
                if only.n_structures == len(wanted):
                    return only
            inputs = {'keys': orm.List(wanted)}
        parts = {f'set_{number}': node for number, (_, node) in enumerate(sorted(nodes.items()))}
        labels: StructureSetData = self.result_of('take_labels', take_labels, **inputs, **parts)
        return labels

    def _note(self, failures: Mapping[str, str]) -> orm.Dict:
        return orm.Dict(dict(failures)).store()

    def _entries(self) -> list[Entry]:
        """Return the entries that were asked for, as they are now."""
        return list(get_entries(self.ctx.asked.values()).values())

    def _is_budget_spent(self, entries: Iterable[Entry]) -> bool:
        """Tell whether so many structures have failed that no more are begun."""
        failed = sum(entry.status is QueueStatus.FAILED for entry in entries) - self.ctx.failed
        return 'max_failures' in self.inputs and failed >= self.inputs.max_failures.value

    def _assigned(self) -> Iterator[tuple[orm.ProcessNode, list[Entry]]]:
        """Go through the processes that label what was asked for, with their entries."""
        entries: dict[str, list[Entry]] = {}
        for entry in self._entries():
            if entry.status is QueueStatus.SUBMITTED and entry.process is not None:
                entries.setdefault(entry.process, []).append(entry)
        for uuid, of_process in entries.items():
            yield orm.load_node(uuid), of_process

    def _count_ended(self, entries: Iterable[Entry]) -> int:
        """Count the entries whose process has ended, but whose label or failure is not in the queue yet."""
        ended: dict[str, bool] = {}
        count = 0
        for entry in entries:
            if entry.status is QueueStatus.SUBMITTED and entry.process is not None:
                if entry.process not in ended:
                    ended[entry.process] = orm.load_node(entry.process).is_terminated
                count += ended[entry.process]
        return count

    def _seconds_left(self, hours: float) -> float:
        passed = datetime.now(UTC) - datetime.fromisoformat(self.ctx.started)
        return hours * 3600.0 - passed.total_seconds()


def settle(
    labeller: type[LabelWorkChain], process: orm.ProcessNode, keys: Sequence[str], max_attempts: int = 1
) -> None:
    """Enter the labels and failures of a process into the queue; doing it twice changes nothing.

    :param max_attempts: a structure that failed and was tried less often waits again.
    """
    hours = labeller.read_costs(process, keys)
    labels, reasons = labeller.read_labels(process, keys)
    labelled = set() if labels is None else set(labels.get_set().info[QUEUE_KEY].tolist())
    if not labelled and not reasons:
        reasons = dict.fromkeys(keys, explain_failure(process))
    if labels is not None:
        complete({key: labels.uuid for key in keys if key in labelled}, hours=hours)
    fail({key: reasons[key] for key in keys if key in reasons}, hours=hours, max_attempts=max_attempts)
    for entry in get_entries(set(keys) - labelled - set(reasons)).values():
        if entry.process == process.uuid and entry.owner is not None:
            release([entry.key], entry.owner, hours=hours)


def explain_failure(process: orm.ProcessNode) -> str:
    """Return a sentence on how a process ended that left no label."""
    message = process.exit_message or process.process_state.value
    return f'{process.process_label}<{process.pk}>: {message}'


def _name_call(entries: Iterable[Entry]) -> str:
    """Return the label of the call that labels these entries: the same for the same attempt at the same entries."""
    text = ','.join(sorted(f'{entry.key}:{entry.attempts}' for entry in entries))
    return f'job_{hashlib.sha256(text.encode()).hexdigest()[:12]}'


def _say_who(entry: Entry) -> str:
    if entry.owner is None:
        return 'nobody computes it'
    try:
        process = orm.load_node(entry.process or entry.owner)
    except NotExistent:
        return 'nobody computes it'
    return f'{process.process_label}<{process.pk}> computes it'
