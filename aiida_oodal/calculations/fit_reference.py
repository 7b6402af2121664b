"""Fit everything that scores need to know of a reference set."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from numpy.typing import NDArray

from aiida_oodal.data import LatentsData, OodReferenceData, StructureSetData, open_ensemble
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.reference import OodReference
from aiida_oodal.engine.ood.score_settings import ReferenceSettings

from .explained import explained


@calcfunction
@explained
def fit_reference(
    settings: orm.Dict, labelled: StructureSetData | None = None, **latents: Mapping[str, LatentsData]
) -> OodReferenceData:
    """Return the fitted reference of one ensemble.

    :param settings: fields of :class:`aiida_oodal.engine.ood.score_settings.ReferenceSettings`.
    :param labelled: the structures of ``heldout`` (of ``reference`` where nothing is held out); their ``REF_forces``
        turn disagreement into eV/angstrom, if the latents came with forces.
    :param latents: ``reference`` and, where there is one, ``heldout``: latents by any key, e.g. ``{'w1': node, ...}``.
    """
    options = ReferenceSettings.load(settings.get_dict()).fit_options()
    with ExitStack() as stack:
        ensembles = {name: stack.enter_context(open_ensemble(nodes.values())) for name, nodes in latents.items()}
        judged = ensembles.get('heldout', ensembles['reference'])
        forces = None if labelled is None or judged.forces is None else _reference_forces(labelled, judged)
        return OodReferenceData(
            OodReference.fit(
                ensembles['reference'], ensembles.get('heldout'), settings=options, reference_forces=forces
            )
        )


def _reference_forces(labelled: StructureSetData, latents: EnsembleLatents) -> NDArray[np.float64] | None:
    """Return the labels of the structures that latents are of, shape (n_atoms, 3), eV/angstrom; None without labels."""
    content = labelled.get_set()
    forces = content.arrays.get('REF_forces')
    if forces is None:
        return None
    bounds = content.offsets
    return np.concatenate([forces[bounds[i] : bounds[i + 1]] for i in latents.structure_index])


def validate_reference_settings(node: orm.Dict, _: object) -> str | None:
    """Refuse wrong settings at submission."""
    return ReferenceSettings.check(node.get_dict())
