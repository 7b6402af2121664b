"""MD that nothing watches: its snapshots are graded, and the run is judged as if it had ended where they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.outcome import Outcome, Verdict

__all__ = ('grade_frames', 'judge_frames', 'usable_frames')


def grade_frames(
    frames: Sequence[Atoms], gamma: NDArray[np.float64], offsets: NDArray[np.int64], index: NDArray[np.int64]
) -> list[Atoms]:
    """Return frames with their gamma.

    :param frames: snapshots in the order of MD.
    :param gamma: grade of all atoms, shape (n_atoms,).
    :param offsets: frame i owns atoms ``offsets[i]:offsets[i + 1]``, shape (n_frames + 1,).
    :param index: frames that were graded, shape (n_frames,).
    :raises OodalError: if one was left out: what nobody looked at is not safe.
    """
    missing = sorted(set(range(len(frames))) - set(index.tolist()))
    if missing:
        step = frames[missing[0]].info['step']
        raise OodalError(
            f'the frame of step {step} could not be graded ({len(missing)} of {len(frames)} frames): nothing says that '
            'the run is safe there; see `failures` in the results of the latents job'
        )
    graded = []
    for frame, start, stop in zip(frames, offsets[:-1], offsets[1:], strict=True):
        atoms = frame.copy()
        atoms.set_array('gamma', np.asarray(gamma[start:stop], dtype=np.float64))
        graded.append(atoms)
    return graded


def judge_frames(
    frames: Sequence[Atoms], md: Verdict, *, gamma_select: float, gamma_break: float, gamma_ceiling: float
) -> Verdict:
    """Say how a segment would have ended, had its frames been graded at once.

    What came after the first frame over ``gamma_break`` counts for nothing: it was run with a potential that is
    wrong.

    :param frames: graded snapshots in the order of MD.
    :param md: what the files of the segment say.
    """
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
        last_valid_step=md.last_valid_step,
        worst_atoms=() if candidate is None else _worst_atoms(candidate[1], gamma_select),
    )


def usable_frames(frames: Sequence[Atoms], verdict: Verdict, gamma_select: float, gamma_ceiling: float) -> list[Atoms]:
    """Return the frames worth keeping: over ``gamma_select``, physical, and not after the one to learn from."""
    end = np.inf if verdict.candidate_step is None else verdict.candidate_step
    return [
        atoms
        for atoms in frames
        if gamma_select < atoms.arrays['gamma'].max() <= gamma_ceiling and atoms.info['step'] <= end
    ]


def _worst_atoms(atoms: Atoms, threshold: float, count: int = 10) -> tuple[tuple[int, float], ...]:
    gamma = atoms.arrays['gamma']
    order = np.argsort(-gamma, kind='stable')[:count]
    return tuple((int(i), float(gamma[i])) for i in order if gamma[i] > threshold)
