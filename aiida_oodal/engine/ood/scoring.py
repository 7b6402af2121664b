"""Compute the scores of the atoms of a set, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.errors import OodalError

from .calibration import ErrorScale
from .ensemble import EnsembleLatents
from .metrics import FITS, SCORES, Need, Parts, Seen
from .scores import aggregate

FloatArray = NDArray[np.float64]

#: What a score may need: what to call it, and whether it is there.
_NEEDS: dict[Need, tuple[str, Callable[[EnsembleLatents, ErrorScale | None], bool]]] = {
    'models': ('two models or more', lambda latents, scale: latents.n_models > 1),
    'forces': ('latents computed with forces', lambda latents, scale: latents.forces is not None),
    'energies': ('latents computed with energies', lambda latents, scale: latents.energies is not None),
    'labels': ('a reference fitted with reference_forces', lambda latents, scale: scale is not None),
}


def choose_metrics(
    latents: EnsembleLatents,
    fitted: Sequence[str],
    parts: Parts,
    scale: ErrorScale | None,
    wanted: Sequence[str] | None,
) -> tuple[str, ...]:
    """Return the metrics that can be computed, or those that were asked for.

    :param fitted: metrics that the reference was fitted for.
    :param parts: what was fitted.
    :param scale: what turns the default score into a force error.
    :param wanted: None for all that can be computed.
    :raises OodalError: if one that was asked for cannot be computed, naming what it lacks.
    """
    lacks = {name: _find_lack(name, latents, fitted, parts, scale) for name in SCORES}
    if wanted is None:
        return tuple(name for name in SCORES if lacks[name] is None)
    for name in wanted:
        if name not in SCORES:
            raise OodalError(f'{name!r} is not a score; there are {", ".join(SCORES)}')
        if lacks[name] is not None:
            raise OodalError(f'the score {name!r} needs {lacks[name]}')
    return tuple(name for name in SCORES if name in wanted)


def score_atoms(
    latents: EnsembleLatents,
    parts: Parts,
    scale: ErrorScale | None,
    judge: str,
    metrics: Sequence[str],
    chunk_atoms: int,
) -> tuple[dict[str, FloatArray], dict[str, dict[str, FloatArray]]]:
    """Compute scores of atoms and of structures; the latents are read once, if any score needs them.

    :param judge: the score that says whether an atom is known.
    :return: for each metric shape (n_atoms,), and for each metric and aggregate shape (n_structures,).
    """
    per_atom = {name: np.empty(latents.n_atoms) for name in metrics if SCORES[name].compute is not None}
    for chunk in latents.chunks(chunk_atoms) if per_atom else ():
        seen = Seen(chunk, parts, scale, judge)
        for name, values in per_atom.items():
            values[chunk.atoms] = SCORES[name].of_atoms(seen)
    per_structure = {}
    for name in metrics:
        if name in per_atom:
            per_structure[name] = aggregate(per_atom[name], latents.offsets)
        elif (compute := SCORES[name].structures) is not None:
            per_structure[name] = {'mean': compute(latents, parts)}
    return per_atom, per_structure


def _find_lack(
    name: str, latents: EnsembleLatents, fitted: Sequence[str], parts: Parts, scale: ErrorScale | None
) -> str | None:
    """Say what a score lacks, or return None."""
    if name not in fitted:
        return f'a reference fitted for {name!r}'
    score = SCORES[name]
    for need in score.needs:
        what, is_there = _NEEDS[need]
        if not is_there(latents, scale):
            return what
    if score.fit is not None and not set(FITS[score.fit].kinds) & set(parts.fitted):
        return 'a reference set with energies' if 'energies' in score.needs else f'a reference fitted for {name!r}'
    return None
