"""Take structures out of sets, and put labels into sets."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import calcfunction
from aiida.engine.processes.functions import ProcessFunctionType
from ase import Atoms

from aiida_oodal.calculations.explained import explained
from aiida_oodal.data import StructureSetData
from aiida_oodal.engine.content import choose_heldout
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import ENERGY, FORCES, LABELLED_SET, LEVEL, QUEUE_KEY, STRESS

#: What a label is, beside the forces.
_VALUES = (ENERGY, STRESS, QUEUE_KEY, LEVEL)


@calcfunction
def split_structures(structures: StructureSetData) -> dict[str, orm.StructureData]:
    """Return every structure of a set as a node of its own, ``s0000``, ``s0001``, ..., as the queue wants them."""
    nodes = {}
    for index, atoms in enumerate(structures):
        atoms.set_tags(0)  # tags would turn the kinds into Al1, Al2, ...
        nodes[f's{index:04d}'] = orm.StructureData(ase=atoms)
    return nodes


@calcfunction
def copy_structures(**structures: orm.StructureData) -> dict[str, orm.StructureData]:
    """Return a copy of every structure under its key: a node is one entry of the queue, at one level of theory."""
    return {key: node.clone() for key, node in structures.items()}


@calcfunction
@explained
def hold_out(fraction: orm.Float, **sets: StructureSetData) -> dict[str, StructureSetData]:
    """Return ``training`` and ``heldout``, the structures of all sets.

    In every set, those of a pack each by itself, the structures with the smallest hashes of their content are held out,
    so that a set is always split in the same way. Isolated atoms, which give E0, are never held out.

    :param fraction: share of each set, rounded to the nearest number of structures.
    """
    parts: dict[str, list[Atoms]] = {'training': [], 'heldout': []}
    for name, node in sorted(sets.items()):
        for part in node.get_set().split(LABELLED_SET, name).values():
            frames = list(part)
            chosen = choose_heldout(frames, fraction.value)
            for row, atoms in enumerate(frames):
                atoms.info.pop(LABELLED_SET, None)
                parts['heldout' if row in chosen else 'training'].append(atoms)
    for name, frames in parts.items():
        if not frames:
            count = sum(len(frames) for frames in parts.values())
            raise OodalError(
                f'{fraction.value:g} of {count} structures leaves none for the {name} set: label more structures, or '
                'change heldout_fraction'
            )
    return {name: StructureSetData(frames) for name, frames in parts.items()}


@calcfunction
@explained
def merge_labels(**sets: StructureSetData) -> StructureSetData:
    """Return the structures of all sets as one, sets in the order of their keys; such as the labels of a campaign.

    An entry of the queue that is in several sets is taken once.
    """
    if not sets:
        raise OodalError('there are no sets to merge: give at least one, by any key')
    frames, seen = [], set()
    for _, node in sorted(sets.items()):
        for atoms in node:
            key = atoms.info.get(QUEUE_KEY)
            if key is None or key not in seen:
                frames.append(atoms)
            seen.add(key)
    return StructureSetData(frames)


@calcfunction
def pack_labels(**sets: StructureSetData) -> StructureSetData:
    """Return several sets as one, in which each structure names its set, so that ``split`` gets them back.

    Every input of a process costs AiiDA tens of milliseconds: a campaign packs the labels of rounds that are over.
    """
    frames = []
    for name, node in sorted(sets.items()):
        for atoms in node:
            atoms.info[LABELLED_SET] = name
            frames.append(atoms)
    return StructureSetData(frames)


def unpack(name: str, node: StructureSetData) -> dict[str, StructureSetData]:
    """Return the sets that a set was made of by :func:`pack_labels`, by their names; else itself by its own."""
    return _find_parts(node, pack_labels) or {name: node}


def unmerge(node: StructureSetData) -> list[StructureSetData]:
    """Return the sets that a set was put together of, by any function of this module; itself if by none."""
    parts = _find_parts(node, merge_labels, hold_out, pack_labels)
    return [each for _, part in sorted(parts.items()) for each in unmerge(part)] if parts else [node]


def _find_parts(node: StructureSetData, *functions: ProcessFunctionType[..., Any, Any]) -> dict[str, StructureSetData]:
    """Return the sets that one of some functions made a set of, by their names; none if another did."""
    creator = node.creator
    if creator is None or creator.process_label not in [function.__name__ for function in functions]:
        return {}
    links = creator.base.links.get_incoming(node_class=StructureSetData, link_type=LinkType.INPUT_CALC).all()
    return {str(link.link_label): link.node for link in links}


@calcfunction
@explained
def take_labels(
    keys: orm.List, structures: StructureSetData | None = None, **labels: StructureSetData
) -> StructureSetData:
    """Return the labelled structures of some queue entries, in the order of their keys.

    :param keys: of the entries; several may have the same.
    :param structures: one for each key, in the same order; they are returned with their own arrays and values, and the
        labels. A structure whose key is None has no label and is left out.
    :param labels: sets in which the entries are found by ``info['queue_key']``, by any key.
    """
    found = {atoms.info[QUEUE_KEY]: atoms for node in labels.values() for atoms in node}
    if missing := [key for key in keys if key is not None and key not in found]:
        raise OodalError(f'the labelled sets have no structure of queue entry {missing[0]}')
    if structures is None:
        return StructureSetData(found[key].copy() for key in keys)
    if structures.n_structures != len(keys):
        raise OodalError(f'{structures.n_structures} structures and {len(keys)} keys: one of each is needed')
    frames = []
    for atoms, key in zip(structures, keys, strict=True):
        if key is not None:
            label = found[key]
            atoms.info.update({name: label.info[name] for name in _VALUES if name in label.info})
            atoms.arrays[FORCES] = label.arrays[FORCES]
            frames.append(atoms)
    return StructureSetData(frames)
