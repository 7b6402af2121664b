"""Labelled sets of a long campaign: those of many rounds become one input of the processes that need them all."""

from __future__ import annotations

from collections.abc import Mapping

from aiida_oodal.calculations.labels import pack_labels
from aiida_oodal.data import StructureSetData
from aiida_oodal.workchains.resuming import ResumingWorkChain

#: So many sets of a kind become one.
PACK = 10
#: Beginnings of the names of sets that are packed with each other: what a campaign began with, its rounds, its audits.
_KINDS = ('initial', 'round', 'audit')
#: Beginning of the names of packs.
_PACK = 'pack'


def is_kind(name: str, kind: str) -> bool:
    """Tell whether a set, or all sets of a pack, are of a kind."""
    return name.removeprefix(f'{_PACK}_').startswith(f'{kind}_')


class PacksSets(ResumingWorkChain):
    """A WorkChain that keeps labelled sets by name, ``round_1``, ``round_2``, ..., and packs them.

    AiiDA looks at, links and writes down each input of each process: without packs a round of a campaign would take
    longer with each round before it. A set is packed once.
    """

    def pack_sets(self, what: str, sets: Mapping[str, StructureSetData]) -> dict[str, StructureSetData]:
        """Return sets with packs in the place of those that are many.

        :param what: the sets are, for the label of the calls.
        :param sets: with the packs of earlier calls, in the order in which they came.
        """
        packed = dict(sets)
        for kind in _KINDS:
            single = [name for name in packed if name.startswith(f'{kind}_')]
            for first in range(0, len(single) - PACK + 1, PACK):
                chosen = {name: packed.pop(name) for name in single[first : first + PACK]}
                number = 1 + sum(name.startswith(f'{_PACK}_{kind}_') for name in packed)
                name = f'{_PACK}_{kind}_{number}'
                packed[name] = self.result_of(f'{what}_{name}', pack_labels, **chosen)
        return packed
