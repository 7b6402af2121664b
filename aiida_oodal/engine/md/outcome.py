"""The words for how an MD run ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ('Outcome', 'Verdict')


class Outcome(StrEnum):
    """How a run ended."""

    COMPLETED = 'COMPLETED'
    UNCERTAIN = 'UNCERTAIN'
    LOST_ATOMS = 'LOST_ATOMS'
    EXPLODED = 'EXPLODED'
    WALLTIME = 'WALLTIME'
    KILLED = 'KILLED'
    FAILED = 'FAILED'


@dataclass(frozen=True)
class Verdict:
    """How a run ended, and which frame to learn from.

    :ivar outcome: the outcome.
    :ivar message: what happened and what to do, in full sentences.
    :ivar last_step: last MD step known to be done.
    :ivar max_gamma: largest finite gamma seen in log and frames, dimensionless; None if gamma is nowhere.
    :ivar trigger_step: first step known to be over ``gamma_break``.
    :ivar select_step: first step known to be over ``gamma_select``.
    :ivar candidate_step: step of the frame to cut clusters from: the halt frame; after lost atoms or an explosion the
        first valid one over ``gamma_select``; None if no such frame is on disk, or none is needed.
    :ivar candidate_file: name of the dump that holds it.
    :ivar last_valid_step: step of the last frame on disk that is physical (all atoms there, all numbers finite, gamma
        at most ``gamma_ceiling``).
    :ivar last_valid_file: name of the dump that holds it.
    :ivar restart_file: restart file to go on from, of a run that was ended from outside (WALLTIME, KILLED); None if it
        left none that is known to be whole.
    :ivar restart_step: MD step that this file holds.
    :ivar worst_atoms: index from 0 in the order of atom ids, and gamma, of at most ten atoms of the candidate frame
        over ``gamma_select``, worst first.
    """

    outcome: Outcome
    message: str
    last_step: int | None = None
    max_gamma: float | None = None
    trigger_step: int | None = None
    select_step: int | None = None
    candidate_step: int | None = None
    candidate_file: str | None = None
    last_valid_step: int | None = None
    last_valid_file: str | None = None
    restart_file: str | None = None
    restart_step: int | None = None
    worst_atoms: tuple[tuple[int, float], ...] = ()
