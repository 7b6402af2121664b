"""Say how an MD run ended, from what it left on disk.

LAMMPS ends with exit code 0 after a soft halt, at its own time limit, and with all but two atoms lost; a killed process
leaves a log without an error. So the verdict reads the last step, the halt line, the number of atoms, the series of
gamma and the frames, and never the exit status. The causes are checked in this order: atoms were lost; the run
exploded; gamma passed ``gamma_break``; gamma was never computed; an error; a time limit; all steps done; none of these,
so the process was killed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from aiida_oodal.engine.files import (
    ERROR_FILE,
    FINAL_FILE,
    FINAL_RESTART_FILE,
    PERIODIC_RESTART_FILES,
    SNAPSHOTS_FILE,
)
from aiida_oodal.engine.thresholds import NOT_PHYSICAL

from .evidence import FINITE_COLUMNS, GAMMA_SERIES, Evidence, Sighting
from .log import LammpsLog

__all__ = ('Outcome', 'RestartPoint', 'Verdict', 'find_restart', 'judge')


_NOT_A_NUMBER = re.compile(r'\b(nan|inf|non-numeric)\b', re.IGNORECASE)


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
    :ivar last_valid_step: step of the last frame on disk that is physical: all atoms there, all numbers finite, gamma
        at most ``gamma_ceiling``, in it and in all that is known of the steps before.
    :ivar last_valid_file: name of the dump that holds it.
    :ivar restart_file: restart file to go on from, of a run that was ended from outside (WALLTIME, KILLED); None if it
        left none that is known to be whole.
    :ivar restart_step: MD step that this file holds.
    :ivar worst_atoms: index from 0 in the order of atom ids, and gamma, of at most ten atoms of the candidate frame
        over ``gamma_select``, worst first.
    :ivar has_frames: whether the frames were looked at; if not, they are where the run left them, and the fields about
        frames are None.
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
    has_frames: bool = True


def judge(evidence: Evidence, *, target_step: int, restart_every: int | None = None, watched: bool = True) -> Verdict:
    """Say how an MD run ended.

    :param evidence: what its files say; a damaged dump is not an error: the message reports it.
    :param target_step: MD step that the run had to reach.
    :param restart_every: steps between periodic restart files, if the run wrote any.
    :param watched: whether the run computed gamma; a pair style of the user does not.
    """
    outcome, sentences = _outcome(evidence, target_step)
    candidate = None
    if outcome in (Outcome.LOST_ATOMS, Outcome.EXPLODED):
        candidate = evidence.first_valid_over_select()
        sentences += _about_frames(evidence, candidate, watched, restart_every)
    elif outcome is Outcome.UNCERTAIN:
        candidate = evidence.halt_frame()
        sentences += _about_frames(evidence, candidate, watched, restart_every)
    if watched and evidence.log.tables and not evidence.has_series:
        sentences.append(
            f'The thermo output has no column of gamma ({GAMMA_SERIES[0]}): it is known from the frames only.'
        )
    last_valid = evidence.last_valid()
    restart = None
    if outcome in (Outcome.WALLTIME, Outcome.KILLED):
        restart = find_restart(evidence.log, restart_every, wrote_final=_wrote_final(evidence))
        sentences.append(
            f'Go on from {restart.file} (step {restart.step}).' if restart else 'It left no restart file to go on from.'
        )
    return Verdict(
        outcome=outcome,
        message=' '.join(sentences + evidence.notes),
        last_step=evidence.last_step,
        max_gamma=evidence.max_gamma(),
        trigger_step=evidence.trigger_step,
        select_step=evidence.first_over(evidence.thresholds.gamma_select),
        candidate_step=candidate.frame.step if candidate else None,
        candidate_file=candidate.file if candidate else None,
        last_valid_step=last_valid.frame.step if last_valid else None,
        last_valid_file=last_valid.file if last_valid else None,
        restart_file=restart.file if restart else None,
        restart_step=restart.step if restart else None,
        worst_atoms=candidate.worst_atoms(evidence.thresholds.gamma_select) if candidate else (),
        has_frames=evidence.has_frames,
    )


_Finding = tuple[Outcome, list[str]]


def _outcome(evidence: Evidence, target_step: int) -> _Finding:
    """Return how the run ended, and sentences about it."""
    where = _where(evidence, target_step)
    return (
        _lost_atoms(evidence)
        or _exploded(evidence, where)
        or _uncertain(evidence)
        or _failed(evidence, where)
        or _ended_in_order(evidence, target_step, where)
        or _died(evidence, where)
    )


def _lost_atoms(evidence: Evidence) -> _Finding | None:
    log = evidence.log
    lost = log.lost_atoms
    if lost is None:  # thermo_modify lost ignore says nothing
        lost = next((t.atoms for t in log.tables if t.atoms is not None and t.atoms[1] < t.atoms[0]), None)
    if lost is None:
        return None
    return Outcome.LOST_ATOMS, [
        f'Atoms were lost: {lost[0]} became {lost[1]}; the last step in the log is {evidence.last_step}. Either the '
        'time step is too long, or the potential is wrong where the atoms went: a shorter time step tells which.'
    ]


def _exploded(evidence: Evidence, where: str) -> _Finding | None:
    log, ceiling = evidence.log, evidence.thresholds.gamma_ceiling
    for table in log.tables:
        for name in FINITE_COLUMNS:
            bad = ~np.isfinite(table.columns.get(name, np.empty(0)))
            if bad.any():
                step = (
                    f'at step {table.steps[bad][0]}' if 'Step' in table.columns else f'in the run of line {table.line}'
                )
                return Outcome.EXPLODED, [f'The run exploded: {name} is not a finite number {step}.']
    for sighting in evidence.sightings:
        if not sighting.is_finite:
            step = f'frame of step {sighting.frame.step} in {sighting.file}'
            return Outcome.EXPLODED, [f'The run exploded: the {step} has numbers that are not finite.']
    if log.error and _NOT_A_NUMBER.search(log.error):
        return Outcome.EXPLODED, [f'The run exploded {where}: LAMMPS says "{log.error}".']
    if (step_over := evidence.first_over(ceiling)) is None:
        return None
    said = (
        f'The run exploded: gamma passed gamma_ceiling ({ceiling:g}) at step {step_over}, and frames from there on are '
        'not physical.'
    )
    if (evidence.max_gamma() or 0.0) >= NOT_PHYSICAL:
        said += (
            ' The ensemble found matter evaporated or collapsed there, by an atom without neighbours or by the number '
            'of neighbours per atom (`lonely_atoms` and `density` of its settings): heat less, or at constant volume.'
        )
    return Outcome.EXPLODED, [said]


def _uncertain(evidence: Evidence) -> _Finding | None:
    log, halt, stop, step = evidence.log, evidence.halt, evidence.thresholds.gamma_break, evidence.trigger_step
    if step is None:
        return None
    how = (
        f'; fix {halt.fix_id} halted the run at step {halt.step} with {halt.value:.4g}'
        if halt
        else ', without a halt line'
    )
    sentences = [f'Gamma passed gamma_break ({stop:g}) at step {step}{how}.']
    if log.error and 'Fix halt' not in log.error:
        sentences.append(f'Later LAMMPS stopped with an error: "{log.error}".')
    return Outcome.UNCERTAIN, sentences


def _failed(evidence: Evidence, where: str) -> _Finding | None:
    if evidence.gamma_is_always_zero():
        return Outcome.FAILED, [
            'Gamma is exactly 0 in the whole run: it was never computed, and nothing watched the potential. LAMMPS '
            'builds before November 2023 do this with pace/extrapolation: use a newer one, or the embedded engine.'
        ]
    if evidence.log.error is not None:
        return Outcome.FAILED, [f'LAMMPS stopped {where} with an error: "{evidence.log.error}".']
    return None


def _ended_in_order(evidence: Evidence, target_step: int, where: str) -> _Finding | None:
    """Look for the end of a run that left its loop: a time limit, all steps, or too few of them."""
    log, halt, last_step = evidence.log, evidence.log.halt, evidence.last_step
    if last_step is not None and last_step >= target_step:
        if not _wrote_final(evidence):
            return None
        sentences = [f'The run did all {target_step} steps.']
        if (gamma := evidence.max_gamma()) is not None:
            sentences.append(f'The largest gamma was {gamma:.4g} (gamma_break is {evidence.thresholds.gamma_break:g}).')
        if (step := evidence.first_over(evidence.thresholds.gamma_select)) is not None:
            sentences.append(
                f'It first passed gamma_select at step {step}: {SNAPSHOTS_FILE} may hold frames worth a label.'
            )
        return Outcome.COMPLETED, sentences
    if log.walltime_reached or (halt and halt.attribute == 'tlimit'):
        return Outcome.WALLTIME, [f'The time limit given to LAMMPS ended the run {where}.']
    if halt and not evidence.halt:
        watched = halt.attribute or 'a value that is not over gamma_break'
        return Outcome.FAILED, [
            f'Fix {halt.fix_id} halted the run {where}, but not for gamma: {watched} was {halt.value:g}.'
        ]
    if log.total_wall_time is None:
        return None
    return Outcome.FAILED, [
        f'LAMMPS ended in order {where}, without a halt line, a time limit or an error: the input asked for fewer '
        'steps, or a fix halt without message fired for something else than gamma.'
    ]


def _wrote_final(evidence: Evidence) -> bool:
    """Return whether the commands after the run were reached: the final frame comes after the final restart file."""
    last_step = evidence.last_step
    final = any(s.file == FINAL_FILE and s.frame.step == last_step for s in evidence.sightings)
    return final or evidence.log.total_wall_time is not None


def _died(evidence: Evidence, where: str) -> _Finding:
    if reason := _driver_error(evidence.folder):
        return Outcome.FAILED, [f'The run stopped {where} without an error of LAMMPS: {reason}.']
    return Outcome.KILLED, [
        f'The run stopped {where} without an error: it was killed, by a time or memory limit of the scheduler or '
        'together with its node. What the dumps hold is safe.'
    ]


def _about_frames(
    evidence: Evidence, candidate: Sighting | None, watched: bool, restart_every: int | None
) -> list[str]:
    """Return sentences that tell which frames can be used, and where to go on."""
    if not evidence.has_frames:
        return ['Its frames are in its remote folder, where the carving job reads them.']
    last, select = evidence.last_valid(), evidence.thresholds.gamma_select
    if last is None and evidence.began_unphysical():
        return [
            'That is the structure that the run began with, so there is nothing to go on from: begin with a structure '
            'that the potential knows, or label this one and train on it.'
        ]
    if last is None:
        restart = find_restart(evidence.log, restart_every, wrote_final=False)
        limit = evidence.unphysical_from
        if restart and (limit is None or restart.step < limit):
            where = f'go back to {restart.file} (step {restart.step})'
        else:
            where = 'begin again, with restart files more often (`restart_every`)'
        return [f'No valid frame is on disk: {where}, and write snapshots more often (`sample_every`).']
    sentences = [f'The last valid frame is that of step {last.frame.step} in {last.file}.']
    if not watched:
        return sentences
    if candidate is None:
        return [*sentences, f'No valid frame over gamma_select ({select:g}) is on disk to learn from.']
    atoms = ', '.join(f'{index} (gamma {gamma:.4g})' for index, gamma in candidate.worst_atoms(select, 3))
    return [
        *sentences,
        f'Learn from that of step {candidate.frame.step} in {candidate.file}: cut clusters around its atoms {atoms}.',
    ]


def _where(evidence: Evidence, target_step: int) -> str:
    step = evidence.last_step
    where = 'before its first step' if step is None else f'at step {step} of {target_step}'
    line = evidence.log.truncated_at_line
    return f'{where} (the log is cut in line {line})' if line else where


def _driver_error(folder: Path) -> str | None:
    """Return what the embedded engine has written about its end."""
    path = folder / ERROR_FILE
    if not path.is_file():
        return None
    text = path.read_text(encoding='utf-8', errors='replace').strip()
    try:
        return str(json.loads(text)['message'])
    except (ValueError, KeyError, TypeError):  # cut like any other file
        return text or None


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
        return RestartPoint(FINAL_RESTART_FILE, log.last_step)
    if restart_every is None:
        return None
    first, last = int(log.tables[0].steps[0]), int(log.tables[0].steps[-1])
    step = (last - 1) // restart_every * restart_every
    if step <= first:
        return None
    count = step // restart_every - first // restart_every
    return RestartPoint(PERIODIC_RESTART_FILES[(count - 1) % len(PERIODIC_RESTART_FILES)], step)
