"""Labels that somebody else computes: export, wait through any number of restarts, import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_oodal.calculations.labels import get_outside_level
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.queue import LevelOfTheory, claim, release_expired
from aiida_oodal.queue.outside import WAITING
from aiida_oodal.workchains.protocols import load_protocol

from .base import LabelJob, LabelWorkChain

#: Seconds between two looks at the queue; whoever imports labels lets it look at once.
_LOOK_SECONDS = 60.0


class OutsideLabelWorkChain(LabelWorkChain):
    """Wait, paused, until people have imported the labels; `verdi process play` makes it look at the queue again.

    `aiida-oodal queue import` enters labels and lets it go on. Labels that were imported while no daemon was running
    are found when it starts.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Define inputs and outline."""
        super().define(spec)
        spec.outline(cls.setup, while_(cls.should_wait)(cls.wait_for_people), cls.collect)
        spec.input(
            'level',
            valid_type=orm.Str,
            serializer=orm.to_aiida_type,
            validator=_require_text,
            help='What will compute the labels, in words, for instance "PBE, ORCA 6.0, def2-SVP": the level of theory.',
        )

    @classmethod
    def get_builder_from_protocol(
        cls, *, protocol: str | None = None, overrides: Mapping[str, Any] | None = None, **_: Any
    ) -> ProcessBuilder:
        """Return a builder; there is no code and no computer.

        :param overrides: ``level``: what will compute the labels, in words.
        """
        builder = cls.get_builder()
        builder.level = orm.Str(load_protocol('label_outside', protocol, overrides, closed=True)['level'])
        return builder

    @classmethod
    def get_level(cls, inputs: Mapping[str, Any]) -> LevelOfTheory:
        """Return the level of theory that the user gave in words."""
        return get_outside_level(inputs['level'].value)

    def make_jobs(self, nodes: Mapping[str, orm.StructureData]) -> Iterable[LabelJob]:
        """Make none: people do the work."""
        return ()

    @classmethod
    def read_labels(
        cls, process: orm.ProcessNode, keys: Sequence[str]
    ) -> tuple[StructureSetData | None, dict[str, str]]:
        """Find nothing: labels come by `queue import`."""
        return None, {}

    def init(self) -> None:
        """Look for labels that were imported while no worker had this process."""
        super().init()
        self._look_soon()

    def wait_for_people(self) -> None:
        """Take what waits out of the queue and wait for people, paused."""
        release_expired()
        claim(self.node.uuid, keys=self.ctx.asked.values())
        if self.should_wait():
            self.report(self._describe())
            self.pause(self._describe())

    def on_paused(self, msg: str | None = None) -> None:
        """Begin to look whether labels have come."""
        super().on_paused(msg)
        self._look_soon()

    def _is_waiting(self) -> bool:
        """Return whether this process paused itself; if a user paused it, it stays paused."""
        return self.paused and (self.node.process_status or '').startswith(WAITING)

    def _look_soon(self) -> None:
        if self._is_waiting():
            self.loop.call_soon(self._look)

    def _look(self) -> None:
        """Go on if there is nothing to wait for any more, else say for what, and look again later."""
        if not self._is_waiting():
            return
        if not self.should_wait():
            self.play()
            return
        if self.node.process_status != self._describe():
            self.set_status(self._describe())
        left = self.seconds_until_enough()
        self.loop.call_later(_LOOK_SECONDS if left is None else min(max(left, 1.0), _LOOK_SECONDS), self._look)

    def _describe(self) -> str:
        """Say for what this process waits, and how it goes on."""
        missing = sum(entry.is_open for entry in self._entries())
        return (
            f'{WAITING} for {missing} of {len(self.ctx.asked)} labels from outside: `aiida-oodal queue export`, '
            'compute, `aiida-oodal queue import FILE`'
        )


def _require_text(node: orm.Str, _: Any) -> str | None:
    """Refuse a level without text."""
    try:
        get_outside_level(node.value)
    except OodalError as error:
        return str(error)
    return None
