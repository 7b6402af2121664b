"""Check that the labels of a training set are of one level of theory, unless the user allows several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.label.level import LevelOfTheory
from aiida_oodal.engine.label.offset import fit_offset
from aiida_oodal.engine.labels import LEVEL
from aiida_oodal.queue.listing import describe_level


def count_levels(sets: Iterable[StructureSetData]) -> Counter[str]:
    """Return how many structures have labels of each level of theory, by its hash; '' counts those without a level."""
    counts: Counter[str] = Counter()
    for node in sets:
        if LEVEL in node.base.attributes.get('properties'):
            counts.update(str(level) for level in node.get_set().info[LEVEL])
        else:
            counts[''] += node.n_structures
    return counts


def check_levels(
    sets: Iterable[StructureSetData], *, mix: bool, new: LevelOfTheory | None = None
) -> tuple[str | None, list[str]]:
    """Return why labels may not be trained on together, or None, and sentences for the report.

    :param mix: whether several levels are allowed.
    :param new: level of the labels that will be added.
    :return: a reason to refuse them, or None; and sentences for the report.
    """
    nodes = list({node.uuid: node for node in sets}.values())
    counts = count_levels(nodes)
    levels = [level for level in counts if level]
    if new is not None and new.hash not in levels:
        levels.append(new.hash)
    doubts = []
    if counts[''] and levels:
        doubts.append(f'{counts[""]} labels name no level of theory, so it is not known whether they match the others')
    if len(levels) < 2:
        return None, doubts
    words = {level: describe_level(level) for level in levels}
    if new is not None:
        words[new.hash] = new.text
    named = ', '.join(f'{words[level]!r} ({counts[level] or "to come"})' for level in levels)
    sentence = f'labels of {len(levels)} levels of theory: {named}'
    for other in levels[1:]:
        offset = _fit(nodes, levels[0], other)
        if offset is not None:
            sentence += f'; from {words[levels[0]]!r} to {words[other]!r} {offset}'
    if mix:
        return None, [*doubts, sentence]
    return f'{sentence}. They are not learned together unless `mix_levels` is true; or label all at one level', doubts


def validate_levels(inputs: Mapping[str, Any], ports: Mapping[str, Any]) -> str | None:
    """Refuse labels of several levels in a trainer; ports that a caller excluded are filled in later."""
    if not {'labels', 'mix_levels'} <= set(ports):
        return None
    mix = 'mix_levels' in inputs and bool(inputs['mix_levels'].value)
    return check_levels(inputs.get('labels', {}).values(), mix=mix)[0]


def _fit(nodes: Iterable[StructureSetData], first: str, second: str) -> Any:
    frames: dict[str, list[Any]] = {first: [], second: []}
    for node in nodes:
        if LEVEL in node.base.attributes.get('properties'):
            for atoms in node:
                if atoms.info.get(LEVEL) in frames:
                    frames[atoms.info[LEVEL]].append(atoms)
    return fit_offset(frames[first], frames[second])
