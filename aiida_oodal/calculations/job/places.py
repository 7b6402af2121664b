"""Where the jobs of a campaign run, kept so that another campaign can run its jobs there.

AiiDA keeps the nodes that a process is given, and plain metadata of its declared ports: neither computers, nor the
options of jobs in dynamic namespaces, such as the inputs of labeller and trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common.exceptions import NotExistent
from aiida.orm.implementation.utils import clean_value

from aiida_oodal.engine.errors import OodalError

#: Extra of a campaign: the namespaces of its inputs that hold metadata of jobs, with these.
_EXTRA = 'oodal_places'


def note_places(node: orm.ProcessNode, inputs: Mapping[str, Any]) -> None:
    """Keep computers and options of all jobs among the inputs of a process."""
    node.base.extras.set(_EXTRA, _collect({name: value for name, value in inputs.items() if name != 'metadata'}))


def read_places(node: orm.ProcessNode) -> dict[str, Any]:
    """Return computers and options as inputs, nested like those of the process; ``metadata`` holds them.

    :raises OodalError: if they were not kept, or a computer is gone.
    """
    places = node.base.extras.get(_EXTRA, None)
    if places is None:
        raise OodalError(
            f'{node.process_label}<{node.pk}> was begun by a version that did not keep computers and options: go on by '
            'a launch script, with its outputs as `initial_labels` and `initial_potential` or `initial_ensemble`'
        )
    return _load(places)


def _collect(inputs: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        if name == 'metadata':
            computer = value.get('computer')
            found[name] = {
                'computer': None if computer is None else computer.uuid,
                'options': clean_value(dict(value.get('options', {}))),
            }
        elif isinstance(value, Mapping) and (nested := _collect(value)):
            found[name] = nested
    return found


def _load(places: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in places.items():
        if name != 'metadata':
            found[name] = _load(value)
            continue
        found[name] = {'options': value['options']} if value['options'] else {}
        if value['computer'] is not None:
            try:
                found[name]['computer'] = orm.load_computer(uuid=value['computer'])
            except NotExistent as error:
                raise OodalError(f'the computer with UUID {value["computer"]} is not in this profile') from error
    return found
