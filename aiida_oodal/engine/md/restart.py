"""Which restart file of a run is whole, as far as its log proves."""

from __future__ import annotations

from dataclasses import dataclass

from aiida_oodal.engine.md.log import LammpsLog
from aiida_oodal.engine.md.script import FINAL_RESTART, PERIODIC_RESTARTS

__all__ = ('RestartPoint', 'find_restart')


@dataclass(frozen=True)
class RestartPoint:
    """A restart file in the folder of a run, and the MD step it holds."""

    file: str
    step: int


def find_restart(log: LammpsLog, restart_every: int | None, *, wrote_final: bool) -> RestartPoint | None:
    """Return the newest restart file that is known to be whole; None if the run wrote none.

    LAMMPS writes the periodic files in turn, the first of them first in every run, within the output of their step
    (``Output::write``). So a line of thermo output proves the restart files of the steps before it; a later one, cut by
    whatever killed the run, went to the other name.

    :param log: log of the run.
    :param restart_every: steps between periodic restart files.
    :param wrote_final: whether something is on disk that the script writes after ``final.restart``.
    """
    if not log.tables or not len(log.tables[0].steps):
        return None
    if wrote_final and log.last_step is not None:
        return RestartPoint(FINAL_RESTART, log.last_step)
    if restart_every is None:
        return None
    first, last = int(log.tables[0].steps[0]), int(log.tables[0].steps[-1])
    step = (last - 1) // restart_every * restart_every
    if step <= first:
        return None
    count = step // restart_every - first // restart_every
    return RestartPoint(PERIODIC_RESTARTS[(count - 1) % len(PERIODIC_RESTARTS)], step)
