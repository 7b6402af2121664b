"""Join the outputs of the runs of one MD that was interrupted."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.md.segments import join_frames, join_results
from aiida_oodal.engine.md.thermo import join_tables


@calcfunction
def join_md_runs(**runs: Any) -> dict[str, Any]:
    """Return ``results``, ``series`` and, where there are any, ``snapshots`` of runs that went on from one another.

    :param runs: outputs of each run by a name that sorts in their order: ``results``, ``series``, ``snapshots``.
    """
    parts = [runs[name] for name in sorted(runs)]
    tables = [{'Step' if k == 'step' else k: v for k, v in part['series'].arrays.items()} for part in parts]
    starts = [int(table['Step'][0]) for table in tables]
    series = {'step' if k == 'Step' else k: v for k, v in join_tables(tables).items()}
    gamma = series.get('max_gamma', np.empty(0))
    max_gamma = float(np.nanmax(gamma)) if np.isfinite(gamma).any() else None
    frames = join_frames([list(part['snapshots']) if 'snapshots' in part else [] for part in parts], starts)
    results = join_results([part['results'].get_dict() for part in parts], starts, max_gamma)
    outputs: dict[str, Any] = {'results': orm.Dict(results), 'series': orm.ArrayData(series)}
    if frames:
        outputs['snapshots'] = StructureSetData(frames)
    return outputs
