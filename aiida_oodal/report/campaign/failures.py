"""What went wrong in a campaign: entries of the queue without a label, and processes that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aiida import orm

from aiida_oodal.queue import QueueStatus
from aiida_oodal.queue.entry import Entry
from aiida_oodal.queue.listing import Selection, count_selected, select_entries

from .ledger import Ran
from .left import read_calls

#: Entries of the queue that are named, and calls of each kind of failure.
_NAMED, _CALLS = 40, 5


@dataclass
class Failure:
    """Processes of one kind that failed in one way.

    :param message: of the last one.
    :param calls: of the campaign that they belong to.
    :param last: PK of the last one.
    :param recovered: whether all of these calls succeeded in the end, because they were repeated or gone on with.
    """

    process: str
    exit_status: int | None
    message: str
    last: int
    count: int = 0
    calls: list[str] = field(default_factory=list)
    recovered: bool = True

    @property
    def named_calls(self) -> str:
        """The first of the calls, and how many more there are."""
        more = f' and {len(self.calls) - _CALLS} more' if len(self.calls) > _CALLS else ''
        return f'{", ".join(self.calls[:_CALLS])}{more}'


@dataclass(frozen=True)
class Failures:
    """All that went wrong.

    :param queue: entries that the campaign asked for, by status.
    :param entries: those that are FAILED or REJECTED, at most 40.
    :param processes: by kind of process and exit code; of a process that failed because one below it did, only the
        latter.
    """

    queue: dict[str, int]
    entries: list[Entry]
    processes: list[Failure]


def read_failures(campaign: orm.WorkChainNode, processes: Sequence[Ran]) -> Failures:
    """Find out what went wrong in a campaign.

    :param processes: of :func:`.list_processes`.
    """
    given_up = (QueueStatus.FAILED, QueueStatus.REJECTED)
    counts = count_selected(Selection(campaign=campaign.uuid))
    return Failures(
        queue={status.value: count for status, count in counts.items() if count},
        entries=select_entries(Selection(campaign=campaign.uuid, statuses=given_up), limit=_NAMED),
        processes=_group(campaign, processes),
    )


def _group(campaign: orm.WorkChainNode, processes: Sequence[Ran]) -> list[Failure]:
    failed = [ran for ran in processes if ran.process.is_terminated and not ran.process.is_finished_ok]
    causes = {ran.process.caller.pk for ran in failed if ran.process.caller is not None}
    succeeded = {call for call, process in read_calls(campaign).items() if process.is_finished_ok}
    found: dict[tuple[str, int | None], Failure] = {}
    for ran in failed:
        process = ran.process
        if process.pk in causes:
            continue
        name = process.process_label or type(process).__name__
        message = process.exit_message or str(process.process_state.value)
        failure = found.setdefault((name, process.exit_status), Failure(name, process.exit_status, message, process.pk))
        failure.message, failure.last = message, process.pk
        failure.count += 1
        failure.recovered &= ran.call in succeeded
        if str(ran.call) not in failure.calls:
            failure.calls.append(str(ran.call))
    return list(found.values())
