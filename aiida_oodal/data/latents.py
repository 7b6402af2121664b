"""Latents of one set of structures under one MACE model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from aiida.orm import ArrayData
from aiida.orm.pydantic import OrmMetadataField

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.ensemble import EnsembleLatents

#: Arrays that all models of an ensemble share, and those that each has its own of; file names of a ``latents`` job.
_SHARED = ('numbers', 'offsets', 'structure_index')
_OWN = ('latents', 'energies', 'forces')


class LatentsData(ArrayData):
    """Invariant node features of every atom of a set, or of a shard of it, and the energies that came with them.

    The arrays: ``latents`` (n_atoms, n_features); ``numbers`` (n_atoms,), atomic numbers; ``offsets``
    (n_structures + 1,), structure ``i`` owns atoms ``offsets[i]:offsets[i + 1]``; ``structure_index`` (n_structures,),
    the position in the set of structures; ``energies`` (n_structures,), eV; ``forces`` (n_atoms, 3), eV/angstrom, if
    they were asked for.
    """

    class AttributesModel(ArrayData.AttributesModel):
        """What can be queried without reading an array."""

        model_label: str = OrmMetadataField(description='Label of the model in its ensemble, e.g. w1')
        model_sha256: str | None = OrmMetadataField(None, description='SHA-256 of the model file')
        elements: list[str] = OrmMetadataField(description='Elements that the model knows')
        cutoff: float | None = OrmMetadataField(None, description='Cutoff of the model, angstrom')
        layers: str | None = OrmMetadataField(None, description='Which layers the latents are of: all, last or first')
        n_features: int = OrmMetadataField(description='Latents of one atom')
        n_atoms: int = OrmMetadataField(description='Atoms in all structures together')
        n_structures: int = OrmMetadataField(description='Number of structures')
        first_structure: int = OrmMetadataField(description='Position of the first structure in its set')

    @classmethod
    def from_folder(cls, folder: Path, label: str, information: Mapping[str, Any]) -> LatentsData:
        """Take the latents of one model from the files of a ``latents`` job; they are streamed, not read.

        :param folder: holds ``numbers.npy``, ``offsets.npy``, ``structure_index.npy``, ``latents_<label>.npy``, ...
        :param information: of the model: ``sha256``, ``elements``, ``cutoff``, ``layers`` as far as they are known.
        :raises FileNotFoundError: if a file is missing.
        """
        node = cls()
        shapes: dict[str, tuple[int, ...]] = {}
        for name in (*_SHARED, *_OWN):
            path = folder / (f'{name}.npy' if name in _SHARED else f'{name}_{label}.npy')
            if name == 'forces' and not path.is_file():
                continue
            if name == 'energies' and not path.is_file():
                continue
            # Only the header is read; the file goes into the repository as it is.
            shapes[name] = np.load(path, mmap_mode='r', allow_pickle=False).shape
            node.base.repository.put_object_from_file(str(path), f'{name}.npy')
            node.base.attributes.set(f'{cls.array_prefix}{name}', list(shapes[name]))
        index = np.load(folder / 'structure_index.npy', allow_pickle=False)
        node.base.attributes.set_many(
            {
                'model_label': label,
                'model_sha256': information.get('sha256'),
                'elements': list(information['elements']),
                'cutoff': information.get('cutoff'),
                'layers': information.get('layers'),
                'n_features': int(shapes['latents'][1]),
                'n_atoms': int(shapes['numbers'][0]),
                'n_structures': int(shapes['structure_index'][0]),
                'first_structure': int(index[0]) if len(index) else 0,
            }
        )
        return node

    @property
    def model_label(self) -> str:
        """Label of the model in its ensemble."""
        return str(self.base.attributes.get('model_label'))

    def write(self, folder: Path) -> None:
        """Write the files of a ``latents`` job; a chunk at a time, so that memory stays flat."""
        for name in self.get_arraynames():
            path = folder / (f'{name}.npy' if name in _SHARED else f'{name}_{self.model_label}.npy')
            with self.base.repository.open(f'{name}.npy', 'rb') as source, path.open('wb') as target:
                shutil.copyfileobj(source, target)


@contextmanager
def open_ensemble(nodes: Iterable[LatentsData]) -> Iterator[EnsembleLatents]:
    """Give the latents of an ensemble for the time of a ``with`` block, shards joined in the order of structures.

    The files are copied out of the repository, as it may keep them packed; they are read in chunks.

    :param nodes: one for each model and shard, in any order.
    :raises OodalError: if a model lacks a shard, or the nodes do not belong together.
    """
    shards: dict[int, dict[str, LatentsData]] = {}
    for node in nodes:
        shard = shards.setdefault(int(node.base.attributes.get('first_structure')), {})
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
    with ExitStack() as stack:
        parts = []
        for _, shard in sorted(shards.items()):
            folder = Path(stack.enter_context(TemporaryDirectory()))
            for node in shard.values():
                node.write(folder)
            parts.append(EnsembleLatents.open(folder, labels))
        yield EnsembleLatents.concatenate(parts)
