"""Cut the cells that an ensemble is to look at."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import AcePotentialData, StructureSetData
from aiida_oodal.engine.carve.candidates import cells_of, cut_candidates
from aiida_oodal.engine.carve.settings import CarveSettings

from .explained import explained


@calcfunction
@explained
def cut_clusters(
    snapshots: StructureSetData, settings: orm.Dict, potential: AcePotentialData | None = None
) -> dict[str, StructureSetData]:
    """Return ``cells``, the very ones that ``extract_clusters`` judges; nothing where none could be cut.

    :param snapshots: frames with gamma in the order of MD.
    :param settings: fields of :class:`aiida_oodal.engine.carve.settings.CarveSettings`.
    :param potential: the ACE potential that ran the MD, if one did.
    """
    cutoff = None if potential is None else potential.cutoff
    cells = cells_of(cut_candidates(list(snapshots), CarveSettings.load(settings.get_dict()), cutoff))
    return {'cells': StructureSetData(cells)} if cells else {}
