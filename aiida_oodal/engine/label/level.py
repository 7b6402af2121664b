"""The level of theory of a label: labels of different levels are different labels of the same atoms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Entry point of the labeller whose labels somebody else computes.
OUTSIDE = 'oodal.label.outside'
#: Characters of :attr:`LevelOfTheory.text` at most.
TEXT_LENGTH = 60


@dataclass(frozen=True)
class LevelOfTheory:
    """The labeller and the settings that decide the values of labels.

    :param labeller: entry point of the labeller, such as ``oodal.label.ase``.
    :param settings: what it is told, as plain JSON: calculator and parameters, cutoffs, hashes of pseudopotentials; not
        what changes no value, such as the number of cores.
    :param words: the level in words; they do not count for the identity.
    """

    labeller: str
    settings: Mapping[str, Any]
    words: str = field(default='', compare=False)

    @property
    def hash(self) -> str:
        """The identity of the level, 16 hexadecimal digits; equal for equal labellers and settings."""
        text = json.dumps([self.labeller, self.settings], sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def text(self) -> str:
        """The level in words, or its labeller and settings if no words were given."""
        words = self.words or f'{self.labeller.rpartition(".")[2]} {json.dumps(self.settings, sort_keys=True)}'
        return words if len(words) <= TEXT_LENGTH else f'{words[: TEXT_LENGTH - 3]}...'

    def key(self, content: str) -> str:
        """Return the key of a queue entry: a name that can be a link label, equal for equal atoms at this level.

        :param content: :func:`aiida_oodal.engine.content.content_key` of the structure.
        """
        return make_key(content, self.hash)


def make_key(content: str, level: str = '') -> str:
    """Return the key of atoms at a level of theory.

    :param content: :func:`aiida_oodal.engine.content.content_key` of the structure.
    :param level: hash of the level; empty where none has been chosen yet.
    """
    return 'q' + hashlib.sha256(f'{content}{level}'.encode()).hexdigest()[:24]
