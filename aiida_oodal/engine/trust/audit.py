"""The audit of walkers that ran to their end: which frames are labelled, and whether the potential was right there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.options import Options, option

if TYPE_CHECKING:
    from ase import Atoms

#: ``info`` of an audited structure: the name of its walker.
WALKER = 'walker'
_MILLI = 1000.0


@dataclass(frozen=True)
class AuditSettings(Options):
    """When the end of a walker is believed."""

    TITLE: ClassVar[str] = 'audit'

    frames: int = option(
        2,
        'Frames of each walker that are labelled: its last one, and those along its way with the largest gamma, as far '
        'as frames passed gamma_select. 0: no audit, and a walker that ran to its end is believed.',
        ge=0,
        le=100,
    )
    tolerance: float = option(
        0.1,
        'A walker passes if the RMSE of the force components is not above this in any of its frames, eV/angstrom; of '
        'clusters the core atoms count.',
        gt=0.0,
        le=100.0,
    )
    whole_atoms: int = option(
        200, 'Frames of walkers with more atoms are not labelled whole: clusters are cut from the last one.', ge=1
    )
    centres: int = option(
        3, 'Clusters that are cut from a large frame, around its atoms of largest gamma.', ge=1, le=100
    )
    max_labels: int = option(
        40, 'The budget: when the audits of a campaign have had so many structures labelled, there is no other.', ge=1
    )
    least_density: float = option(
        0.65,
        'Smallest density, and smallest number of neighbours per atom (which count the less the farther), of the last '
        'frame relative to the first.',
        ge=0.0,
        le=1.0,
    )
    most_density: float = option(1.5, 'Largest density, likewise.', ge=1.0, le=100.0)
    lonely_atoms: int = option(
        0, 'Atoms without a neighbour within the cutoff that the last frame may have more than the first.', ge=0
    )

    def __post_init__(self) -> None:
        if self.max_labels < self.frames:
            raise OodalError(f'max_labels = {self.max_labels} does not pay for frames = {self.frames} of one walker')


def choose_frames(runs: Mapping[str, Mapping[str, Sequence[Atoms]]], count: int) -> list[Atoms]:
    """Choose the frames of each walker that are labelled.

    :param runs: by walker ``final``, its last frame, and where there are any ``snapshots``, with ``gamma``.
    :param count: frames of each walker.
    :return: the frames without velocities; they have ``walker`` and ``step`` in ``info``, and ``gamma`` if it is known.
    """
    from ase import Atoms  # not at the top: who only reads verdicts, as `campaign status` does, need not wait for it

    chosen = []
    for name, run in runs.items():
        final = run['final'][-1]
        along = [frame for frame in run.get('snapshots', ()) if frame.info['step'] != final.info['step']]
        along.sort(key=lambda frame: -float(frame.arrays['gamma'].max()))
        taken = [*along[: count - 1], final]
        for frame in sorted(taken, key=lambda frame: int(frame.info['step'])):
            bare = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
            if 'gamma' in frame.arrays:
                bare.set_array('gamma', frame.arrays['gamma'])
            bare.info.update({WALKER: name, 'step': int(frame.info['step'])})
            chosen.append(bare)
    return chosen


def judge_walkers(
    judged: Mapping[str, Sequence[Mapping[str, Any]]],
    volumes: Mapping[str, ArrayLike],
    settings: AuditSettings,
    *,
    matter: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Find out which walkers pass the audit.

    :param judged: by walker the results of :func:`.judge_structures` for its frames or clusters.
    :param volumes: by walker the volume of its cell along its run, angstrom^3.
    :param matter: by walker what :func:`.compare_matter` found; of those whose last frame stayed where MD ran, nothing.
    :param failures: by walker the reason why a frame has no label.
    :return: by walker ``passed``, ``reasons`` (sentences, empty if it passed) and ``frames``, what was judged.
    """
    verdicts = {}
    for name, volume in volumes.items():
        frames, reasons = list(judged.get(name, ())), []
        density = float(np.asarray(volume)[0] / np.asarray(volume)[-1])
        if not settings.least_density <= density <= settings.most_density:
            reasons.append(
                f'its density at the end is {density:.2f} times that at its start (allowed: {settings.least_density:g} '
                f'to {settings.most_density:g}): matter evaporated or collapsed'
            )
        if name in matter:
            reasons += _find_lost(matter[name], settings)
        if not frames:
            reasons.append(f'none of its frames has a label: {failures.get(name, "see its labeller")}')
        reasons += _find_errors(frames, settings)
        verdicts[name] = {'passed': not reasons, 'reasons': reasons, 'frames': frames}
    return verdicts


def _find_lost(matter: Mapping[str, Any], settings: AuditSettings) -> list[str]:
    """Say that matter evaporated or collapsed.

    :param matter: what :func:`.compare_matter` found.
    """
    reasons = []
    if matter['lonely'] > matter['lonely_before'] + settings.lonely_atoms:
        reasons.append(f'{matter["lonely"]} atoms have no neighbour within the cutoff at its end')
    crowd = matter['neighbours']
    if crowd is not None and not settings.least_density <= crowd <= settings.most_density:
        reasons.append(
            f'an atom has at its end {crowd:.2f} times the neighbours that it had at its start (allowed: '
            f'{settings.least_density:g} to {settings.most_density:g}): matter evaporated or collapsed'
        )
    return reasons


def _find_errors(frames: Sequence[Mapping[str, Any]], settings: AuditSettings) -> list[str]:
    """Say in how many structures the force error is above the tolerance, and where it is largest."""
    wrong = [frame for frame in frames if frame['force_rmse'] > _MILLI * settings.tolerance]
    if not wrong:
        return []
    worst = max(wrong, key=lambda frame: float(frame['force_rmse']))
    return [
        f'the force RMSE is {worst["force_rmse"]:.3g} meV/angstrom at step {worst["step"]} (tolerance '
        f'{_MILLI * settings.tolerance:g}), too large in {len(wrong)} of {len(frames)}'
    ]


def explain_verdicts(verdicts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each walker."""
    sentences = []
    for name, verdict in verdicts.items():
        errors = [frame['force_rmse'] for frame in verdict['frames']]
        largest = (
            f'force RMSE of a frame at most {max(errors):.0f} meV/angstrom, {len(errors)} labelled' if errors else ''
        )
        said = '; '.join(verdict['reasons']) or largest
        sentences.append(f'walker {name!r} {"passed" if verdict["passed"] else "failed"} the audit: {said}')
    return sentences
