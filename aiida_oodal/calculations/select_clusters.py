"""Choose among the candidates of all walkers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import AcePotentialData, ClusterData
from aiida_oodal.engine.carve.candidates import choose_clusters
from aiida_oodal.engine.carve.settings import SelectSettings


@calcfunction
def select_clusters(potential: AcePotentialData, settings: orm.Dict, **clusters: ClusterData) -> orm.Dict:
    """Return ``chosen``, the keys of the clusters to label in order of need, and ``decisions``, a reason for each.

    :param potential: the potential whose active set the candidates are held against.
    :param settings: fields of :class:`aiida_oodal.engine.carve.settings.SelectSettings`.
    :param clusters: the candidates by any key.
    """
    keys = sorted(clusters)
    with potential.as_files() as (yaml, asi):
        cells = [clusters[key].get_atoms() for key in keys]
        decisions = choose_clusters(cells, yaml, asi, SelectSettings.load(settings.get_dict()))
    taken = sorted((decision for decision in decisions if decision.rank is not None), key=lambda d: d.rank or 0)
    return orm.Dict(
        {
            'chosen': [keys[decision.index] for decision in taken],
            'decisions': {keys[decision.index]: asdict(decision) for decision in decisions},
        }
    )


def validate_select_settings(node: orm.Dict, _: Any) -> str | None:
    """Refuse wrong settings at submission."""
    return SelectSettings.check(node.get_dict())
