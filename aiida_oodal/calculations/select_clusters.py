"""Choose among the candidates of all walkers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.data import AcePotentialData, ClusterData
from aiida_oodal.engine.carve.candidates import choose_clusters
from aiida_oodal.engine.carve.settings import SelectSettings

from .explained import explained


@calcfunction
@explained
def select_clusters(
    settings: orm.Dict, potential: AcePotentialData | None = None, **clusters: Mapping[str, ClusterData]
) -> orm.Dict:
    """Return ``chosen``, the keys of the clusters to label in order of need, and ``decisions``, a reason for each.

    :param settings: fields of :class:`aiida_oodal.engine.carve.settings.SelectSettings`.
    :param potential: the ACE potential whose active set the candidates are held against; none where they are chosen by
        the spread of their latents.
    :param clusters: ``candidates`` and, where there are some, ``queued``: what the queue holds already; each by any
        key, e.g. ``{'c0': node, ...}``.
    """
    candidates = dict(sorted(clusters.get('candidates', {}).items()))
    keys = list(candidates)
    with ExitStack() as stack:
        files = None if potential is None else stack.enter_context(potential.as_files())
        decisions = choose_clusters(
            [cluster.get_atoms() for cluster in candidates.values()],
            SelectSettings.load(settings.get_dict()),
            files,
            [cluster.get_atoms() for cluster in clusters.get('queued', {}).values()],
        )
    taken = sorted((decision for decision in decisions if decision.rank is not None), key=lambda d: d.rank or 0)
    opinions = {key: cluster.base.attributes.get('second_opinion', None) for key, cluster in candidates.items()}
    return orm.Dict(
        {
            'chosen': [keys[decision.index] for decision in taken],
            'decisions': {
                keys[decision.index]: asdict(decision) | {'second_opinion': opinions[keys[decision.index]]}
                for decision in decisions
            },
        }
    )


def validate_select_settings(node: orm.Dict, _: Any) -> str | None:
    """Refuse wrong settings at submission."""
    return SelectSettings.check(node.get_dict())
