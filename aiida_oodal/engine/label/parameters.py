"""Parameters of ASE calculators: which of them nobody reads, and the files that they name.

Most calculators of ASE take any keyword and ignore those that they do not know: a misspelt cutoff is no error, and
labels are those of the default.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator, FileIOCalculator
from ase.calculators.genericfileio import GenericFileIOCalculator

from aiida_oodal.engine.errors import OodalError, suggest

_PLACEHOLDER = re.compile(r'\{(\w+)\}')


def find_unknown(factory: Any, parameters: Iterable[str]) -> str | None:
    """Say which parameter a calculator does not know, or return None.

    One is known if it is an argument or a default parameter, or if the source of the class or its bases names it, as a
    text, an attribute or a keyword. Those of calculators that write them into an input file are for their program to
    judge.

    :param factory: class of a calculator, or a function that makes one.
    """
    if inspect.isclass(factory) and issubclass(factory, (FileIOCalculator, GenericFileIOCalculator)):
        return None
    known = _list_arguments(factory)
    source = _read_source(factory)
    for name in parameters:
        word = re.escape(name)
        if name not in known and not re.search(rf'[\'"]{word}[\'"]|\.{word}\b|\b{word}=', source):
            hint = suggest(name, sorted(known))
            return f'{name!r} is no parameter that it knows, and would be ignored; {hint}'
    return None


def find_unread(factory: Any, calculator: Calculator, parameters: Mapping[str, Any]) -> str | None:
    """Say which parameter a calculator took and will not read, or return None.

    :param calculator: as it was made by ``factory`` with these parameters.
    """
    left = getattr(calculator, 'parameters', None) or {}
    return find_unknown(factory, [name for name in parameters if name in left])


def insert_files(value: Any, files: Mapping[str, Path]) -> Any:
    """Return parameters in which ``{name}`` has become the path of the file of this name.

    :param value: plain values, nested as they like.
    :raises OodalError: if a text is the name of a file in braces, and there is none of this name.
    """
    if isinstance(value, Mapping):
        return {key: insert_files(item, files) for key, item in value.items()}
    if isinstance(value, list):
        return [insert_files(item, files) for item in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole is not None and whole[1] not in files:
        raise OodalError(f'parameter {value!r} stands for a file, and there is none of this name among `files`')
    for name, path in files.items():
        value = value.replace(f'{{{name}}}', str(path))
    return value


def find_placeholders(value: Any) -> set[str]:
    """Return the names in braces in the texts of parameters."""
    if isinstance(value, Mapping):
        return {name for item in value.values() for name in find_placeholders(item)}
    if isinstance(value, list):
        return {name for item in value for name in find_placeholders(item)}
    return set(_PLACEHOLDER.findall(value)) if isinstance(value, str) else set()


def _list_arguments(factory: Any) -> set[str]:
    """Return the names that a calculator declares: arguments of it and its bases, and its default parameters."""
    makers = [factory]
    if inspect.isclass(factory):
        makers = [vars(kind)['__init__'] for kind in factory.__mro__[:-1] if '__init__' in vars(kind)]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    arguments = {
        name
        for maker in makers
        for name, parameter in inspect.signature(maker).parameters.items()
        if parameter.kind in named and name != 'self'
    }
    return arguments | set(getattr(factory, 'default_parameters', {}))


def _read_source(factory: Any) -> str:
    """Return the source of a calculator's class and those of its bases that are not ASE's own; '' where it has none."""
    kinds = [kind for kind in factory.__mro__[:-1] if kind is not Calculator] if inspect.isclass(factory) else [factory]
    texts = []
    for kind in kinds:
        if kind.__module__ in ('ase.calculators.calculator', 'ase.calculators.abc', 'abc'):
            continue
        try:
            texts.append(inspect.getsource(kind))
        except (OSError, TypeError):  # compiled, or made at run time
            continue
    return '\n'.join(texts)
