"""Pages about entry points, processes, exit codes, settings and commands, made of the code when the site is built.

A page says where a part goes by a line ``<!-- generated: settings -->``; the words are the keys of :data:`PARTS`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click
import yaml
from aiida.engine import CalcJob, Process, WorkChain
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util import logging

import aiida_oodal
from aiida_oodal.cli.main import main
from aiida_oodal.engine.mace.train.settings import PROTOCOLS
from aiida_oodal.engine.options import Options
from aiida_oodal.engine.settings import Settings, describe_allowed, settings_of

logger = logging.getLogger(__name__)

_MARK = re.compile(r'^<!-- generated: (\w+) -->$', re.MULTILINE)
#: Groups of entry points, and what their members are called on the page.
GROUPS = {
    'aiida.data': 'Data',
    'aiida.workflows': 'WorkChains',
    'aiida.calculations': 'Calculations',
    'aiida.parsers': 'Parsers',
    'aiida.calculations.monitors': 'Monitors',
    'aiida_oodal.adapters': 'Adapters of workflows that label',
    'aiida_oodal.shell_parsers': 'Parsers for aiida-shell',
    'console_scripts': 'Commands',
}
_PROTOCOLS = Path(aiida_oodal.__file__).parent / 'workchains' / 'protocols'


def find_points(group: str) -> list[EntryPoint]:
    """Return the entry points of this package in a group, by name."""
    ours = [point for point in entry_points(group=group) if point.value.split('.')[0] == 'aiida_oodal']
    return sorted(ours, key=lambda point: point.name)


def find_processes() -> Iterator[tuple[EntryPoint, Any, type[Process]]]:
    """Yield all processes: entry point, what it names, and the class of the process."""
    for group in ('aiida.workflows', 'aiida.calculations'):
        for point in find_points(group):
            found = point.load()
            yield point, found, found if inspect.isclass(found) else found.process_class


def find_settings() -> list[type[Settings] | type[Options]]:
    """Return all classes of settings in the package, by title; no list of them has to be kept."""
    for module in pkgutil.walk_packages(aiida_oodal.__path__, 'aiida_oodal.'):
        if not module.name.endswith('__main__'):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                logger.warning('%s cannot be imported: %s', module.name, error)
    found = [kind for base in (Settings, Options) for kind in _subclasses(base)]
    ours = {kind for kind in found if kind.__module__.startswith('aiida_oodal.') and 'TITLE' in vars(kind)}
    return sorted(
        (kind for kind in ours if hasattr(importlib.import_module(kind.__module__), kind.__name__)),
        key=lambda kind: kind.TITLE.lower(),
    )


def render_entry_points() -> str:
    """Return a table of each group."""
    lines = []
    for group, title in GROUPS.items():
        rows = [(f'`{point.name}`', f'`{point.value}`', _first_line(point.load())) for point in find_points(group)]
        lines += [
            f'## {title}',
            '',
            f'Group `{group}`.',
            '',
            *_table(('name', 'class or function', 'what it is'), rows),
        ]
    return '\n'.join(lines)


def render_workchains() -> str:
    """Return a section for each WorkChain."""
    return '\n'.join(line for each in find_processes() if issubclass(each[2], WorkChain) for line in _section(*each))


def render_calculations() -> str:
    """Return a section for each CalcJob and each calcfunction, in this order."""
    jobs = [each for each in find_processes() if issubclass(each[2], CalcJob)]
    others = [each for each in find_processes() if not issubclass(each[2], (CalcJob, WorkChain))]
    lines = ['## Jobs', '', *(line for each in jobs for line in _section(*each, depth=3))]
    lines += ['## Calcfunctions', '', *(line for each in others for line in _section(*each, depth=3))]
    return '\n'.join(lines)


def render_exit_codes() -> str:
    """Return one table of all exit codes, each with the processes that have it."""
    kinds = {process: point.name for point, _, process in find_processes()}
    having: dict[tuple[int, str, str], list[type[Process]]] = defaultdict(list)
    for process in kinds:
        for label, code in process.spec().exit_codes.items():
            having[code.status, label, code.message].append(process)
    jobs = [process for process in kinds if issubclass(process, CalcJob)]
    chains = [process for process in kinds if issubclass(process, WorkChain)]
    groups = {'all processes': list(kinds), 'all jobs': jobs, 'all WorkChains': chains}
    rows = []
    for (status, label, message), processes in sorted(having.items()):
        names = [name for name, group in groups.items() if set(processes) == set(group)]
        who = names[0] if names else ', '.join(f'`{kinds[process]}`' for process in processes)
        rows.append((str(status), f'`{label}` {message}', who))
    return '\n'.join(_table(('code', 'label and message', 'of'), rows))


def render_settings() -> str:
    """Return a section with the fields of each class of settings."""
    lines = []
    for kind in find_settings():
        model = settings_of(kind) if issubclass(kind, Options) else kind
        rows = [
            (
                f'`{name}`',
                describe_allowed(model, name).replace("'", '`'),
                _default(model, field),
                field.description or '',
            )
            for name, field in model.model_fields.items()
        ]
        lines += [
            f'## {kind.TITLE[0].upper()}{kind.TITLE[1:]}',
            '',
            f'```{{py:class}} {kind.__module__}.{kind.__name__}',
            ':no-typesetting:',
            '```',
            '',
            f'`{kind.__module__}.{kind.__name__}`. {_first_line(kind)}',
            '',
            *_table(('field', 'allowed', 'default', 'what it is'), rows),
        ]
    return '\n'.join(lines)


def render_protocols() -> str:
    """Return the protocols as they stand in the package."""
    lines = []
    for path in sorted(_PROTOCOLS.glob('*.yaml')):
        lines += [f'## {path.stem.replace("_", ", ", 1)}', '', '```yaml', path.read_text().rstrip(), '```', '']
    values = yaml.safe_dump(PROTOCOLS, sort_keys=False, default_flow_style=None)
    lines += ['## MACE training settings', '', 'What `protocol` of these settings stands for:', '']
    return '\n'.join([*lines, '```yaml', values.rstrip(), '```', ''])


def render_commands() -> str:
    """Return the help of all commands."""
    return '\n'.join(_command_help(main, ('aiida-oodal',)))


PARTS: dict[str, Callable[[], str]] = {
    'calculations': render_calculations,
    'commands': render_commands,
    'entry_points': render_entry_points,
    'exit_codes': render_exit_codes,
    'protocols': render_protocols,
    'settings': render_settings,
    'workchains': render_workchains,
}


def _section(point: EntryPoint, found: Any, process: type[Process], *, depth: int = 2) -> list[str]:
    """Describe one process: docstring, how to fill its builder, ports, outline, exit codes of its own."""
    module, name = point.value.split(':')
    base = (CalcJob, WorkChain)[issubclass(process, WorkChain)] if inspect.isclass(found) else Process
    known = {(code.status, code.message) for code in base.spec().exit_codes.values()}
    codes = [
        (str(code.status), f'`{label}` {code.message}')
        for label, code in sorted(process.spec().exit_codes.items(), key=lambda item: item[1].status)
        if (code.status, code.message) not in known
    ]
    how = [f'.. autofunction:: {module}.{name}']
    if inspect.isclass(found):
        how = [f'.. autoclass:: {module}.{name}']
        if 'get_builder_from_protocol' in vars(found):
            how += ['   :members: get_builder_from_protocol']
    lines = [f'{"#" * depth} `{point.name}`', '', '```{eval-rst}', *how, '```', '']
    lines += [f'```{{py:aiida-process}} {name}', f':module: {module}', '```', '']
    if codes:
        lines += [f'**Exit codes** beside those of {base.__name__}', '', *_table(('code', 'label and message'), codes)]
    return lines


def _command_help(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines about a command, then those about its commands."""
    context = click.Context(command, info_name=' '.join(path), max_content_width=100)
    yield from (f'{"#" * min(len(path) + 1, 3)} `{" ".join(path)}`', '', '```text')
    yield from command.get_help(context).splitlines()
    yield from ('```', '')
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _command_help(below, (*path, name))


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _default(model: type[Settings], field: Any) -> str:
    """Return the default of a field as code; of one that must be given, where it comes from."""
    if field.default_factory is not None:
        return f'`{field.default_factory()!r}`'
    if field.default is PydanticUndefined:
        return 'of the [protocol](protocols.md)' if 'protocol' in model.model_fields else 'must be given'
    return f'`{field.default!r}`'


def _first_line(found: Any) -> str:
    """Return the first sentence of a docstring, with code quoted as in Markdown."""
    text = inspect.getdoc(found) or ''
    first = ' '.join(text.split('\n\n')[0].split())
    return re.sub(r':\w+:`[~.!]?([^`]*)`', r'`\1`', first).replace('``', '`')


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [head, tuple('---' for _ in head), *rows]
    return ['| ' + ' | '.join(cell.replace('|', '\\|').replace('\n', ' ') for cell in row) + ' |' for row in lines] + [
        ''
    ]


def fill_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the generated parts into a page when it is read."""
    source[0] = _MARK.sub(lambda match: PARTS[match[1]](), source[0])


def find_filled(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Return the pages with generated parts: they are read in every build, since any module may have changed."""
    return [name for name in env.found_docs if _MARK.search(Path(env.doc2path(name)).read_text(encoding='utf-8'))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Fill pages, and leave out the signature of processes: inputs are given to a builder."""
    app.connect('env-get-outdated', find_filled)
    app.connect('source-read', fill_page)
    app.connect('autodoc-process-signature', _hide_signature)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}


def _hide_signature(
    app: Sphinx, what: str, name: str, found: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    return ('', '') if inspect.isclass(found) and issubclass(found, Process) else None
