"""Make cold, slightly strained crystals, on which a first potential can be trained."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.label.crystals import strained_crystals


@calcfunction
def make_crystals(settings: orm.Dict) -> StructureSetData:
    """Return supercells of an element.

    :param settings: arguments of :func:`aiida_oodal.engine.label.crystals.strained_crystals`.
    """
    return StructureSetData(strained_crystals(**settings.get_dict()))
