"""Protocols: named sets of inputs in a YAML file for each WorkChain; users can override single values."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib.resources import files
from typing import Any

import yaml

from aiida_oodal.engine.errors import OodalError, suggest


def load_protocol(
    name: str,
    protocol: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    closed: bool = False,
) -> dict[str, Any]:
    """Return the inputs of a protocol.

    :param name: of the YAML file: ``campaign``.
    :param protocol: one of its protocols; its ``default_protocol`` when not given.
    :param overrides: nested values that win over those of the protocol.
    :param closed: whether only values that the YAML file has can be overridden; else the caller has to check them.
    :raises OodalError: if there is no such protocol, or no such value.
    """
    content = yaml.safe_load((files(__package__) / f'{name}.yaml').read_text(encoding='utf-8'))
    protocol = protocol or content['default_protocol']
    if protocol not in content['protocols']:
        raise OodalError(f'there is no protocol {protocol!r} of {name}; {suggest(protocol, content["protocols"])}')
    chosen = {key: value for key, value in content['protocols'][protocol].items() if key != 'description'}
    values = merge(content['default_inputs'], chosen)
    if not isinstance(overrides or {}, Mapping):
        raise OodalError(f'overrides of {name} = {overrides!r} must be values by name')
    for key, value in (overrides or {}).items():
        if isinstance(values.get(key), Mapping) and not isinstance(value, Mapping):
            raise OodalError(f'overrides: {key} = {value!r} of {name} must be values by name')
        if closed and key not in values:
            hint = suggest(key, values)
            raise OodalError(f'overrides: {key!r} is not an input of protocol {protocol!r} of {name}; {hint}')
    return merge(values, overrides or {})


def merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``left`` with the values of ``right``, mappings joined at every level."""
    merged = deepcopy(dict(left))
    for key, value in right.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged
