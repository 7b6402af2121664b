"""What the log and the dumps of one MD run say about gamma and about the frames worth having."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.dump import Frame, iterate_frames, last_complete_frame
from aiida_oodal.engine.md.log import Halt, LammpsLog

__all__ = ('GAMMA_SERIES', 'Evidence', 'Sighting', 'Thresholds')

SNAPSHOTS_FILE = 'snapshots.dump'
FINAL_FILE = 'final.dump'

GAMMA_SERIES = ('v_max_gamma', 'c_gamma_max', 'c_mg', 'v_mg', 'max_gamma')
"""Names under which a log may hold the largest gamma of all atoms; the first one found is taken."""


@dataclass(frozen=True)
class Thresholds:
    """Gamma above which a frame is worth keeping, the run halts, and a frame is not physical."""

    select: float
    stop: float
    ceiling: float


@dataclass(frozen=True)
class Sighting:
    """A frame that was looked at.

    :ivar frame: the frame.
    :ivar file: name of the dump that holds it.
    :ivar is_finite: whether cell, positions and gamma are finite numbers.
    :ivar is_valid: whether it is physical: finite, all atoms there, gamma at most ``gamma_ceiling``.
    """

    frame: Frame
    file: str
    is_finite: bool
    is_valid: bool

    def worst_atoms(self, threshold: float, count: int = 10) -> tuple[tuple[int, float], ...]:
        """Return index from 0 in the order of atom ids, and gamma, of the atoms over a threshold, worst first."""
        gamma = self.frame.gamma
        if gamma is None:
            return ()
        order = np.argsort(-gamma, kind='stable')[:count]
        return tuple((int(i), float(gamma[i])) for i in order if gamma[i] > threshold)


class Evidence:
    """What log and dumps of one run say; of the dumps, which may be large, the few frames are kept that tell the story.

    :ivar log: the log.
    :ivar thresholds: what gamma is compared with.
    :ivar halt: the halt line, if it is one on gamma.
    :ivar has_series: whether the thermo output has a column of gamma.
    :ivar sightings: the frames that were looked at.
    :ivar notes: sentences about what could not be read.
    """

    def __init__(self, folder: Path, log: LammpsLog, thresholds: Thresholds) -> None:
        self.folder = folder
        self.log = log
        self.thresholds = thresholds
        self.halt = log.halt if log.halt and self._watched_gamma(log.halt) else None
        self.notes: list[str] = []
        self.sightings: list[Sighting] = []
        self._looked_at_all = False
        series = log.series()
        name = next((name for name in GAMMA_SERIES if name in series), None)
        self.has_series = name is not None
        gamma = series[name] if name else np.empty(0)
        known = np.isfinite(gamma)
        self._gamma = gamma[known]
        self._steps = series['Step'][known] if name else np.empty(0)
        self._look_at_frames()

    @property
    def last_step(self) -> int | None:
        """Return the last MD step known to be done: a killed run's dump may be ahead of its log."""
        steps = [self.log.last_step, self.log.halt.step if self.log.halt else None]
        steps += [s.frame.step for s in self.sightings]
        return max((step for step in steps if step is not None), default=None)

    @property
    def trigger_step(self) -> int | None:
        """Return the first step known to be over ``gamma_break``, or else that of the halt."""
        step = self.first_over(self.thresholds.stop)
        return self.halt.step if step is None and self.halt else step

    def first_over(self, threshold: float) -> int | None:
        """Return the first step whose largest gamma is known to be over a threshold."""
        steps = [int(step) for step in self._steps[self._gamma > threshold][:1]]
        steps += [s.frame.step for s in self.sightings if s.frame.max_gamma > threshold]
        if self.halt and self.halt.value > threshold:
            steps.append(self.halt.step)
        return min(steps, default=None)

    def max_gamma(self) -> float | None:
        """Return the largest finite gamma that was seen."""
        values = [*self._gamma.tolist(), *(s.frame.max_gamma for s in self.sightings)]
        values += [self.halt.value] if self.halt else []
        return max((value for value in values if np.isfinite(value)), default=None)

    def gamma_is_always_zero(self) -> bool:
        """Return whether gamma was given, and never as anything but 0."""
        frames = [s.frame.gamma for s in self.sightings if s.frame.gamma is not None]
        values = np.concatenate([self._gamma, *frames])
        return len(values) > 0 and not values.any()

    def first_valid_over_select(self) -> Sighting | None:
        """Return the first valid frame over ``gamma_select``."""
        over = (s for s in self.sightings if s.is_valid and s.frame.max_gamma > self.thresholds.select)
        return min(over, key=lambda s: s.frame.step, default=None)

    def halt_frame(self) -> Sighting | None:
        """Return the valid frame of the trigger step, or else the worst one over ``gamma_select``."""
        trigger = self.trigger_step
        over = [s for s in self.sightings if s.is_valid and s.frame.max_gamma > self.thresholds.select]
        return max(over, key=lambda s: (s.frame.step == trigger, s.frame.max_gamma, s.file == FINAL_FILE), default=None)

    def last_valid(self) -> Sighting | None:
        """Return the last valid frame that was looked at."""
        return max(
            (s for s in self.sightings if s.is_valid), key=lambda s: (s.frame.step, s.file == FINAL_FILE), default=None
        )

    def look_at_all_snapshots(self) -> None:
        """Go through the snapshots once and keep those that tell the story, with memory for these few."""
        if self._looked_at_all:
            return
        self._looked_at_all = True
        kept: dict[str, Sighting] = {}
        limits = self.thresholds
        with self._noting_damage():
            for frame in self._snapshots():
                sighting, gamma = self._sighting(frame, SNAPSHOTS_FILE), frame.max_gamma
                events = {
                    'first over select': gamma > limits.select,
                    'first valid over select': gamma > limits.select and sighting.is_valid,
                    'first over stop': gamma > limits.stop,
                    'first over ceiling': gamma > limits.ceiling,
                    'first not finite': not sighting.is_finite,
                }
                for event, is_one in events.items():
                    if is_one:
                        kept.setdefault(event, sighting)
                if np.isfinite(gamma) and ('worst' not in kept or gamma > kept['worst'].frame.max_gamma):
                    kept['worst'] = sighting
                if sighting.is_valid:
                    kept['last valid'] = sighting
        for sighting in kept.values():
            self._keep(sighting)

    def _look_at_frames(self) -> None:
        with self._noting_damage():
            first = next(self._snapshots(), None)
            if first is not None and first.gamma is not None:
                self.look_at_all_snapshots()
        for file in (SNAPSHOTS_FILE, FINAL_FILE):
            with self._noting_damage():
                if (self.folder / file).is_file() and (last := last_complete_frame(self.folder / file)) is not None:
                    self._keep(self._sighting(last, file))

    def _snapshots(self) -> Iterator[Frame]:
        path = self.folder / SNAPSHOTS_FILE
        return iterate_frames(path) if path.is_file() else iter(())

    def _keep(self, sighting: Sighting) -> None:
        if all((s.frame.step, s.file) != (sighting.frame.step, sighting.file) for s in self.sightings):
            self.sightings.append(sighting)

    @contextmanager
    def _noting_damage(self) -> Iterator[None]:
        """Turn a damaged dump into a sentence; what was read before the damage counts."""
        try:
            yield
        except OodalError as error:
            note = f'{error}.'
            self.notes += [note] if note not in self.notes else []

    def _sighting(self, frame: Frame, file: str) -> Sighting:
        try:
            numbers = [frame.cell, frame.positions, *([] if frame.gamma is None else [frame.gamma])]
        except OodalError:  # no positions: such a dump tells of gamma only
            return Sighting(frame, file, is_finite=True, is_valid=False)
        is_finite = all(np.isfinite(values).all() for values in numbers)
        has_all_atoms = len(frame) > 0 and self.log.n_atoms in (len(frame), None)
        is_valid = is_finite and has_all_atoms and not frame.max_gamma > self.thresholds.ceiling
        return Sighting(frame, file, is_finite=is_finite, is_valid=is_valid)

    def _watched_gamma(self, halt: Halt) -> bool:
        if halt.attribute is None:  # not echoed: the value has to tell
            return halt.value > self.thresholds.stop
        # another fix halts where gamma is 0 for every atom
        return _is_gamma(halt.attribute) and not halt.value <= self.thresholds.stop


def _is_gamma(attribute: str) -> bool:
    return attribute in GAMMA_SERIES or 'gamma' in attribute
