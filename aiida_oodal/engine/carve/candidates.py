"""From the snapshots of one walker to its candidates for the DFT queue, and a line for every centre considered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.ace_evaluate import AceEvaluator, load_inverse_active_set

from .centres import worst_centres
from .cluster import cut_each
from .fidelity import GradeFunction, add_second_opinion, check_fidelity
from .opinions import Opinion
from .selection import Decision, content_key, select_by_maxvol, select_by_spread
from .settings import CarveSettings, SelectSettings

#: What a decision tells of a cluster, beyond whether it was taken and why.
_GRADES = ('gamma_cluster', 'faithful', 'buffer_above_break', 'score', 'score_threshold', 'second_opinion')


@dataclass(frozen=True)
class Attempt:
    """A centre, its gamma in the snapshot, and the cell that was cut around it, or why none could be."""

    step: int
    centre: int
    gamma: float
    cell: Atoms | OodalError


@dataclass(frozen=True)
class Candidates:
    """Clusters, and for every centre that was considered its ``step``, ``centre``, ``gamma``, ``taken``, ``reason``.

    What is known of the grades in the cell is in the decisions, too.
    """

    clusters: tuple[Atoms, ...]
    decisions: tuple[dict[str, Any], ...]


def cut_candidates(snapshots: Sequence[Atoms], settings: CarveSettings, cutoff: float | None) -> list[Attempt]:
    """Cut cells around the worst atoms of the last frames that are still physical.

    :param snapshots: frames in the order of MD, with ``arrays['gamma']`` and ``info['step']``.
    :param cutoff: of the potential that graded them, angstrom; None if the settings have it.
    :raises OodalError: if the cells would be too small for the potential.
    """
    cut = settings.for_cutoff(cutoff)
    physical = [frame for frame in snapshots if frame.arrays['gamma'].max() <= settings.gamma_ceiling]
    attempts: list[Attempt] = []
    for frame in physical[-settings.snapshots :]:
        centres = worst_centres(
            frame,
            gamma_min=settings.gamma_select,
            max_centres=settings.centres_per_snapshot,
            min_separation=settings.min_separation,
        )
        gamma = frame.arrays['gamma']
        attempts += [
            Attempt(int(frame.info['step']), centre, float(gamma[centre]), cell)
            for centre, cell in zip(centres, cut_each(frame, centres, cut), strict=True)
        ]
    return attempts


def cells_of(attempts: Sequence[Attempt]) -> list[Atoms]:
    """Return the cells that could be cut, in their order."""
    return [attempt.cell for attempt in attempts if isinstance(attempt.cell, Atoms)]


def judge_candidates(
    attempts: Sequence[Attempt],
    settings: CarveSettings,
    grade: GradeFunction | None = None,
    opinions: Sequence[Opinion | None] = (),
    gamma_break: float = np.inf,
) -> Candidates:
    """Take the cells that show the failure they were cut for.

    :param grade: gamma of the potential that graded the snapshots; None where the ensemble did that.
    :param opinions: of the ensemble, one a cell: a second one beside ``grade``, or the only one.
    :param gamma_break: buffer atoms above it are counted in each cluster.
    :raises OodalError: if nothing grades the cells.
    """
    cells = cells_of(attempts)
    if opinions and len(opinions) != len(cells):
        raise OodalError(f'{len(opinions)} opinions on {len(cells)} cells: the latents are of other cells')
    if cells and grade is None and not opinions:
        raise OodalError('nothing grades the cells: give the potential or the latents of the ensemble that ran MD')
    asked = iter(opinions or [None] * len(cells))
    clusters: list[Atoms] = []
    decisions: list[dict[str, Any]] = []
    for attempt in attempts:
        decision: dict[str, Any] = {'step': attempt.step, 'centre': attempt.centre, 'gamma': attempt.gamma}
        if isinstance(attempt.cell, OodalError):
            decision |= {'taken': False, 'reason': str(attempt.cell)}
        else:
            taken, reason = _judge(
                attempt.cell, attempt.gamma, settings, grade, next(asked), gamma_break, asked=bool(opinions)
            )
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
    grade: GradeFunction | None,
    opinion: Opinion | None,
    gamma_break: float,
    *,
    asked: bool,
) -> tuple[bool, str]:
    """Grade a cell, write the grades into it, and tell whether it is taken and why.

    :param asked: whether an ensemble was asked, whatever it said of this cell.
    """
    if grade is not None:
        gammas = grade(cell)
    elif opinion is not None:
        gammas = opinion.gamma
    else:
        return False, 'the ensemble could not evaluate the cell: see `failures` in the results of the latents job'
    fidelity = check_fidelity(
        cell,
        lambda _: gammas,
        gamma,
        gamma_break=gamma_break,
        relative_tolerance=settings.tolerance,
        absolute_tolerance=settings.tolerance,
    )
    reason = fidelity.message
    if opinion is not None:
        own_score = {'score': float(opinion.scores[0]), 'score_threshold': opinion.threshold}
        cell.info.update(own_score, descriptor=opinion.descriptor)
        if grade is not None:
            second = add_second_opinion(
                cell, opinion.scores, gamma_select=settings.gamma_select, score_threshold=opinion.threshold
            )
            reason += f'; {second.message}'
    elif asked:
        reason += '; the ensemble could not evaluate the cell'
    return fidelity.faithful or settings.unfaithful == 'flag', reason


def choose_clusters(
    clusters: Sequence[Atoms],
    settings: SelectSettings,
    potential: tuple[Path, Path] | None = None,
    queued: Sequence[Atoms] = (),
) -> list[Decision]:
    """Choose among the candidates of all walkers.

    :param clusters: candidates; atom 0 is the centre.
    :param potential: B-basis and active set that they are held against by MaxVol.
    :param queued: what is in the queue already: left out, and with a choice by spread kept away from.
    :return: one decision a candidate, in their order.
    :raises OodalError: if the way to choose lacks what it needs.
    """
    if not clusters:
        return []
    common: dict[str, Any] = {
        'max_select': settings.max_clusters,
        'duplicate_tolerance': settings.duplicate_tolerance,
        'keys': [content_key(cluster) for cluster in clusters],
        'known_keys': {content_key(cluster) for cluster in queued},
    }
    if settings.method == 'maxvol':
        if potential is None:
            raise OodalError(
                "select settings: method = 'maxvol' needs the active set of an ACE potential; choose clusters that an "
                "ensemble graded by 'farthest' or 'kmeans'"
            )
        ace = AceEvaluator(potential[0])
        return select_by_maxvol(
            [ace.projections(cluster, [0])[0] for cluster in clusters],
            [str(cluster.symbols[0]) for cluster in clusters],
            load_inverse_active_set(potential[1]),
            gamma_min=settings.gamma_min,
            gamma_ceiling=settings.gamma_ceiling,
            tol=settings.tolerance,
            **common,
        )
    seen = [row for row, cluster in enumerate(clusters) if 'descriptor' in cluster.info]
    if not seen:
        raise OodalError(
            'no candidate has a descriptor, because no ensemble looked at them: carve with an ensemble, or choose by '
            "method = 'maxvol'"
        )
    known = [cluster.info['descriptor'] for cluster in queued if 'descriptor' in cluster.info]
    unseen = 'no ensemble looked at it, and the choice is by latents'
    decisions = [Decision(row, False, unseen, cluster.info['gamma_cluster']) for row, cluster in enumerate(clusters)]
    for decision in select_by_spread(
        np.array([clusters[row].info['descriptor'] for row in seen]),
        [clusters[row].info['gamma_cluster'] for row in seen],
        method=settings.method,
        seed=settings.seed,
        score_min=settings.gamma_min,
        score_ceiling=settings.gamma_ceiling,
        known=np.array(known) if known else None,
        relative=True,
        **common | {'keys': [common['keys'][row] for row in seen]},
    ):
        decisions[seen[decision.index]] = replace(decision, index=seen[decision.index])
    return decisions
