"""Score one set of structures against one reference."""

from __future__ import annotations

from aiida.engine import calcfunction

from aiida_oodal.data import LatentsData, OodReferenceData, OodScoresData, open_ensemble

from .explained import explained


@calcfunction
@explained
def score(reference: OodReferenceData, **latents: LatentsData) -> OodScoresData:
    """Return the scores, per atom and per structure; atoms of elements that the reference set lacks are infinitely far.

    :param reference: fitted on the latents of the same models.
    :param latents: one for each model and shard, by any key.
    """
    with open_ensemble(latents.values()) as ensemble:
        return OodScoresData(reference.get_reference().score(ensemble, unknown_elements='far'))
