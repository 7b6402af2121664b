"""Which latents scores and references were made from, as the links of the graph say."""

from __future__ import annotations

from aiida import orm
from aiida.common.links import LinkType

from aiida_oodal.data import LatentsData

#: What the links of latents begin with: those that ``oodal.fit_reference`` was fitted to, those of a set that
#: ``oodal.score_sets`` scored.
FITTED_TO, SCORED = 'reference__', 'sets__{}__'


def latents_of(node: orm.Data, prefix: str = '') -> list[LatentsData]:
    """Return the latents that scores or a reference were made from.

    :param prefix: how the links of the set begin; screenings of an older version scored each set by itself.
    """
    if node.creator is None:
        return []
    links = node.creator.base.links.get_incoming(node_class=LatentsData, link_type=LinkType.INPUT_CALC).all()
    own = [link.node for link in links if link.link_label.startswith(prefix)]
    nested = any('__' in link.link_label for link in links)
    return own if own or nested else [link.node for link in links]
