"""Latents of one set of structures under one MACE model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from aiida.orm import ArrayData
from aiida.orm.pydantic import OrmMetadataField

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents
from aiida_oodal.engine.ood.identity import ModelIdentity

from .arrays import attach_arrays
from .caching import StoredHash

#: Arrays that all models of an ensemble share, and those that each has its own of; file names of a ``latents`` job.
_SHARED = ('numbers', 'offsets', 'structure_index', 'fingerprints', 'isolated')
_OWN = ('latents', 'energies', 'forces')
#: What every node has; latents that were made by an older version, or read from a file, may lack the others.
_NEEDED = ('numbers', 'offsets', 'structure_index', 'latents')


class LatentsData(ArrayData):
    """Invariant node features of every atom of a set, or of a shard of it, and the energies that came with them.

    The arrays: ``latents`` (n_atoms, n_features); ``numbers`` (n_atoms,), atomic numbers; ``offsets``
    (n_structures + 1,), structure ``i`` owns atoms ``offsets[i]:offsets[i + 1]``; ``structure_index`` (n_structures,),
    the position in the set of structures; ``energies`` (n_structures,), eV; ``forces`` (n_atoms, 3), eV/angstrom, if
    they were asked for; ``fingerprints`` (n_structures, 6), which structures they are, and ``isolated``
    (n_structures,), which are one atom without neighbours.
    """

    _CLS_NODE_CACHING = StoredHash

    class AttributesModel(ArrayData.AttributesModel):
        """What can be queried without reading an array."""

        model_label: str = OrmMetadataField(description='Label of the model in its ensemble, e.g. w1')
        model_sha256: str | None = OrmMetadataField(None, description='SHA-256 of the model file')
        elements: list[str] = OrmMetadataField(description='Elements that the model knows')
        cutoff: float | None = OrmMetadataField(None, description='Cutoff of the model, angstrom')
        model_name: str | None = OrmMetadataField(None, description='Ensemble in the name of the file it was read from')
        layers: str | None = OrmMetadataField(None, description='Which layers the latents are of: all, last or first')
        n_features: int = OrmMetadataField(description='Latents of one atom')
        n_atoms: int = OrmMetadataField(description='Atoms in all structures together')
        n_structures: int = OrmMetadataField(description='Number of structures')
        first_structure: int = OrmMetadataField(description='Position of the first structure in its set')

    @classmethod
    def from_folder(cls, folder: Path, label: str, information: Mapping[str, Any]) -> LatentsData:
        """Take the latents of one model from the files of a ``latents`` job; they are streamed, not read.

        :param folder: holds ``numbers.npy``, ``offsets.npy``, ``structure_index.npy``, ``latents_<label>.npy``, ...
        :param information: of the model: ``sha256``, ``elements``, ``cutoff``, ``layers``, ``name`` as far as they are
            known.
        :raises FileNotFoundError: if a file is missing.
        """
        node = cls()
        paths = {name: folder / f'{name}.npy' for name in _SHARED}
        paths |= {name: folder / f'{name}_{label}.npy' for name in _OWN}
        arrays = attach_arrays(node, {n: path for n, path in paths.items() if n in _NEEDED or path.is_file()})
        index = arrays['structure_index']
        node.base.attributes.set_many(
            {
                'model_label': label,
                'model_sha256': information.get('sha256'),
                'model_name': information.get('name'),
                'elements': list(information['elements']),
                'cutoff': information.get('cutoff'),
                'layers': information.get('layers'),
                'n_features': int(arrays['latents'].shape[1]),
                'n_atoms': len(arrays['numbers']),
                'n_structures': len(index),
                'first_structure': int(index[0]) if len(index) else 0,
            }
        )
        return node

    @property
    def model_label(self) -> str:
        """Label of the model in its ensemble."""
        return str(self.base.attributes.get('model_label'))

    @property
    def first_structure(self) -> int:
        """Position of the first structure in its set."""
        return int(self.base.attributes.get('first_structure'))

    @property
    def identity(self) -> ModelIdentity:
        """Which model they are of, as far as it is known."""
        get = self.base.attributes.get
        return ModelIdentity(get('model_sha256'), get('cutoff'), get('layers'), get('model_name', None))

    def file_of(self, name: str) -> str:
        """Return the file name that an array has in the folder of a ``latents`` job."""
        return f'{name}.npy' if name in _SHARED else f'{name}_{self.model_label}.npy'

    def write(self, folder: Path) -> None:
        """Write the files of a ``latents`` job; a chunk at a time, so that memory stays flat."""
        for name in self.get_arraynames():
            path = folder / self.file_of(name)
            with self.base.repository.open(f'{name}.npy', 'rb') as source, path.open('wb') as target:
                shutil.copyfileobj(source, target)


def group_shards(nodes: Iterable[LatentsData]) -> list[dict[str, LatentsData]]:
    """Sort the latents of one set by shard, in the order of structures, and by label of the model.

    :param nodes: one for each model and shard, in any order.
    :raises OodalError: if a model lacks a shard or has two, or the models of a shard are of different structures.
    """
    shards: dict[int, dict[str, LatentsData]] = {}
    for node in nodes:
        shard = shards.setdefault(node.first_structure, {})
        if node.model_label in shard:
            raise OodalError(
                f'{shard[node.model_label]} and {node} are both of model {node.model_label!r} and begin at the same '
                'structure: give the latents of one set'
            )
        shard[node.model_label] = node
    labels = sorted({label for shard in shards.values() for label in shard})
    for first, shard in shards.items():
        if missing := sorted(set(labels) - set(shard)):
            raise OodalError(f'the latents from structure {first} on lack the models {", ".join(missing)}')
        one, *others = shard.values()
        for other in others:
            if wrong := [name for name in _SHARED if not _is_same(one, other, name)]:
                raise OodalError(
                    f'the latents from structure {first} on of {one.model_label} and {other.model_label} are of '
                    f'different structures (their {wrong[0]} differ): give the latents of one set'
                )
    return [dict(sorted(shard.items())) for _, shard in sorted(shards.items())]


def _is_same(one: LatentsData, other: LatentsData, name: str) -> bool:
    """Tell whether an array of two nodes is the same, as far as both have it."""
    if not {name} <= set(one.get_arraynames()) & set(other.get_arraynames()):
        return True
    keys = {node.base.repository.get_object(f'{name}.npy').key for node in (one, other)}
    # The key of what is stored is its hash; nothing has to be read.
    return len(keys) == 1 or bool(np.array_equal(one.get_array(name), other.get_array(name)))


def copy_shards(nodes: Iterable[LatentsData], name: str) -> tuple[list[tuple[str, str, str]], list[dict[str, Any]]]:
    """Say how the latents of one set get into a job: each shard into a folder of its own, file by file.

    :param nodes: one for each model and shard, in any order.
    :param name: of the set; begins the names of the folders.
    :return: ``(node uuid, name in the node, name in the job)`` of every file, and for the job file the folder and the
        labels of every shard, as the engine's commands take them.
    """
    copies, shards = [], []
    for number, shard in enumerate(group_shards(nodes)):
        folder = f'{name}_{number}'
        for node in shard.values():
            # What all models share is taken of the first.
            names = [each for each in node.get_arraynames() if each in _OWN or node is next(iter(shard.values()))]
            copies += [(node.uuid, f'{each}.npy', f'{folder}/{node.file_of(each)}') for each in names]
        shards.append({'folder': folder, 'labels': list(shard)})
    return copies, shards


@contextmanager
def open_ensemble(nodes: Iterable[LatentsData]) -> Iterator[EnsembleLatents]:
    """Give the latents of an ensemble for the time of a ``with`` block, shards joined in the order of structures.

    The files are copied out of the repository, as it may keep them packed; they are read in chunks.

    :param nodes: one for each model and shard, in any order.
    :raises OodalError: if a model lacks a shard, or the nodes do not belong together.
    """
    shards: Sequence[dict[str, LatentsData]] = group_shards(nodes)
    with ExitStack() as stack:
        parts = []
        for shard in shards:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            for node in shard.values():
                node.write(folder)
            parts.append(EnsembleLatents.open(folder, list(shard)))
        yield EnsembleLatents.concatenate(parts)
