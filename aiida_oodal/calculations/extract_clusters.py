"""Cut the candidates out of the snapshots of one walker."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import AcePotentialData, ClusterData, StructureSetData
from aiida_oodal.engine.carve.candidates import cut_candidates
from aiida_oodal.engine.carve.settings import CarveSettings


@calcfunction
def extract_clusters(snapshots: StructureSetData, potential: AcePotentialData, settings: orm.Dict) -> dict[str, Any]:
    """Return ``clusters`` (by ``c<number>``) around the worst atoms, and ``carving``, a line for every centre.

    :param snapshots: frames with gamma in the order of MD.
    :param potential: the potential that ran the MD.
    :param settings: fields of :class:`aiida_oodal.engine.carve.settings.CarveSettings`.
    """
    with potential.as_files() as (yaml, asi):
        found = cut_candidates(list(snapshots), yaml, asi, CarveSettings.load(settings.get_dict()))
    clusters = {f'c{index}': ClusterData(cluster) for index, cluster in enumerate(found.clusters)}
    return {'clusters': clusters, 'carving': orm.Dict({'centres': list(found.decisions)})}


def validate_carve_settings(node: orm.Dict, _: Any) -> str | None:
    """Refuse wrong settings at submission."""
    return CarveSettings.check(node.get_dict())
