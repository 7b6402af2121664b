"""A WorkChain that goes on before all its children have ended."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import ProcessState
from aiida.engine.processes.workchains.awaitable import Awaitable

from aiida_oodal.workchains.resuming import ResumingWorkChain


class PatientWorkChain(ResumingWorkChain):
    """Wait for processes as every WorkChain does, but only until :meth:`is_enough`.

    Processes that have not ended by then go on; the context holds their nodes as they are. They may be waited for again
    in a later step, by this WorkChain or another: any process can be put into the context, a child or not.
    """

    def is_enough(self) -> bool:
        """Return whether to go on although some of the processes that are waited for have not ended."""
        return False

    def should_wake(self) -> bool:
        """Return whether to take the next step when a process has ended and others have not."""
        return self.is_enough()

    def seconds_until_enough(self) -> float | None:
        """Return after how many seconds to ask :meth:`is_enough` even if no process has ended; None for never."""
        return None

    def _action_awaitables(self) -> None:
        super()._action_awaitables()
        seconds = self.seconds_until_enough()
        if seconds is not None:
            self.loop.call_later(max(seconds, 0.0), lambda: self.call_soon(self._go_on_if_enough))

    def _on_awaitable_finished(self, awaitable: Awaitable) -> None:
        # One that this WorkChain no longer waits for: it went on without it, or waits for it anew.
        if any(waited is awaitable for waited in self._awaitables):
            super()._on_awaitable_finished(awaitable)
            self._go_on_if_enough()

    def _go_on_if_enough(self, *_: Any) -> None:
        if self.state == ProcessState.WAITING and self._awaitables and self.should_wake():
            for awaitable in list(self._awaitables):
                self._resolve_awaitable(awaitable, orm.load_node(awaitable.pk))
            self.resume()
