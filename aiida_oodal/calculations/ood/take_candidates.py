"""Take the structures out of a set that were chosen as candidates."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.calculations.explained import explained
from aiida_oodal.data import StructureSetData


@calcfunction
@explained
def take_candidates(structures: StructureSetData, decisions: orm.Dict) -> StructureSetData:
    """Return the candidates in order of preference, each with its ``score``, ``rank`` and ``set_index``.

    :param structures: the set that was scored.
    :param decisions: as ``oodal.score_sets`` gives them.
    """
    content = structures.get_set()
    frames = []
    for entry in decisions['taken']:
        atoms = content[entry['structure']]
        atoms.info |= {'score': entry['score'], 'rank': entry['rank'], 'set_index': entry['structure']}
        frames.append(atoms)
    return StructureSetData(frames)
