"""Which structures a reference is fitted to, and which set its thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_oodal.engine.content import find_same
from aiida_oodal.engine.errors import OodalError

from .ensemble import EnsembleLatents
from .fitting import FitOptions

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Split:
    """The two sets that a reference is made of.

    :param reference: is fitted to.
    :param heldout: sets the thresholds.
    :param labels: forces of the labels of ``heldout``, eV/angstrom, shape (n_atoms, 3); NaN without a label.
    :param isolated: atomic numbers of the isolated atoms that were left out of ``reference``, ascending.
    :param notes: sentences that a user of the thresholds should read.
    """

    reference: EnsembleLatents
    heldout: EnsembleLatents
    labels: FloatArray | None
    isolated: IntArray
    notes: tuple[str, ...]


def split_sets(
    latents: EnsembleLatents, heldout: EnsembleLatents | None, labels: FloatArray | None, options: FitOptions
) -> Split:
    """Choose what a reference is fitted to and what is held out.

    Isolated atoms are left out of both; held-out structures that are in the reference set too are left out of the
    held-out set.

    :param latents: of the reference set.
    :param heldout: of the held-out set; without it a part of the reference set is held out.
    :param labels: of the atoms of the held-out set, or of the reference set without one.
    :raises OodalError: if nothing is left, or there is not one label for each atom.
    """
    notes: list[str] = []
    alone = find_isolated(latents)
    isolated = np.unique(latents.numbers[latents.offsets[:-1]][alone])
    if alone.any():
        symbols = ', '.join(chemical_symbols[z] for z in isolated)
        notes.append(
            f'{np.count_nonzero(alone)} isolated atoms of the reference set ({symbols}) are left out of the fit: '
            'nothing surrounds them, and they would only widen what counts as known'
        )
    usable = np.flatnonzero(~alone)
    if heldout is None:
        kept, out = hold_out(len(usable), options.heldout_fraction, options.seed)
        notes.append(
            f'thresholds come from {len(out)} structures held out of the reference set itself: if the models were '
            'trained on them, more than the nominal share of new structures will be above'
        )
        own = None if labels is None else rows_of(labels, latents, usable[out])
        return Split(latents.select(usable[kept]), latents.select(usable[out]), own, isolated, tuple(notes))
    if not len(usable):
        raise OodalError('every structure of the reference set is an isolated atom: give structures with neighbours')
    out = np.flatnonzero(~find_isolated(heldout))
    if not len(out):
        raise OodalError('every structure of the held-out set is an isolated atom: give structures with neighbours')
    shared = _find_shared(heldout.select(out), latents)
    if shared.all():
        notes.append(
            'every held-out structure is in the reference set too: the thresholds are tighter than they should be, and '
            'more than the nominal share of new structures will be above. Hold out structures that the models were not '
            'trained on'
        )
    elif shared.any():
        notes.append(
            f'{np.count_nonzero(shared)} of {len(shared)} held-out structures are in the reference set too: they do '
            'not count for the thresholds'
        )
        out = out[~shared]
    own = None if labels is None else rows_of(labels, heldout, out)
    return Split(latents.select(usable), heldout.select(out), own, isolated, tuple(notes))


def hold_out(n_structures: int, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Split structures at random into those to fit and those to hold out; the same seed gives the same split.

    :return: ascending positions of both, one of each at least.
    :raises OodalError: if there are fewer than two structures.
    """
    if n_structures < 2:
        raise OodalError(f'{n_structures} structure(s): two or more are needed to hold one out for the thresholds')
    n_out = int(np.clip(round(fraction * n_structures), 1, n_structures - 1))
    order = np.random.default_rng(seed).permutation(n_structures)
    return np.sort(order[n_out:]), np.sort(order[:n_out])


def find_isolated(latents: EnsembleLatents, elements: Sequence[int] | IntArray | None = None) -> BoolArray:
    """Say which structures are one atom without neighbours, shape (n_structures,).

    :param elements: of these elements only; None for all.
    """
    if latents.isolated is None:
        return np.zeros(len(latents), dtype=bool)
    if elements is None:
        return latents.isolated
    result: BoolArray = latents.isolated & np.isin(latents.numbers[latents.offsets[:-1]], elements)
    return result


def rows_of(values: FloatArray, latents: EnsembleLatents, structures: IntArray) -> FloatArray:
    """Return the rows of the atoms of some structures.

    :param values: shape (n_atoms, 3).
    :raises OodalError: if there is not one row for each atom of the set.
    """
    if values.shape != (latents.n_atoms, 3):
        raise OodalError(
            f'reference_forces have shape {values.shape}, but the set has {latents.n_atoms} atoms: '
            f'{(latents.n_atoms, 3)} is needed'
        )
    return np.concatenate([values[latents.offsets[i] : latents.offsets[i + 1]] for i in structures])


def _find_shared(heldout: EnsembleLatents, reference: EnsembleLatents) -> BoolArray:
    """Say which held-out structures are in the reference set, shape (n_heldout,)."""
    if heldout.fingerprints is None or reference.fingerprints is None:
        return np.zeros(len(heldout), dtype=bool)
    result: BoolArray = find_same(heldout.fingerprints, reference.fingerprints) >= 0
    return result
