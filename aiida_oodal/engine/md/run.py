"""Read the files of one MD run: verdict, thermo series, and the frames that become outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiida_oodal.engine.thresholds import Thresholds

from .evidence import Evidence
from .frame import Frame
from .verdict import Outcome, Verdict, judge

__all__ = ('Run', 'read_run')


@dataclass(frozen=True)
class Run:
    """What one run left.

    :ivar verdict: how it ended.
    :ivar series: thermo columns of the log, each shape (n_samples,), in the units of the script.
    :ivar snapshots: frames over ``gamma_select`` that are physical, none of them after the one to learn from, in the
        order of MD; of a run without gamma, all frames.
    :ivar final: the last frame that is physical, if there is one.
    """

    verdict: Verdict
    series: dict[str, np.ndarray]
    snapshots: tuple[Frame, ...]
    final: Frame | None


def read_run(
    folder: str | Path,
    *,
    target_step: int,
    thresholds: Thresholds,
    restart_every: int | None = None,
    watched: bool = True,
    has_frames: bool = True,
) -> Run:
    """Read what a run left, each file once.

    :param folder: folder with ``log.lammps`` and, as far as the run came, ``snapshots.dump`` and ``final.dump``.
    :param target_step: MD step that the run had to reach.
    :param restart_every: steps between periodic restart files, if the run wrote any.
    :param watched: whether the run computed gamma; a pair style of the user does not.
    :param has_frames: whether the dumps are in the folder too, or were left where the run was.
    :raises OodalError: if the log is missing, or is no LAMMPS log in a style that can be read. A damaged dump is not an
        error: the message of the verdict reports it.
    """
    evidence = Evidence(Path(folder), thresholds, has_frames=has_frames)
    verdict = judge(evidence, target_step=target_step, restart_every=restart_every, watched=watched)
    lost = verdict.outcome in (Outcome.LOST_ATOMS, Outcome.EXPLODED)
    end = verdict.last_valid_step if lost else verdict.last_step
    end = end if verdict.candidate_step is None else verdict.candidate_step
    kept = {
        sighting.frame.step: sighting.frame
        for sighting in evidence.usable
        if end is not None and sighting.frame.step <= end and evidence.is_valid(sighting)
    }
    last = evidence.last_valid()
    return Run(
        verdict=verdict,
        series=evidence.series,
        snapshots=tuple(kept[step] for step in sorted(kept)),
        final=None if last is None else last.frame,
    )
