"""Cut the candidates out of the snapshots of one walker."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import AcePotentialData, ClusterData, LatentsData, OodReferenceData, StructureSetData
from aiida_oodal.data.latents import open_ensemble
from aiida_oodal.engine.carve.candidates import cells_of, cut_candidates, judge_candidates
from aiida_oodal.engine.carve.opinions import Opinion, ask_ensemble
from aiida_oodal.engine.carve.settings import CarveSettings
from aiida_oodal.engine.learn.ace_evaluate import AceEvaluator

from .explained import explained


@calcfunction
@explained
def extract_clusters(
    snapshots: StructureSetData,
    settings: orm.Dict,
    potential: AcePotentialData | None = None,
    gamma_break: orm.Float | None = None,
    reference: OodReferenceData | None = None,
    level: orm.Float | None = None,
    **latents: LatentsData,
) -> dict[str, Any]:
    """Return ``clusters`` (by ``c<number>``) around the worst atoms, and ``carving``, a line for every centre.

    The cells are cut again from the snapshots, which costs milliseconds, so that clusters have the snapshots as their
    parents.

    :param snapshots: frames with gamma in the order of MD.
    :param settings: fields of :class:`aiida_oodal.engine.carve.settings.CarveSettings`.
    :param potential: the ACE potential that ran the MD; not given where an ensemble graded it.
    :param gamma_break: buffer atoms above it are counted.
    :param reference: fitted on latents of the models that ``latents`` are of.
    :param level: share of the held-out atoms whose score is below the threshold; 0.99 if not given.
    :param latents: of the cells of ``cut_clusters``, one for each model, by any key: the opinion of an ensemble, a
        second one beside that of the potential.
    """
    carve = CarveSettings.load(settings.get_dict())
    attempts = cut_candidates(list(snapshots), carve, None if potential is None else potential.cutoff)
    opinions: list[Opinion | None] = []
    with ExitStack() as stack:
        if reference is not None and latents:
            if potential is None:  # the settings said the cutoff; now the job has read it from the models
                carve.check_cutoff(max(node.base.attributes.get('cutoff') or 0.0 for node in latents.values()))
            ensemble = stack.enter_context(open_ensemble(latents.values()))
            share = 0.99 if level is None else level.value
            opinions = ask_ensemble(ensemble, reference.get_reference(), share, len(cells_of(attempts)))
        found = judge_candidates(
            attempts,
            carve,
            None if potential is None else AceEvaluator(*stack.enter_context(potential.as_files())).gamma,
            opinions,
            np.inf if gamma_break is None else gamma_break.value,
        )
    clusters = {f'c{index}': ClusterData(cluster) for index, cluster in enumerate(found.clusters)}
    return {'clusters': clusters, 'carving': orm.Dict({'centres': list(found.decisions)})}


def validate_carve_settings(node: orm.Dict, _: Any) -> str | None:
    """Refuse wrong settings at submission."""
    return CarveSettings.check(node.get_dict())
