"""The port of the thresholds of gamma, the same for every process that has it."""

from __future__ import annotations

from aiida import orm
from aiida.engine import ProcessSpec

from aiida_oodal.engine.thresholds import Thresholds


def define_thresholds(spec: ProcessSpec) -> None:
    """Define `thresholds`, by default those of :class:`.Thresholds`."""
    spec.input(
        'thresholds',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Dict({}),
        validator=lambda node, _: Thresholds.check(node.get_dict()),
        help='Fields of `aiida_oodal.engine.thresholds.Thresholds`: gamma_select, gamma_break, gamma_ceiling.',
    )
