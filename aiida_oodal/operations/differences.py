"""Compare the inputs of two processes by content, not by UUID."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessBuilder
from aiida.orm.implementation.utils import clean_value

from aiida_oodal.calculations.codes.lammps_code import is_engine
from aiida_oodal.data.content import hash_content

#: Nodes of these kinds are shown with their values, others by what they are.
_VALUES = (orm.Dict, orm.List, orm.Int, orm.Float, orm.Str, orm.Bool)
_MISSING = object()


def flatten_inputs(builder: ProcessBuilder) -> dict[str, Any]:
    """Return what a process will be given, defaults filled in, by link label (``md__settings``)."""
    ports = builder.process_class.spec().inputs
    given = ports.pre_process(ports.serialize(builder._inputs(prune=True)))
    return dict(_flatten(given))


def input_nodes(process: orm.ProcessNode) -> dict[str, Any]:
    """Return what a process was given, by link label."""
    links = process.base.links.get_incoming(link_type=(LinkType.INPUT_CALC, LinkType.INPUT_WORK))
    return {link.link_label: link.node for link in links.all()}


def find_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in what two sets of inputs differ in content, one sentence for each difference.

    Different versions of the engine are not reported.

    :param before: nodes by link label.
    :param now: nodes, stored or not, by link label.
    """
    found = []
    for label in sorted({*before, *now}):
        name = label.replace('__', '.')
        old, new = before.get(label), now.get(label)
        if old is None or new is None:
            found.append(f'{name} is {"new" if old is None else "gone"}')
        elif isinstance(old, orm.AbstractCode) and isinstance(new, orm.AbstractCode):
            if old.uuid != new.uuid and not (is_engine(old) and is_engine(new)):
                found.append(f'{name} was {old.full_label} and is {new.full_label}')
        elif isinstance(old, _VALUES) and isinstance(new, _VALUES):
            found += _compare_values(name, value_of(old), value_of(new))
        elif old.uuid != new.uuid and hash_content(old) != hash_content(new):
            found.append(f'{name} is another {type(new).__name__} than {type(old).__name__}<{old.pk}>')
    return found


def _flatten(inputs: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the nodes among inputs by link label; options and other metadata are none."""
    for name, value in inputs.items():
        if isinstance(value, orm.Node):
            yield f'{prefix}{name}', value
        elif isinstance(value, Mapping) and name != 'metadata':
            yield from _flatten(value, f'{prefix}{name}__')


def value_of(node: Any) -> Any:
    """Return the value of a node as the database keeps it."""
    return clean_value(node.get_dict() if isinstance(node, orm.Dict) else node)


def _compare_values(name: str, old: Any, new: Any) -> Iterator[str]:
    """Yield in what two values differ, down to single entries of dictionaries."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _compare_values(f'{name}.{key}', old.get(key, _MISSING), new.get(key, _MISSING))
    elif old is _MISSING:
        yield f'{name} = {new!r} is new'
    elif new is _MISSING:
        yield f'{name} = {old!r} is gone'
    elif old != new:
        yield f'{name} was {old!r} and is {new!r}'
