"""The arguments of ``mace_run_train``: their names, types and choices, known without importing torch.

Where mace-torch is installed its own parser is asked; elsewhere :data:`RECORDED`, which
``python -m aiida_oodal.engine.mace.train.arguments`` writes anew from the installed parser.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import importlib
import importlib.util
import json
import math
import sys
import types
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from aiida_oodal.engine.errors import OodalError

#: What the parser of one mace-torch says of itself, for hosts without mace-torch.
RECORDED = Path(__file__).with_name('mace_arguments.json')
#: Kind of an argument by the name of the function that argparse converts with.
_KINDS = {
    'int': 'int',
    'float': 'float',
    'check_float_or_none': 'float or None',
    'str2bool': 'bool',
    'str': 'text',
    'NoneType': 'text',
    'read_yaml': 'file',
}
_ACCEPTED: dict[str, tuple[type, ...]] = {
    'int': (int,),
    'float': (int, float),
    'float or None': (int, float),
    'bool': (bool,),
    'flag': (bool,),
}


@dataclass(frozen=True)
class Argument:
    """One option of ``mace_run_train``.

    :param kind: ``int``, ``float``, ``float or None`` (the text ``None`` switches it off), ``bool``, ``text``,
        ``words`` (several), ``file``, or ``flag``: given or not.
    :param choices: allowed values; empty if any is.
    :param always: a flag that is on whether given or not.
    """

    kind: str
    choices: tuple[str, ...] = ()
    always: bool = False


def check_arguments(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with values of arguments, a sentence for each; ``None`` stands for MACE's own default."""
    return [problem for name, value in values.items() if (problem := _check(name, value)) is not None]


def to_options(values: Mapping[str, Any]) -> list[str]:
    """Write arguments as ``mace_run_train`` takes them: ``['--lr=0.01', '--ema']``.

    :raises OodalError: naming all arguments that the installed mace-torch does not take.
    """
    if problems := check_arguments(values):
        raise OodalError(f'MACE arguments: {"; ".join(problems)}')
    options: list[str] = []
    for name, value in values.items():
        kind = known_arguments()[name].kind
        if value is None or (kind == 'flag' and not value):
            continue
        if kind == 'flag':
            options.append(f'--{name}')
        elif kind == 'words':
            options += [f'--{name}', *(str(word) for word in value)]
        else:
            options.append(f'--{name}={value if isinstance(value, str | bool | int | float) else json.dumps(value)}')
    return options


@functools.cache
def known_arguments() -> dict[str, Argument]:
    """Return the arguments of the installed mace-torch, or those that were recorded, by name without dashes."""
    if (parser := _installed_parser()) is not None:
        return describe(parser)
    return read_recorded()


def read_recorded() -> dict[str, Argument]:
    """Return the arguments that were recorded."""
    recorded = json.loads(RECORDED.read_text(encoding='utf-8'))['arguments']
    return {name: Argument(kind, tuple(choices), always) for name, (kind, choices, always) in recorded.items()}


def describe(parser: argparse.ArgumentParser) -> dict[str, Argument]:
    """Return what a parser takes; an argument of two names is there under both."""
    described: dict[str, Argument] = {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if action.nargs == 0:
            argument = Argument('flag', always=bool(action.const) == bool(action.default))
        else:
            kind = _KINDS.get(getattr(action.type, '__name__', type(action.type).__name__), 'text')
            choices = tuple(str(choice) for choice in action.choices or ())
            argument = Argument('words' if action.nargs == '+' else kind, choices)
        described |= {name.removeprefix('--'): argument for name in action.option_strings if name.startswith('--')}
    return described


def mace_version() -> str | None:
    """Return the version of the installed mace-torch, or None."""
    try:
        return version('mace-torch')
    except PackageNotFoundError:
        return None


def _check(name: str, value: Any) -> str | None:
    known = known_arguments()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f'did you mean {close[0]!r}?' if close else 'see `mace_run_train --help`'
        return f'{name!r} is no argument of mace_run_train; {hint}'
    argument = known[name]
    if value is None:
        return None
    if argument.choices:
        allowed = ', '.join(argument.choices)
        return None if value in argument.choices else f'{name} = {value!r} must be one of {allowed}'
    if argument.always and not value:
        return f'{name} = {value!r}: mace_run_train has no option to switch it off'
    if argument.kind == 'words':
        return None if isinstance(value, list | tuple) and value else f'{name} = {value!r} must be a list of words'
    if argument.kind in ('text', 'file'):
        # lists and mappings are written as MACE reads them: radial_MLP, config_type_weights
        good = isinstance(value, str | list | tuple | dict)
        return None if good else f'{name} = {value!r} must be a text, or a list or mapping that is written as text'
    if argument.kind == 'float or None' and value == 'None':
        return None
    wanted = _ACCEPTED[argument.kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        return f'{name} = {value!r} must be {"true or false" if bool in wanted else f"of type {argument.kind}"}'
    return None if math.isfinite(cast(float, value)) else f'{name} = {value!r} must be finite'


def _installed_parser() -> argparse.ArgumentParser | None:
    """Build MACE's parser from its file alone: importing ``mace.tools`` would import torch, which takes seconds."""
    spec = importlib.util.find_spec('mace')
    folders = [Path(folder) / 'tools' for folder in (spec.submodule_search_locations or ())] if spec else []
    if not any((folder / 'arg_parser.py').is_file() for folder in folders):
        return None
    # a package of another name with the same folder: its __init__, which imports all of MACE, is not run
    package = types.ModuleType('_oodal_mace_tools')
    package.__path__ = [str(folder) for folder in folders]
    sys.modules[package.__name__] = package
    module = importlib.import_module(f'{package.__name__}.arg_parser')
    parser: argparse.ArgumentParser = module.build_default_arg_parser()
    return parser


def main() -> None:
    """Record the arguments of the installed mace-torch."""
    lines = [
        f'  {json.dumps(name)}: {json.dumps(astuple(argument))}' for name, argument in sorted(known_arguments().items())
    ]
    text = f'{{\n "mace-torch": {json.dumps(mace_version())},\n "arguments": {{\n' + ',\n'.join(lines) + '\n }\n}\n'
    RECORDED.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
