"""Take the frames of walkers that an audit has labelled."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.trust.audit import choose_frames


@calcfunction
def take_audit_frames(frames: orm.Int, **walkers: Any) -> StructureSetData:
    """Return the frames of walkers that are labelled, each with ``walker``, ``step`` and ``gamma``.

    :param frames: of each walker.
    :param walkers: by name the outputs ``final`` and, where there are any, ``snapshots`` of its MD.
    """
    runs = {name: {key: list(node) for key, node in run.items()} for name, run in sorted(walkers.items())}
    return StructureSetData(choose_frames(runs, frames.value))
