"""Many arrays of a node at once: read from its repository, or put there as files."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from aiida.orm import ArrayData
from numpy.typing import NDArray

from aiida_oodal.engine.arrays import HEADER


def read_arrays(node: ArrayData) -> dict[str, NDArray[Any]]:
    """Return all arrays of a node by name, as ``node.arrays`` does, for a fraction of its cost.

    AiiDA opens the object store of a profile anew for each array; here it is opened once, and not at all where the
    node's own cache, in which what is read stays, has them already.

    :param node: stored or not.
    :raises FileNotFoundError: if the repository has lost a file of the node.
    """
    names = node.get_arraynames()
    if node.is_stored:
        cache = node._cached_arrays
        missing: dict[str, list[str]] = {}
        for name in names:
            if name not in cache:
                # Arrays of the same content are one object.
                missing.setdefault(node.base.repository.get_object(f'{name}.npy').key, []).append(name)
        streams = node.backend.get_repository().iter_object_streams(list(missing)) if missing else ()
        for key, stream in streams:
            array = np.load(stream, allow_pickle=False)
            for name in missing[key]:
                cache[name] = array.copy(order='K') if len(missing[key]) > 1 else array
    return {name: node.get_array(name) for name in names}


def attach_arrays(node: ArrayData, paths: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
    """Put ``.npy`` files into a node as they are, streamed; only their headers are read.

    :param paths: file by name of the array.
    :return: the arrays by name, mapped and not read.
    :raises FileNotFoundError: if a file is missing.
    """
    arrays = {}
    for name, path in paths.items():
        arrays[name] = np.load(path, mmap_mode='r', allow_pickle=False)
        node.base.repository.put_object_from_file(str(path), f'{name}.npy')
        node.base.attributes.set(f'{node.array_prefix}{name}', list(arrays[name].shape))
    return arrays


def attach_folder(node: ArrayData, folder: Path) -> dict[str, NDArray[Any]]:
    """Put all arrays that a command wrote into a folder into a node, as :func:`attach_arrays` does.

    :raises FileNotFoundError: if there are none.
    """
    header = folder / f'{HEADER}.npy'
    if not header.is_file():
        raise FileNotFoundError(errno.ENOENT, 'the job did not leave it', str(header))
    return attach_arrays(node, {path.stem: path for path in sorted(folder.glob('*.npy'))})
