"""MD in several runs: join runs that continue each other, and grade runs that computed no gamma.

The engine command ``grade`` is :func:`run_job`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import open_grader
from aiida_oodal.engine.files import GRADED_FILE, RESULTS_FILE
from aiida_oodal.engine.structures import StructureSet
from aiida_oodal.engine.thresholds import Thresholds

from .verdict import Outcome, Verdict

__all__ = ('join_frames', 'join_results', 'judge_frames', 'usable_frames')


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Grade ``job['snapshots']``, and judge the run as if gamma had been computed during it.

    The job: ``snapshots``, a structure set in the order of MD; ``verdict``, what the files of the run say, as plain
    values of :class:`Verdict`; ``thresholds``; ``learned``, as :func:`.open_grader` takes it. Writes ``results.json``
    with ``verdict`` and ``max_gamma`` (by step), and ``graded.npz``, the frames worth keeping, if there are any.

    :raises OodalError: if a frame could not be graded, because nothing is known about it then.
    """
    thresholds = Thresholds.read(job['thresholds'])
    frames = list(StructureSet.load(folder / job['snapshots']))
    grades = open_grader(job['learned'], folder).grade(frames)
    failed = [
        (frame.info['step'], grade) for frame, grade in zip(frames, grades, strict=True) if isinstance(grade, str)
    ]
    if failed:
        step, reason = failed[0]
        raise OodalError(
            f'the frame of step {step} could not be graded ({len(failed)} of {len(frames)} frames): it is not known '
            f'whether the potential holds there; {reason}'
        )
    for frame, grade in zip(frames, grades, strict=True):
        if not isinstance(grade, str):
            frame.set_array('gamma', grade.gamma)
    md = Verdict(**{**job['verdict'], 'outcome': Outcome(job['verdict']['outcome'])})
    verdict = judge_frames(frames, md, thresholds)
    kept = usable_frames(frames, verdict, thresholds)
    if kept:
        StructureSet.from_atoms(kept).save(folder / GRADED_FILE)
    results = {
        'verdict': {**dataclasses.asdict(verdict), 'outcome': verdict.outcome.value},
        'max_gamma': {int(frame.info['step']): float(frame.arrays['gamma'].max()) for frame in frames},
    }
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=1), encoding='utf-8')
    print(verdict.message, flush=True)


def judge_frames(frames: Sequence[Atoms], md: Verdict, thresholds: Thresholds) -> Verdict:
    """Return the verdict that a segment would have, if gamma had been computed during it.

    Frames after the first one over ``gamma_break`` are not used, because the potential is wrong there.

    :param frames: graded snapshots in the order of MD.
    :param md: what the files of the segment say.
    """
    gamma_select, gamma_break = thresholds.gamma_select, thresholds.gamma_break
    gamma_ceiling = thresholds.gamma_ceiling
    graded = [(int(atoms.info['step']), atoms, float(atoms.arrays['gamma'].max())) for atoms in frames]
    trigger = next(((step, atoms, value) for step, atoms, value in graded if value > gamma_break), None)
    until = [entry for entry in graded if trigger is None or entry[0] <= trigger[0]]
    select = next((entry for entry in until if gamma_select < entry[2] <= gamma_ceiling), None)
    largest = max((value for *_, value in until if np.isfinite(value)), default=None)
    outcome, candidate, sentences = md.outcome, None, [md.message]
    if trigger is not None:
        exploded = trigger[2] > gamma_ceiling
        outcome, candidate = (Outcome.EXPLODED, select) if exploded else (Outcome.UNCERTAIN, trigger)
        over = f'gamma_ceiling ({gamma_ceiling:g})' if exploded else f'gamma_break ({gamma_break:g})'
        sentences = [f'Gamma passed {over} in the snapshot of step {trigger[0]}: it was {trigger[2]:.4g}.']
    elif outcome in (Outcome.LOST_ATOMS, Outcome.EXPLODED):
        candidate = select
    elif largest is not None:
        sentences.append(
            f'The largest gamma of its {len(graded)} snapshots was {largest:.4g} (gamma_break {gamma_break:g}).'
        )
    if candidate is not None:
        sentences.append(f'Learn from the snapshot of step {candidate[0]}.')
    return Verdict(
        outcome=outcome,
        message=' '.join(sentences),
        last_step=md.last_step,
        max_gamma=largest,
        trigger_step=None if trigger is None else trigger[0],
        select_step=None if select is None else select[0],
        candidate_step=None if candidate is None else candidate[0],
        last_valid_step=_last_valid_step([step for step, *_ in until], md, outcome, trigger is not None),
        worst_atoms=() if candidate is None else _worst_atoms(candidate[1], gamma_select),
    )


def _last_valid_step(until: Sequence[int], md: Verdict, outcome: Outcome, triggered: bool) -> int | None:
    """Return the step of the last frame that counts: that of the trigger, or the one before if that is not physical.

    :param until: steps of the frames up to the trigger.
    """
    if not triggered:
        return md.last_valid_step
    steps = until[:-1] if outcome is Outcome.EXPLODED else until
    return max(steps, default=None)


def usable_frames(frames: Sequence[Atoms], verdict: Verdict, thresholds: Thresholds) -> list[Atoms]:
    """Return the frames worth keeping: over ``gamma_select``, physical, and not after the one to learn from."""
    end = np.inf if verdict.candidate_step is None else verdict.candidate_step
    return [
        atoms
        for atoms in frames
        if thresholds.gamma_select < atoms.arrays['gamma'].max() <= thresholds.gamma_ceiling
        and atoms.info['step'] <= end
    ]


def _worst_atoms(atoms: Atoms, threshold: float, count: int = 10) -> tuple[tuple[int, float], ...]:
    gamma = atoms.arrays['gamma']
    order = np.argsort(-gamma, kind='stable')[:count]
    return tuple((int(i), float(gamma[i])) for i in order if gamma[i] > threshold)


def join_frames(runs: Sequence[Sequence[Atoms]], starts: Sequence[int]) -> list[Atoms]:
    """Join snapshots; a later run replaces earlier ones from its first step on.

    :param runs: snapshots of each run, ``info['step']`` rising, runs in the order in which they ran.
    :param starts: first MD step of each run.
    """
    return [
        atoms for frames, end in zip(runs, _ends(starts), strict=True) for atoms in frames if atoms.info['step'] < end
    ]


def join_results(runs: Sequence[Mapping[str, Any]], starts: Sequence[int], max_gamma: float | None) -> dict[str, Any]:
    """Join verdicts: the outcome is that of the last run, steps at which gamma passed a threshold are the first.

    :param runs: fields of :class:`~aiida_oodal.engine.md.verdict.Verdict` of each run, in the order in which they ran.
    :param starts: first MD step of each run.
    :param max_gamma: largest gamma of the joined series, if it has any.
    """
    joined = dict(runs[-1])
    for name in ('trigger_step', 'select_step'):
        steps = [
            run[name] for run, end in zip(runs, _ends(starts), strict=True) if run[name] is not None and run[name] < end
        ]
        joined[name] = min(steps, default=None)
    grades = [value for value in (max_gamma, runs[-1]['max_gamma']) if value is not None and np.isfinite(value)]
    joined['max_gamma'] = max(grades, default=None)
    if len(runs) > 1:
        joined['message'] = _message(joined, len(runs), starts[-1])
    return joined


def _message(joined: Mapping[str, Any], count: int, start: int) -> str:
    """Return sentences on all runs together, and the message of the last one."""
    sentences = [f'{count} runs that went on from one another.']
    if joined['max_gamma'] is not None:
        sentences.append(f'Over all of them the largest gamma was {joined["max_gamma"]:.4g}.')
    if joined['select_step'] is not None:
        sentences.append(f'It first passed gamma_select at step {joined["select_step"]}.')
    return ' '.join([*sentences, f'The last one, from step {start} on: {joined["message"]}'])


def _ends(starts: Sequence[int]) -> list[float]:
    """Return the step from which on later runs replace each run."""
    return [min(starts[i + 1 :], default=np.inf) for i in range(len(starts))]
