"""Import labels that somebody else computed, with provenance from both the structures and the given file."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_oodal.calculations.explained import explained
from aiida_oodal.data import StructureSetData, get_structures
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.label.given import take_label
from aiida_oodal.engine.label.level import OUTSIDE, TEXT_LENGTH, LevelOfTheory
from aiida_oodal.engine.labels import LEVEL, QUEUE_KEY


@calcfunction
@explained
def import_labels(labelled: StructureSetData, level: orm.Str, **structures: orm.StructureData) -> StructureSetData:
    """Return structures of the queue with the labels that a file gives them, in their own order of atoms.

    :param labelled: what was in the file; each structure has ``info['queue_key']``, a label and the geometry that was
        asked for.
    :param level: what computed the labels, in words.
    :param structures: by key of their queue entry.
    """
    given = {atoms.info[QUEUE_KEY]: atoms for atoms in labelled}
    frames = []
    for key, node in sorted(structures.items()):
        if key not in given:
            raise OodalError(f'the labelled set has no structure of queue entry {key}')
        (asked,) = get_structures(node)
        atoms = take_label(asked, given[key])
        atoms.info |= {QUEUE_KEY: key, LEVEL: get_outside_level(level.value).hash}
        frames.append(atoms)
    return StructureSetData(frames)


def get_outside_level(text: str) -> LevelOfTheory:
    """Return the level of theory of labels that somebody else computes.

    :param text: what computes them, in words.
    :raises OodalError: if the text is empty or too long.
    """
    words = ' '.join(text.split())
    if not 0 < len(words) <= TEXT_LENGTH:
        raise OodalError(
            f'level = {text!r}: say what computes the labels in 1 to {TEXT_LENGTH} letters, such as "PBE, ORCA 6.0"'
        )
    return LevelOfTheory(OUTSIDE, {'level': words}, words)
