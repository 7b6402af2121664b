"""Runs that went on from one another, as one: every MD step counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

__all__ = ('join_frames', 'join_results')


def join_frames(runs: Sequence[Sequence[Atoms]], starts: Sequence[int]) -> list[Atoms]:
    """Join snapshots; a later run replaces earlier ones from its first step on.

    :param runs: snapshots of each run, ``info['step']`` rising, runs in the order in which they ran.
    :param starts: first MD step of each run.
    """
    return [
        atoms for frames, end in zip(runs, _ends(starts), strict=True) for atoms in frames if atoms.info['step'] < end
    ]


def join_results(runs: Sequence[Mapping[str, Any]], starts: Sequence[int], max_gamma: float | None) -> dict[str, Any]:
    """Join verdicts: how it ended is said by the last run, where gamma passed a threshold by the first that saw it.

    :param runs: fields of :class:`~aiida_oodal.engine.md.outcome.Verdict` of each run, in the order in which they ran.
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
    """Return what is true of all runs, and what the last one said of itself."""
    sentences = [f'{count} runs that went on from one another.']
    if joined['max_gamma'] is not None:
        sentences.append(f'Over all of them the largest gamma was {joined["max_gamma"]:.4g}.')
    if joined['select_step'] is not None:
        sentences.append(f'It first passed gamma_select at step {joined["select_step"]}.')
    return ' '.join([*sentences, f'The last one, from step {start} on: {joined["message"]}'])


def _ends(starts: Sequence[int]) -> list[float]:
    """Return the step from which on later runs replace each run."""
    return [min(starts[i + 1 :], default=np.inf) for i in range(len(starts))]
