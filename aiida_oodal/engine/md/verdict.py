"""Say how an MD run ended, from what it left on disk.

LAMMPS ends with exit code 0 after a soft halt, at its own time limit, and with all but two atoms lost; a killed process
leaves a log without an error. So the verdict reads the last step, the halt line, the number of atoms, the series of
gamma and the frames, and takes the exit status for no more than a hint. What is evident counts in this order: atoms
were lost; the run exploded; gamma passed ``gamma_break``; gamma was never computed; an error; a time limit; all steps
done; none of these, so the process was killed.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import numpy as np

from aiida_oodal.engine.md.evidence import FINAL_FILE, GAMMA_SERIES, SNAPSHOTS_FILE, Evidence, Sighting, Thresholds
from aiida_oodal.engine.md.log import read_log
from aiida_oodal.engine.md.outcome import Outcome, Verdict
from aiida_oodal.engine.md.restart import find_restart

__all__ = ('Outcome', 'Verdict', 'judge')

LOG_FILE = 'log.lammps'
ERROR_FILE = 'error.json'

_FINITE_COLUMNS = ('Temp', 'PotEng', 'KinEng', 'TotEng', 'Press', 'Volume', *GAMMA_SERIES)
_NOT_A_NUMBER = re.compile(r'\b(nan|inf|non-numeric)\b', re.IGNORECASE)


def judge(
    folder: str | Path,
    *,
    target_step: int,
    gamma_select: float,
    gamma_break: float,
    gamma_ceiling: float,
    exit_status: int | None = None,
    restart_every: int | None = None,
    watched: bool = True,
) -> Verdict:
    """Say how the MD run in a folder ended.

    :param folder: folder with ``log.lammps`` and, as far as the run came, ``snapshots.dump`` and ``final.dump``.
    :param target_step: MD step that the run had to reach.
    :param gamma_select: gamma above which a frame is worth keeping.
    :param gamma_break: gamma above which the run halts.
    :param gamma_ceiling: gamma above which a frame is not physical.
    :param exit_status: exit status of the process, where known; -N or 128 + N for signal N.
    :param restart_every: steps between periodic restart files, if the run wrote any.
    :param watched: whether the run was to give gamma; a pair style of the user's gives none.
    :raises OodalError: if the log cannot be read, or is no LAMMPS log in a style that can be read. A damaged dump is no
        error but a sentence of the message.
    """
    folder = Path(folder)
    if not (folder / LOG_FILE).is_file():
        return _without_log(folder, exit_status)
    thresholds = Thresholds(gamma_select, gamma_break, gamma_ceiling)
    evidence = Evidence(folder, read_log(folder / LOG_FILE), thresholds)
    outcome, sentences = _outcome(evidence, target_step, exit_status)
    candidate = None
    if outcome in (Outcome.LOST_ATOMS, Outcome.EXPLODED):
        evidence.look_at_all_snapshots()
        candidate = evidence.first_valid_over_select()
        sentences += _about_frames(evidence, candidate, watched)
    elif outcome is Outcome.UNCERTAIN:
        candidate = evidence.halt_frame()
        sentences += _about_frames(evidence, candidate, watched)
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
        select_step=evidence.first_over(gamma_select),
        candidate_step=candidate.frame.step if candidate else None,
        candidate_file=candidate.file if candidate else None,
        last_valid_step=last_valid.frame.step if last_valid else None,
        last_valid_file=last_valid.file if last_valid else None,
        restart_file=restart.file if restart else None,
        restart_step=restart.step if restart else None,
        worst_atoms=candidate.worst_atoms(gamma_select) if candidate else (),
    )


_Finding = tuple[Outcome, list[str]]


def _outcome(evidence: Evidence, target_step: int, exit_status: int | None) -> _Finding:
    """Return how the run ended, and sentences about it."""
    where = _where(evidence, target_step)
    return (
        _lost_atoms(evidence)
        or _exploded(evidence, where)
        or _uncertain(evidence)
        or _failed(evidence, where)
        or _ended_in_order(evidence, target_step, where)
        or _died(evidence, exit_status, where)
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
    log, ceiling = evidence.log, evidence.thresholds.ceiling
    for table in log.tables:
        for name in _FINITE_COLUMNS:
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
    return Outcome.EXPLODED, [
        f'The run exploded: gamma passed gamma_ceiling ({ceiling:g}) at step {step_over}, and frames from there on are '
        'not physical.'
    ]


def _uncertain(evidence: Evidence) -> _Finding | None:
    log, halt, stop, step = evidence.log, evidence.halt, evidence.thresholds.stop, evidence.trigger_step
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
            sentences.append(f'The largest gamma was {gamma:.4g} (gamma_break is {evidence.thresholds.stop:g}).')
        if (step := evidence.first_over(evidence.thresholds.select)) is not None:
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


def _died(evidence: Evidence, exit_status: int | None, where: str) -> _Finding:
    signal_name = _signal_name(exit_status)
    reason = _driver_error(evidence.folder)
    if reason or (exit_status and not signal_name):
        reason = reason or f'exit status {exit_status}; look at the standard error of the job'
        return Outcome.FAILED, [f'The run stopped {where} without an error of LAMMPS: {reason}.']
    return Outcome.KILLED, [
        f'The run stopped {where} without an error: it was killed{f" ({signal_name})" if signal_name else ""}, by a '
        'time or memory limit of the scheduler or together with its node. What the dumps hold is safe.'
    ]


def _about_frames(evidence: Evidence, candidate: Sighting | None, watched: bool) -> list[str]:
    """Return sentences that tell which frames can be used."""
    last, select = evidence.last_valid(), evidence.thresholds.select
    if last is None:
        return ['No valid frame is on disk: go back to a restart file, and write snapshots more often.']
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


def _without_log(folder: Path, exit_status: int | None) -> Verdict:
    if name := _signal_name(exit_status):
        return Verdict(Outcome.KILLED, f'The job was killed ({name}) before LAMMPS wrote {LOG_FILE}. Submit it again.')
    reason = _driver_error(folder) or f'exit status {"unknown" if exit_status is None else exit_status}'
    return Verdict(
        Outcome.FAILED,
        f'There is no {LOG_FILE}, so LAMMPS did not start: {reason}. Look at the standard error of the job.',
    )


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


def _signal_name(exit_status: int | None) -> str | None:
    """Return the name of the signal that ended a process."""
    number = -exit_status if exit_status is not None and exit_status < 0 else (exit_status or 0) - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
