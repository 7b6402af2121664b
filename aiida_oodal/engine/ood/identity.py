"""Which models and which structures a reference was made of, and checks against others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.content import N_NUMBERS, find_same

from .ensemble import EnsembleLatents

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class ModelIdentity:
    """What tells one model from another; None for what is not known, as of latents that were read from a file.

    :param sha256: of the model's file.
    :param cutoff: angstrom.
    :param layers: whose features the latents are: ``all``, ``last`` or ``first``.
    :param name: what the name of a file of embeddings calls the ensemble.
    """

    sha256: str | None = None
    cutoff: float | None = None
    layers: str | None = None
    name: str | None = None

    def differs_from(self, other: ModelIdentity) -> str | None:
        """Say in what two models differ that both are known to have, or return None."""
        for what, mine, theirs in (
            ('SHA-256', self.sha256, other.sha256),
            ('layers', self.layers, other.layers),
            # Two names of the same file are one model.
            ('name', *((None, None) if self.sha256 and other.sha256 else (self.name, other.name))),
        ):
            if mine is not None and theirs is not None and mine != theirs:
                return f'{what} {_short(mine)} and {_short(theirs)}'
        return None


@dataclass(frozen=True, eq=False)
class KnownStructures:
    """The structures that a reference was made of.

    :param fingerprints: shape (n, 6).
    :param index: position of each in its set, shape (n,).
    :param heldout: whether it was held out, shape (n,).
    :param isolated: atomic numbers of the isolated atoms among them, ascending, shape (n_isolated,).
    """

    fingerprints: FloatArray = field(default_factory=lambda: np.empty((0, N_NUMBERS)))
    index: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    heldout: BoolArray = field(default_factory=lambda: np.empty(0, dtype=bool))
    isolated: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, reference: EnsembleLatents, heldout: EnsembleLatents, isolated: IntArray) -> KnownStructures:
        """Remember the structures of two sets, as far as their latents know which they are of."""
        kinds = ((reference, False), (heldout, True))
        there = [(latents, latents.fingerprints, out) for latents, out in kinds if latents.fingerprints is not None]
        if not there:
            return cls(isolated=isolated)
        return cls(
            np.concatenate([fingerprints for _, fingerprints, _ in there]),
            np.concatenate([latents.structure_index for latents, _, _ in there]),
            np.concatenate([np.full(len(latents), out) for latents, _, out in there]),
            isolated,
        )

    def find(self, latents: EnsembleLatents) -> dict[int, tuple[str, int]]:
        """Return the structures of a set that are known.

        :return: position in the latents -> ``reference`` or ``held-out``, and the position in that set.
        """
        if latents.fingerprints is None:
            return {}
        rows = find_same(latents.fingerprints, self.fingerprints)
        names = ('reference', 'held-out')
        return {
            int(i): (names[int(self.heldout[rows[i]])], int(self.index[rows[i]])) for i in np.flatnonzero(rows >= 0)
        }


def _short(value: str) -> str:
    return f'{value[:12]}...' if len(value) == 64 else repr(value)
