"""Grade the snapshots of MD that nothing watched."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import LatentsData, OodReferenceData, StructureSetData, open_ensemble
from aiida_oodal.engine.md.outcome import Outcome, Verdict
from aiida_oodal.engine.md.segments import grade_frames, judge_frames, usable_frames
from aiida_oodal.engine.md.settings import MdSettings

from .explained import explained


@calcfunction
@explained
def grade_segment(
    results: orm.Dict,
    series: orm.ArrayData,
    snapshots: StructureSetData,
    settings: orm.Dict,
    reference: OodReferenceData,
    level: orm.Float,
    **latents: LatentsData,
) -> dict[str, Any]:
    """Return ``results``, ``series`` and, where frames passed gamma_select, ``snapshots``, as a watched run gives them.

    :param results: verdict of the segment, from its files.
    :param series: its thermo columns; gets ``max_gamma``, NaN between snapshots.
    :param snapshots: its frames.
    :param settings: fields of :class:`aiida_oodal.engine.md.settings.MdSettings`.
    :param reference: fitted on latents of the models that ``latents`` are of.
    :param level: share of the held-out atoms whose gamma is below 1.
    :param latents: of the snapshots, one for each model, by any key.
    """
    limits = MdSettings.load(settings.get_dict())
    fitted = reference.get_reference()
    with open_ensemble(latents.values()) as ensemble:
        rows = dict(zip(ensemble.labels, ensemble.latents, strict=True))
        gamma = fitted.gamma(ensemble.numbers, [rows[label][:] for label in fitted.labels], level=level.value)
        frames = grade_frames(list(snapshots), gamma, ensemble.offsets, ensemble.structure_index)
    fields = results.get_dict()
    verdict = judge_frames(
        frames,
        Verdict(**{**fields, 'outcome': Outcome(fields['outcome'])}),
        gamma_select=limits.gamma_select,
        gamma_break=limits.gamma_break,
        gamma_ceiling=limits.gamma_ceiling,
    )
    columns = dict(series.arrays)
    columns['max_gamma'] = np.full(len(columns['step']), np.nan)
    of_step = {int(atoms.info['step']): float(atoms.arrays['gamma'].max()) for atoms in frames}
    for row, step in enumerate(columns['step']):
        columns['max_gamma'][row] = of_step.get(int(step), np.nan)
    outputs: dict[str, Any] = {
        'results': orm.Dict({**dataclasses.asdict(verdict), 'outcome': verdict.outcome.value}),
        'series': orm.ArrayData(columns),
    }
    if kept := usable_frames(frames, verdict, limits.gamma_select, limits.gamma_ceiling):
        outputs['snapshots'] = StructureSetData(kept)
    return outputs
