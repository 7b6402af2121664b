"""Arrays that are stored with a header: what they are, and in which version of their format they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OodalError

__all__ = ['HEADER', 'read_header', 'take_prefix', 'write_folder', 'write_header']

#: Name of the array that holds the header: JSON as bytes.
HEADER = 'header'
_FORMAT = 'format'


def write_header(version: int, values: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return a header.

    :param version: of the format; raise it when older code would misread the arrays.
    :param values: anything that JSON holds.
    """
    return np.frombuffer(json.dumps({_FORMAT: version, **values}).encode(), dtype=np.uint8)


def read_header(arrays: Mapping[str, NDArray[Any]], what: str, version: int) -> dict[str, Any]:
    """Return the values of a header; arrays that were stored before there were versions have format 1.

    :param what: how messages call what is stored, e.g. ``the reference``.
    :param version: the newest format that the caller can read.
    :raises OodalError: if there is no header, or it was written in a newer format.
    """
    try:
        values: dict[str, Any] = json.loads(np.asarray(arrays[HEADER]).tobytes())
        found = int(values.pop(_FORMAT, 1))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise OodalError(f'{what} cannot be read: its header is missing or damaged ({error!r})') from error
    if found > version:
        raise OodalError(
            f'{what} was stored in format {found} by a newer version of aiida-oodal; this one reads formats up to '
            f'{version}: upgrade it (pip install --upgrade aiida-oodal), or compute {what} again with this version'
        )
    return values


def take_prefix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def write_folder(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write each array as ``<name>.npy`` into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f'{name}.npy', array, allow_pickle=False)
