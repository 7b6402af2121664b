"""Which files of a package a module needs, read from their source: nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from aiida_oodal.engine.errors import OodalError

#: ``package.module`` or ``package.module:function``, as registries name what they load when it is asked for.
_NAME = re.compile(r'[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?=:[A-Za-z_]\w*$|$)')


def find_closure(package: Path, start: str) -> list[Path]:
    """Return the files of a package that a module imports, and those that these import, until nothing is added.

    Imports inside functions count. So do modules that are named by a text, ``'package.module'`` or
    ``'package.module:function'``: this is how registries name what they load. Imports for type checkers do not count.

    :param package: folder of the package.
    :param start: full name of the module to begin with.
    :return: sorted; with every module the ``__init__.py`` of the packages that it lies in.
    :raises OodalError: if a file imports a module of the package that is not there.
    """
    found: dict[str, Path] = {}
    waiting = [(start, start)]
    while waiting:
        name, importer = waiting.pop()
        if name in found:
            continue
        path = _find_file(package, name)
        if path is None:
            raise OodalError(f'{importer} imports {name}, which is not in {package}')
        found[name] = path
        outer = [name.rpartition('.')[0]] if '.' in name else []
        waiting += [(other, name) for other in [*outer, *_find_imports(package, name, path)]]
    return sorted(found.values())


def _find_file(package: Path, name: str) -> Path | None:
    """Return the file of a module of the package; None if there is none."""
    first, *parts = name.split('.')
    path = package.joinpath(*parts)
    if first == package.name:
        for file in (path / '__init__.py', path.with_suffix('.py')):
            if file.is_file():
                return file
    return None


def _find_imports(package: Path, module: str, path: Path) -> Iterator[str]:
    """Yield the modules of the package that one of its files imports or names."""
    here = module if path.name == '__init__.py' else module.rpartition('.')[0]
    for node in _walk(ast.parse(path.read_text(encoding='utf-8'), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split('.')[0] == package.name:
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = here.split('.')[: here.count('.') + 2 - node.level] if node.level else []
            name = '.'.join([*base, *([node.module] if node.module else [])])
            if name.split('.')[0] != package.name:
                continue
            yield name
            # What is imported from a package is a module of it, or a name in its ``__init__.py``.
            for alias in node.names:
                if _find_file(package, f'{name}.{alias.name}') is not None:
                    yield f'{name}.{alias.name}'
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _NAME.match(node.value)
            if match is not None and _find_file(package, match[0]) is not None:
                yield match[0]


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below one, but for what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith('TYPE_CHECKING'):
            for other in child.orelse:
                yield other
                yield from _walk(other)
            continue
        yield child
        yield from _walk(child)
