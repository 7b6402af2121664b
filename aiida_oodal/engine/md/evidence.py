"""Gamma and the frames of one MD run, read from its log and its dumps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import FINAL_FILE, LOG_FILE, SNAPSHOTS_FILE
from aiida_oodal.engine.thresholds import Thresholds

from .dump import Frame, iterate_frames, last_complete_frame
from .log import Halt, read_log

__all__ = ('FINITE_COLUMNS', 'GAMMA_SERIES', 'Evidence', 'Sighting')


GAMMA_SERIES = ('v_max_gamma', 'c_gamma_max', 'c_mg', 'v_mg', 'max_gamma')
"""Names under which a log may hold the largest gamma of all atoms; the first one found is taken."""


FINITE_COLUMNS = ('Temp', 'PotEng', 'KinEng', 'TotEng', 'Press', 'Volume', *GAMMA_SERIES)
"""Thermo columns that are finite numbers in every run that did not explode."""


@dataclass(frozen=True)
class Sighting:
    """A frame that was looked at.

    :ivar frame: the frame.
    :ivar file: name of the dump that holds it.
    :ivar is_finite: whether cell, positions and gamma are finite numbers.
    :ivar is_whole: whether it has positions of all atoms.
    """

    frame: Frame
    file: str
    is_finite: bool
    is_whole: bool

    def worst_atoms(self, threshold: float, count: int = 10) -> tuple[tuple[int, float], ...]:
        """Return index from 0 in the order of atom ids, and gamma, of the atoms over a threshold, worst first."""
        gamma = self.frame.gamma
        if gamma is None:
            return ()
        order = np.argsort(-gamma, kind='stable')[:count]
        return tuple((int(i), float(gamma[i])) for i in order if gamma[i] > threshold)


class Evidence:
    """The contents of log and dumps of one run; each file is read once.

    Dumps may be large. Only two kinds of frames are kept in memory: those that decide how the run ended, and those that
    become outputs.

    :param folder: folder with ``log.lammps`` and, as far as the run came, ``snapshots.dump`` and ``final.dump``.
    :param has_frames: whether the dumps are in the folder; if they stayed where MD ran, only the log is read.
    :ivar log: the log.
    :ivar series: its thermo columns, each step once.
    :ivar thresholds: what gamma is compared with.
    :ivar halt: the halt line, if it is one on gamma.
    :ivar has_series: whether the thermo output has a column of gamma.
    :ivar sightings: the frames that tell how the run went.
    :ivar usable: the frames over ``gamma_select`` and not over ``gamma_ceiling``, and all that have no gamma.
    :ivar notes: sentences about what could not be read.
    :ivar unphysical_from: first step known to be over ``gamma_ceiling`` or to have numbers that are not finite; what
        came from it is not physical either, whatever it looks like. None without.
    """

    def __init__(self, folder: Path, thresholds: Thresholds, *, has_frames: bool = True) -> None:
        self.folder = folder
        self.log = read_log(folder / LOG_FILE)
        self.series = self.log.series()
        self.thresholds = thresholds
        self.has_frames = has_frames
        self.halt = self.log.halt if self.log.halt and self._watched_gamma(self.log.halt) else None
        self.notes: list[str] = []
        self.sightings: list[Sighting] = []
        self.usable: list[Sighting] = []
        name = next((name for name in GAMMA_SERIES if name in self.series), None)
        self.has_series = name is not None
        gamma = self.series[name] if name else np.empty(0)
        known = np.isfinite(gamma)
        self._gamma = gamma[known]
        self._steps = self.series['Step'][known] if name else np.empty(0)
        self.unphysical_from = self._first_unphysical_row()
        if has_frames:
            self._look_at_snapshots()
            self._look_at_last(FINAL_FILE)

    @property
    def last_step(self) -> int | None:
        """Return the last MD step known to be done: a killed run's dump may be ahead of its log."""
        steps = [self.log.last_step, self.log.halt.step if self.log.halt else None]
        steps += [s.frame.step for s in self.sightings]
        return max((step for step in steps if step is not None), default=None)

    @property
    def trigger_step(self) -> int | None:
        """Return the first step known to be over ``gamma_break``, or else that of the halt."""
        step = self.first_over(self.thresholds.gamma_break)
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
        """Return whether gamma was computed and is 0 everywhere."""
        frames = [s.frame.gamma for s in self.sightings if s.frame.gamma is not None]
        values = np.concatenate([self._gamma, *frames])
        return len(values) > 0 and not values.any()

    def is_valid(self, sighting: Sighting) -> bool:
        """Return whether a frame is physical: it has all atoms, and no earlier step was unphysical."""
        return (
            sighting.is_finite
            and sighting.is_whole
            and not sighting.frame.max_gamma > self.thresholds.gamma_ceiling
            and (self.unphysical_from is None or sighting.frame.step < self.unphysical_from)
        )

    def began_unphysical(self) -> bool:
        """Return whether the run made no step, or began with a structure that is not physical."""
        first = next((int(table.steps[0]) for table in self.log.tables if len(table.steps)), None)
        if first is None or self.last_step is None or self.last_step <= first:
            return True
        return self.unphysical_from is not None and self.unphysical_from <= first

    def first_valid_over_select(self) -> Sighting | None:
        """Return the first valid frame over ``gamma_select``."""
        over = (s for s in self.sightings if self.is_valid(s) and s.frame.max_gamma > self.thresholds.gamma_select)
        return min(over, key=lambda s: s.frame.step, default=None)

    def halt_frame(self) -> Sighting | None:
        """Return the valid frame of the trigger step, or else the worst one over ``gamma_select``."""
        trigger = self.trigger_step
        over = [s for s in self.sightings if self.is_valid(s) and s.frame.max_gamma > self.thresholds.gamma_select]
        return max(over, key=lambda s: (s.frame.step == trigger, s.frame.max_gamma, s.file == FINAL_FILE), default=None)

    def last_valid(self) -> Sighting | None:
        """Return the last valid frame that was looked at."""
        return max(
            (s for s in self.sightings if self.is_valid(s)),
            key=lambda s: (s.frame.step, s.file == FINAL_FILE),
            default=None,
        )

    def _look_at_snapshots(self) -> None:
        """Go through the snapshots once."""
        path = self.folder / SNAPSHOTS_FILE
        if not path.is_file():
            return
        told: dict[str, Sighting] = {}
        limits = self.thresholds
        is_whole = False
        with self._noting_damage():
            for frame in iterate_frames(path):
                sighting, gamma = self._sighting(frame, SNAPSHOTS_FILE), frame.max_gamma
                events = {
                    'first over select': gamma > limits.gamma_select,
                    'first valid over select': gamma > limits.gamma_select and self.is_valid(sighting),
                    'first over break': gamma > limits.gamma_break,
                    'first over ceiling': gamma > limits.gamma_ceiling,
                    'first not finite': not sighting.is_finite,
                }
                for event, is_one in events.items():
                    if is_one:
                        told.setdefault(event, sighting)
                if np.isfinite(gamma) and ('worst' not in told or gamma > told['worst'].frame.max_gamma):
                    told['worst'] = sighting
                if self.is_valid(sighting):
                    told['last valid'] = sighting
                told['last'] = sighting
                self._take(sighting)
            is_whole = True
        for sighting in told.values():
            self._keep(sighting)
        if not is_whole:
            self._look_at_last(SNAPSHOTS_FILE)  # the frame after the damage

    def _look_at_last(self, file: str) -> None:
        with self._noting_damage():
            if (self.folder / file).is_file() and (last := last_complete_frame(self.folder / file)) is not None:
                sighting = self._sighting(last, file)
                self._keep(sighting)
                self._take(sighting)

    def _take(self, sighting: Sighting) -> None:
        """Note a frame that is worth an output."""
        frame, limits = sighting.frame, self.thresholds
        if frame.gamma is None or limits.gamma_select < frame.max_gamma <= limits.gamma_ceiling:
            self.usable.append(sighting)

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
            return Sighting(frame, file, is_finite=True, is_whole=False)
        is_finite = all(np.isfinite(values).all() for values in numbers)
        is_whole = len(frame) > 0 and self.log.n_atoms in (len(frame), None)
        if not is_finite or frame.max_gamma > self.thresholds.gamma_ceiling:
            self.unphysical_from = min(frame.step, frame.step if self.unphysical_from is None else self.unphysical_from)
        return Sighting(frame, file, is_finite=is_finite, is_whole=is_whole)

    def _first_unphysical_row(self) -> int | None:
        """Return the first step that the thermo output, or a halt, shows to be unphysical."""
        steps = [int(step) for step in self._steps[self._gamma > self.thresholds.gamma_ceiling][:1]]
        if self.halt and self.halt.value > self.thresholds.gamma_ceiling:
            steps.append(self.halt.step)
        for table in self.log.tables:
            if 'Step' not in table.columns:
                continue
            for name in FINITE_COLUMNS:
                bad = ~np.isfinite(table.columns.get(name, np.zeros(len(table))))
                steps += [int(step) + 1 for step in table.steps[bad][:1]]  # whose positions came from the one before
        return min(steps, default=None)

    def _watched_gamma(self, halt: Halt) -> bool:
        if halt.attribute is None:  # not echoed: the value has to tell
            return halt.value > self.thresholds.gamma_break
        # another fix halts where gamma is 0 for every atom
        return _is_gamma(halt.attribute) and not halt.value <= self.thresholds.gamma_break


def _is_gamma(attribute: str) -> bool:
    return attribute in GAMMA_SERIES or 'gamma' in attribute
