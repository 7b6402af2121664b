"""From the snapshots of one walker to its candidates for the DFT queue, and a line for every centre considered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.learn.ace_evaluate import AceEvaluator, load_inverse_active_set

from .centres import worst_centres
from .cluster import cut_each
from .fidelity import check_fidelity
from .selection import Decision, content_key, select_by_maxvol
from .settings import CarveSettings, SelectSettings


@dataclass(frozen=True)
class Candidates:
    """Clusters, and for every centre that was considered its ``step``, ``centre``, ``gamma``, ``taken``, ``reason``."""

    clusters: tuple[Atoms, ...]
    decisions: tuple[dict[str, Any], ...]


def cut_candidates(
    snapshots: Sequence[Atoms], yaml: Path, asi: Path, settings: CarveSettings, gamma_break: float = np.inf
) -> Candidates:
    """Cut clusters around the worst atoms of the last frames that are still physical.

    :param snapshots: frames in the order of MD, with ``arrays['gamma']`` and ``info['step']``.
    :param yaml: B-basis of the potential that ran the MD.
    :param asi: its active set.
    :param gamma_break: buffer atoms above it are counted in each cluster.
    """
    ace = AceEvaluator(yaml, asi)
    cut = settings.for_cutoff(ace.cutoff)
    physical = [frame for frame in snapshots if frame.arrays['gamma'].max() <= settings.gamma_ceiling]
    clusters: list[Atoms] = []
    decisions: list[dict[str, Any]] = []
    for frame in physical[-settings.snapshots :]:
        centres = worst_centres(
            frame,
            gamma_min=settings.gamma_select,
            max_centres=settings.centres_per_snapshot,
            min_separation=settings.min_separation,
        )
        for centre, found in zip(centres, cut_each(frame, centres, cut), strict=True):
            cluster, reason = _judge(found, ace, settings, gamma_break)
            if cluster is not None:
                clusters.append(cluster)
            decisions.append(
                {
                    'step': int(frame.info['step']),
                    'centre': centre,
                    'gamma': float(frame.arrays['gamma'][centre]),
                    'taken': cluster is not None,
                    'reason': reason,
                }
            )
    return Candidates(tuple(clusters), tuple(decisions))


def _judge(
    found: Atoms | OodalError, ace: AceEvaluator, settings: CarveSettings, gamma_break: float
) -> tuple[Atoms | None, str]:
    """Return a cluster that shows the failure it was cut for, or None, and why."""
    if isinstance(found, OodalError):
        return None, str(found)
    fidelity = check_fidelity(
        found,
        ace.gamma,
        gamma_break=gamma_break,
        relative_tolerance=settings.tolerance,
        absolute_tolerance=settings.tolerance,
    )
    if not fidelity.faithful and settings.unfaithful == 'refuse':
        return None, fidelity.message
    return found, fidelity.message


def choose_clusters(clusters: Sequence[Atoms], yaml: Path, asi: Path, settings: SelectSettings) -> list[Decision]:
    """Choose among the candidates of all walkers, D-optimally against the active set of the potential.

    :param clusters: candidates; atom 0 is the centre.
    :return: one decision a candidate, in their order.
    """
    ace = AceEvaluator(yaml)
    return select_by_maxvol(
        [ace.projections(cluster, [0])[0] for cluster in clusters],
        [str(cluster.symbols[0]) for cluster in clusters],
        load_inverse_active_set(asi),
        max_select=settings.max_clusters,
        gamma_min=settings.gamma_min,
        gamma_ceiling=settings.gamma_ceiling,
        tol=settings.tolerance,
        duplicate_tolerance=settings.duplicate_tolerance,
        keys=[content_key(cluster) for cluster in clusters],
    )
