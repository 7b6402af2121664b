"""The ports that all labellers share, and their checks."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import ProcessSpec

from aiida_oodal.data import ClusterData, StructureSetData
from aiida_oodal.engine.errors import suggest


def define_label_ports(spec: ProcessSpec) -> None:
    """Define inputs, outputs and exit codes of the contract."""
    spec.input_namespace(
        'clusters',
        valid_type=(ClusterData, orm.StructureData),
        dynamic=True,
        required=False,
        help='Structures to label, by any key.',
    )
    spec.input(
        'structures',
        valid_type=StructureSetData,
        required=False,
        help='A set to label; its arrays and values are kept beside the labels.',
    )
    define_campaign(spec)
    spec.input(
        'enough',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        required=False,
        validator=validate_enough,
        help='When to go on without the labels that are still missing: {"share": 0.9} when this share of the labels is '
        'there, {"hours": 12} when this time has passed and there is at least one label. The missing labels are still '
        'computed, and the next process that asks for them gets them. Default: wait for all labels.',
    )
    spec.input(
        'max_attempts',
        valid_type=orm.Int,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Int(1),
        validator=require_one,
        help='How often a structure is tried before it is FAILED.',
    )
    spec.input(
        'max_failures',
        valid_type=orm.Int,
        serializer=orm.to_aiida_type,
        required=False,
        validator=require_one,
        help='The failure budget: when so many structures have failed, no more are started, and the others wait in the '
        'queue. Default: all are tried.',
    )
    spec.inputs.validator = validate_source
    spec.output(
        'labels',
        valid_type=StructureSetData,
        required=False,
        help='The structures with REF_energy [eV], REF_forces [eV/angstrom] and, where there is one, REF_stress '
        '[eV/angstrom^3]; `queue_key` of each, and `force_mask` of clusters.',
    )
    spec.output(
        'failures', valid_type=orm.Dict, help='For each structure without a label, by its key: the reason, a sentence.'
    )
    spec.exit_code(
        401,
        'ERROR_NOTHING_LABELLED',
        message='not one of {total} structures could be labelled; the first: {message} They are in the queue as '
        'FAILED; `aiida-oodal queue list` shows them, `queue retry` lets them wait again.',
    )
    spec.exit_code(
        502,
        'ERROR_TOO_MANY_FAILURES',
        message='{failed} structures failed, and the budget is {budget}: {waiting} others were not begun; the '
        'first failure: {message} The labels that there are were returned. Mend the cause, then '
        '`aiida-oodal queue retry` and `queue label`.',
    )


def define_campaign(spec: ProcessSpec) -> None:
    """Define ``campaign``, on whose behalf structures are put into the queue."""
    spec.input(
        'campaign',
        valid_type=orm.Str,
        serializer=orm.to_aiida_type,
        required=False,
        help='UUID of the process, such as a campaign, that the labels are for; default: this process.',
    )


def define_batch_size(spec: ProcessSpec, default: int, text: str) -> None:
    """Define ``batch_size``, which means something different for each labeller.

    :param text: the help: what is counted.
    """
    spec.input(
        'batch_size',
        valid_type=orm.Int,
        serializer=orm.to_aiida_type,
        default=lambda: orm.Int(default),
        validator=require_one,
        help=text,
    )


def validate_enough(node: orm.Dict | None, _: Any) -> str | None:
    """Refuse unknown keys, and numbers outside their range."""
    values = {} if node is None else node.get_dict()
    if unknown := sorted(set(values) - {'share', 'hours'}):
        return f'enough: {unknown[0]!r} is not known; {suggest(unknown[0], ("share", "hours"))}'
    share, hours = values.get('share', 1.0), values.get('hours', 1.0)
    if not 0 < share <= 1:
        return f'enough: share = {share} must be above 0 and at most 1'
    return None if hours > 0 else f'enough: hours = {hours} must be positive'


def require_one(node: orm.Int | None, port: Any) -> str | None:
    """Refuse a number below 1."""
    return None if node is None or node.value >= 1 else f'{port.name} = {node.value} must be at least 1'


def validate_source(inputs: Any, ports: Any) -> str | None:
    """Refuse a labeller that has nothing to label; ports that a caller excluded are filled in later."""
    if not {'clusters', 'structures'} <= set(ports):
        return None
    if bool(inputs.get('clusters')) == ('structures' in inputs):
        return 'give either `clusters` or `structures` to label, and not both'
    return None
