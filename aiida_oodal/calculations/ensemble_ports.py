"""The ports of every process to which an ensemble is given."""

from __future__ import annotations

from aiida.engine import ProcessSpec

from aiida_oodal.data import MaceModelData, OodReferenceData


def define_ensemble(spec: ProcessSpec, text: str) -> None:
    """Define ``ensemble.models`` and ``ensemble.reference``; either may be left out, what needs both asks for both.

    :param text: what the ensemble is for.
    """
    spec.input_namespace('ensemble', required=False, help=text)
    spec.input_namespace(
        'ensemble.models',
        valid_type=MaceModelData,
        dynamic=True,
        required=False,
        help='The models by label: w1, w2, ...; they differ in their seed only.',
    )
    spec.input(
        'ensemble.reference',
        valid_type=OodReferenceData,
        required=False,
        help='Fitted on latents of the same models; its edge is where gamma is 1.',
    )
