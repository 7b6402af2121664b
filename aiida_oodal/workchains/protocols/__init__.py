"""Protocols: named sets of inputs, one YAML a WorkChain, that a user overrides field by field."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib.resources import files
from typing import Any

import yaml

from aiida_oodal.engine.errors import OodalError


def load_protocol(name: str, protocol: str | None = None, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the inputs of a protocol.

    :param name: of the YAML file: ``campaign``.
    :param protocol: one of its protocols; its ``default_protocol`` when not given.
    :param overrides: nested values that win over those of the protocol.
    :raises OodalError: if there is no such protocol.
    """
    content = yaml.safe_load((files(__package__) / f'{name}.yaml').read_text(encoding='utf-8'))
    protocol = protocol or content['default_protocol']
    if protocol not in content['protocols']:
        raise OodalError(f'there is no protocol {protocol!r} of {name}; there are {", ".join(content["protocols"])}')
    chosen = {key: value for key, value in content['protocols'][protocol].items() if key != 'description'}
    return merge(merge(content['default_inputs'], chosen), overrides or {})


def merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``left`` with the values of ``right``, mappings joined at every level."""
    merged = deepcopy(dict(left))
    for key, value in right.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged
