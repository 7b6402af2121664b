"""Checks that latents, references and scores belong to the given models and structures.

A check says what is wrong, or returns None: the form that AiiDA's validators want.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.content import are_same, find_same, fingerprints
from aiida_oodal.engine.mace.model_file import check_head
from aiida_oodal.engine.ood.identity import ModelIdentity

from .latents import LatentsData
from .mace import MaceModelData
from .structures import StructureSetData

FloatArray = NDArray[np.float64]

#: What a user who knows better does, where there is such an input.
INSIST = 'If you know that they belong together, set `insist` to true'


def identify(node: MaceModelData | LatentsData) -> ModelIdentity:
    """Return which model a node holds or is of, as far as it is known."""
    return node.identity if isinstance(node, LatentsData) else ModelIdentity(sha256=node.sha256)


def check_members(models: Mapping[str, MaceModelData], head: str | None = None) -> str | None:
    """Refuse members of an ensemble that are one file, and models of several heads of which none is asked for.

    :param models: by label.
    :param head: the head that the settings of the latents ask for.
    """
    seen: dict[str, str] = {}
    for label, model in models.items():
        if other := seen.get(model.sha256):
            return (
                f'the models {other} and {label} are the same file (SHA-256 {model.sha256[:12]}...): they can never '
                'disagree, and every threshold would be zero. Give models that were trained from different seeds'
            )
        seen[model.sha256] = label
        if problem := check_head(model.heads, head, label):
            return problem
    return None


def compare_models(
    known: Mapping[str, ModelIdentity], given: Mapping[str, ModelIdentity], known_as: str, given_as: str
) -> str | None:
    """Refuse models that are not those that something was made of.

    :param known: by label, of what was made before; empty identities match everything.
    :param given: by label.
    :param known_as: what messages call what was made before, e.g. ``the reference``.
    :param given_as: what messages call what is given, e.g. ``the latents of hot``.
    """
    if sorted(known) != sorted(given):
        return f'{known_as} and {given_as} have the labels {", ".join(sorted(known))} and {", ".join(sorted(given))}'
    for label, identity in given.items():
        if difference := known[label].differs_from(identity):
            return (
                f'{known_as} and {given_as} are not of the same model {label}: {difference}. What one model learnt '
                f'says nothing about another. {INSIST}'
            )
    return None


def compare_structures(
    structures: StructureSetData, latents: Iterable[LatentsData], given_as: str, *, positions: bool = True
) -> str | None:
    """Refuse latents that are of other structures: number of atoms, elements, positions and cell are compared.

    :param given_as: what messages call the latents, e.g. ``the latents of hot``.
    :param positions: whether positions and cells are compared.
    """
    offsets, numbers = structures.get_array('offsets'), structures.get_array('numbers')
    expected: FloatArray | None = None
    for node in latents:
        index = node.get_array('structure_index')
        if len(index) and index.max() >= len(offsets) - 1:
            return f'{given_as} are of structure {index.max()}, but the set has {len(offsets) - 1}'
        rows = np.concatenate([np.zeros(0, dtype=int), *(np.arange(offsets[i], offsets[i + 1]) for i in index)])
        own = node.get_array('offsets')
        if not np.array_equal(np.diff(own), np.diff(offsets)[index]):
            wrong = int(index[np.argmax(np.diff(own) != np.diff(offsets)[index])])
            return f'{given_as} ({node.model_label}) are of other structures: structure {wrong} has another size'
        if not np.array_equal(node.get_array('numbers'), numbers[rows]):
            atom = int(np.argmax(node.get_array('numbers') != numbers[rows]))
            wrong = int(index[np.searchsorted(own, atom, side='right') - 1])
            return f'{given_as} ({node.model_label}) are of other structures: the elements of structure {wrong} differ'
        if not positions or 'fingerprints' not in node.get_arraynames():
            continue
        expected = structure_fingerprints(structures) if expected is None else expected
        same = are_same(node.get_array('fingerprints'), expected[index])
        if not same.all():
            wrong = int(index[np.argmin(same)])
            return (
                f'{given_as} ({node.model_label}) are of other structures: positions or cell of structure {wrong} '
                f'differ, and those of {np.count_nonzero(~same)} of {len(same)} structures. {INSIST}'
            )
    return None


def structure_fingerprints(structures: StructureSetData) -> FloatArray:
    """Return which structures a set holds, shape (n_structures, 6)."""
    names = ('offsets', 'numbers', 'positions', 'cells', 'pbc')
    return fingerprints(*(structures.get_array(name) for name in names))


def count_shared(structures: StructureSetData, others: StructureSetData) -> int:
    """Return how many structures of a set are in another set too."""
    return int(np.count_nonzero(find_same(structure_fingerprints(structures), structure_fingerprints(others)) >= 0))
