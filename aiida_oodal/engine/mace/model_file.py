"""What the file of a MACE model says without being opened: nothing is unpickled here, so that a host may ask."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

__all__ = ['check_head', 'find_heads', 'is_compiled']

#: Operations of a pickle that put a text on the stack, keep it for later, and take it out again.
_TEXT = frozenset({'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'UNICODE'})
_KEEP = frozenset({'BINPUT', 'LONG_BINPUT', 'PUT', 'MEMOIZE'})
_TAKE = frozenset({'BINGET', 'LONG_BINGET', 'GET'})


def find_heads(path: Path) -> tuple[str, ...] | None:
    """Return the names of the heads of a model; None where the file does not say.

    The attribute ``heads`` of the model is a list of texts in the pickle of torch's archive. The pickle is read
    operation by operation (:mod:`pickletools`), and never run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(each for each in archive.namelist() if each.endswith('/data.pkl'))
            content = archive.read(name)
        return _find_texts_under(content, 'heads')
    except (zipfile.BadZipFile, StopIteration, ValueError, KeyError, IndexError):
        return None  # written by a torch before 1.6, or not by torch


def is_compiled(path: Path) -> bool:
    """Say whether a file holds a model that was compiled to TorchScript, as ``*_compiled.model``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith('/constants.pkl') for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def check_head(heads: tuple[str, ...] | None, head: str | None, what: str) -> str | None:
    """Say that a model has not the head that is asked for, and where to ask for another; None if all is well.

    :param heads: of the model; None where they are not known.
    :param head: the one that is asked for; None for the only one, or the one named ``default``.
    :param what: how messages call the model.
    """
    names = [name.lower() for name in heads or ()]
    if not names or (head is None and (len(names) == 1 or 'default' in names)):
        return None
    if head is not None and head.lower() in names:
        return None
    asked = 'none of them is asked for' if head is None else f'head = {head!r} is none of them'
    return (
        f'{what} has the heads {", ".join(heads or ())}, and {asked}: set `head` to the one whose energies and forces '
        'you want (`latents: {head: NAME}` in a file of targets, `embed.settings` of a screening, `ensemble.settings` '
        'where models drive MD or grade clusters)'
    )


def _find_texts_under(content: bytes, key: str) -> tuple[str, ...] | None:
    """Return the list of texts that stands under a key in a pickle; the last one, which is the model's own."""
    kept: dict[Any, Any] = {}
    found: tuple[str, ...] | None = None
    previous: Any = None
    collecting: list[str] | None = None
    wanted = False  # the key was the last value
    for operation, argument, _ in pickletools.genops(content):
        name = operation.name
        if name in _KEEP:
            kept[len(kept) if name == 'MEMOIZE' else argument] = previous
            continue
        previous = argument if name in _TEXT else kept.get(argument) if name in _TAKE else None
        if collecting is not None:
            if isinstance(previous, str):
                collecting.append(previous)
            elif name in ('APPEND', 'APPENDS'):
                found, collecting = tuple(collecting), None
            elif name != 'MARK':
                collecting = None
        elif wanted and name == 'EMPTY_LIST':
            collecting = []
        wanted = previous == key
    return found
