"""Cut clusters out of the snapshots of one walker, grade them, and record a decision for every centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import Grades
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.thresholds import Thresholds

from .centres import worst_centres
from .cluster import cut_each
from .fidelity import add_second_opinion, check_fidelity
from .settings import CarveSettings

#: Grades of a cluster that its decision contains.
_GRADES = ('gamma_cluster', 'faithful', 'buffer_above_break', 'score', 'score_threshold', 'second_opinion')


@dataclass(frozen=True)
class Attempt:
    """A centre, its gamma in the snapshot, and the cell that was cut around it, or the error if none could be cut."""

    step: int
    centre: int
    gamma: float
    cell: Atoms | OodalError


@dataclass(frozen=True)
class Candidates:
    """Clusters, and a decision for every centre: its ``step``, ``centre``, ``gamma``, ``taken``, ``reason``.

    Decisions also have the grades in the cell, as far as they are known.
    """

    clusters: tuple[Atoms, ...]
    decisions: tuple[dict[str, Any], ...]


def cut_candidates(
    snapshots: Sequence[Atoms], settings: CarveSettings, thresholds: Thresholds, cutoff: float | None
) -> list[Attempt]:
    """Cut cells around the worst atoms of the last physical frames.

    :param snapshots: frames in the order of MD, with ``arrays['gamma']`` and ``info['step']``.
    :param cutoff: of the potential that graded them, angstrom; None if the settings have it.
    :raises OodalError: if the cells would be too small for the potential, or frames have no gamma or step.
    """
    cut = settings.for_cutoff(cutoff)
    _check_frames(snapshots)
    physical = [frame for frame in snapshots if frame.arrays['gamma'].max() <= thresholds.gamma_ceiling]
    attempts: list[Attempt] = []
    for frame in physical[-settings.snapshots :]:
        centres = worst_centres(
            frame,
            gamma_min=thresholds.gamma_select,
            max_centres=1 if len(frame) <= settings.whole_atoms else settings.centres_per_snapshot,
            min_separation=settings.min_separation,
        )
        gamma = frame.arrays['gamma']
        attempts += [
            Attempt(int(frame.info['step']), centre, float(gamma[centre]), cell)
            for centre, cell in zip(centres, cut_each(frame, centres, cut), strict=True)
        ]
    return attempts


def _check_frames(snapshots: Sequence[Atoms]) -> None:
    """Refuse frames in which an atom has no gamma."""
    for index, frame in enumerate(snapshots):
        missing = 'gamma' if 'gamma' not in frame.arrays else 'step' if 'step' not in frame.info else None
        if missing is not None:
            raise OodalError(
                f'snapshot {index} has no {missing!r}: take frames of an MD run that computed gamma, or run MD by '
                '`oodal.md.segments`, which grades its frames'
            )
        gamma = frame.arrays['gamma']
        if problem := _check_numbers(gamma, frame.info['step']):
            raise OodalError(f'snapshot {index}: {problem}')
        unknown = np.flatnonzero(np.isnan(gamma))
        if len(unknown):
            raise OodalError(
                f'snapshot {index} (step {frame.info["step"]}): gamma of atom {unknown[0]} is not a number: grade the '
                'frame again, or leave it out'
            )


def check_graded(snapshots: StructureSet) -> str | None:
    """Say which snapshot is not graded, or return None; the job looks once more, frame by frame."""
    if 'gamma' not in snapshots.arrays or 'step' not in snapshots.info:
        return 'snapshots: `gamma` is one number for every atom, `step` one for every frame'
    gamma, steps = snapshots.arrays['gamma'], snapshots.info['step']
    if problem := _check_numbers(gamma, *steps[:1]):
        return f'snapshots: {problem}'
    for name, values in (('gamma', gamma), ('step', steps)):
        if len(blank := np.flatnonzero(np.isnan(values))):
            row = int(blank[0])
            index = row if name == 'step' else int(np.searchsorted(snapshots.offsets, row, side='right')) - 1
            atom = '' if name == 'step' else f' of atom {row - int(snapshots.offsets[index])}'
            return f'snapshot {index}: {name}{atom} is not a number: grade the frame again, or leave it out'
    return None


def _check_numbers(gamma: Any, *steps: Any) -> str | None:
    """Say that gamma is not one number for every atom, or a step is no number."""
    if np.ndim(gamma) != 1 or np.asarray(gamma).dtype.kind not in 'fiu':
        return f'gamma has the shape {np.shape(gamma)} and the type {np.asarray(gamma).dtype}, not a number an atom'
    for step in steps:
        if np.asarray(step).dtype.kind not in 'fiu':
            return f'step = {step!r} is not a number'
    return None


def cells_of(attempts: Sequence[Attempt]) -> list[Atoms]:
    """Return the cells that could be cut, in their order."""
    return [attempt.cell for attempt in attempts if isinstance(attempt.cell, Atoms)]


def judge_candidates(
    attempts: Sequence[Attempt],
    settings: CarveSettings,
    thresholds: Thresholds,
    grades: Sequence[Grades | str],
    opinions: Sequence[Grades | str] | None = None,
) -> Candidates:
    """Take the cells whose centre has the gamma that it had in the snapshot.

    :param grades: of every cell by the potential that graded the snapshots, or why it could not be graded.
    :param opinions: of every cell by a second ensemble, if there is one; they are recorded and refuse nothing.
    :raises OodalError: if there is not one grade (and opinion) for every cell.
    """
    cells = cells_of(attempts)
    for given in (grades, opinions):
        if given is not None and len(given) != len(cells):
            raise OodalError(f'there are {len(given)} grades for {len(cells)} cells')
    seconds: Sequence[Grades | str | None] = opinions if opinions is not None else [None] * len(cells)
    rows = iter(zip(grades, seconds, strict=True))
    clusters: list[Atoms] = []
    decisions: list[dict[str, Any]] = []
    for attempt in attempts:
        decision: dict[str, Any] = {'step': attempt.step, 'centre': attempt.centre, 'gamma': attempt.gamma}
        if isinstance(attempt.cell, OodalError):
            decision |= {'taken': False, 'reason': str(attempt.cell)}
        else:
            taken, reason = _judge(attempt.cell, attempt.gamma, settings, thresholds, *next(rows))
            decision |= {'taken': taken, 'reason': reason}
            decision |= {key: attempt.cell.info[key] for key in _GRADES if key in attempt.cell.info}
            if taken:
                clusters.append(attempt.cell)
        decisions.append(decision)
    return Candidates(tuple(clusters), tuple(decisions))


def _judge(
    cell: Atoms,
    gamma: float,
    settings: CarveSettings,
    thresholds: Thresholds,
    grades: Grades | str,
    opinion: Grades | str | None,
) -> tuple[bool, str]:
    """Write the grades into a cell, and tell whether it is taken and why."""
    if isinstance(grades, str):
        return False, grades
    fidelity = check_fidelity(
        cell,
        lambda _: grades.gamma,
        gamma,
        gamma_break=thresholds.gamma_break,
        relative_tolerance=settings.tolerance,
        absolute_tolerance=settings.tolerance,
    )
    reason = fidelity.message
    scored = grades if opinion is None else opinion
    if isinstance(scored, str):
        reason += f'; no second opinion: {scored}'
    elif scored.scores is not None and scored.threshold is not None:
        cell.info.update(score=float(scored.scores[0]), score_threshold=scored.threshold)
        if opinion is not None:
            second = add_second_opinion(
                cell, scored.scores, gamma_select=thresholds.gamma_select, score_threshold=scored.threshold
            )
            reason += f'; {second.message}'
    return fidelity.faithful or settings.unfaithful == 'flag', reason
