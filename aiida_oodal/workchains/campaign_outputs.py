"""Outputs and exit codes of a campaign."""

from __future__ import annotations

from aiida import orm
from aiida.engine import ProcessSpec

from aiida_oodal.data import MaceModelData, OodReferenceData, PotentialData, StructureSetData


def define_outputs(spec: ProcessSpec) -> None:
    """Define outputs and exit codes."""
    spec.output_namespace('learned', required=False, help='The potential or the ensemble that was promoted last.')
    spec.output('learned.potential', valid_type=PotentialData, required=False, help='The last potential.')
    spec.output_namespace('learned.ensemble', required=False, help='The last ensemble and its reference.')
    spec.output_namespace(
        'learned.ensemble.models', valid_type=MaceModelData, dynamic=True, required=False, help='By label.'
    )
    spec.output(
        'learned.ensemble.reference',
        valid_type=OodReferenceData,
        required=False,
        help='Reference that was fitted on the latents of these models.',
    )
    spec.output('potential', valid_type=PotentialData, required=False, help='The last potential, where one is learned.')
    spec.output(
        'results',
        valid_type=orm.Dict,
        required=False,
        help='The results of its training: errors on every labelled set.',
    )
    spec.output_namespace('labels', valid_type=StructureSetData, dynamic=True, help='The labelled set of every round.')
    spec.exit_code(
        401,
        'ERROR_LABELLING_FAILED',
        message='no structure of round {round} could be labelled: {message} They are in the queue as FAILED: mend the '
        'cause, let them wait again by `aiida-oodal queue retry --campaign {pk}`, and have them labelled by '
        '`aiida-oodal queue label`, or by a new campaign.',
    )
    spec.exit_code(
        402,
        'ERROR_TRAINING_FAILED',
        message='the training of round {round} failed: {message} All labels are kept and attached; see '
        '`verdi process report {pk}`.',
    )
    spec.exit_code(
        403,
        'ERROR_ALL_WALKERS_FAILED',
        message='every walker of round {round} failed, the first with: {message} See `verdi process status {pk}`.',
    )
    spec.exit_code(
        502,
        'ERROR_NOTHING_TO_LEARN',
        message='walkers of round {round} halted or failed, but no cluster could be chosen: {message}',
    )
