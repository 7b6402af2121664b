"""Ordered structures with any per-atom arrays: training sets, MD snapshots, labelled sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ase.io
from aiida.orm import ArrayData, StructureData
from aiida.orm.pydantic import OrmMetadataField
from ase import Atoms

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.ood.stream import Failure, StructureStream
from aiida_oodal.engine.structures import StructureSet

from .arrays import read_arrays


class StructureSetData(ArrayData):
    """Structures as flat arrays with offsets, a ``.npy`` each: a :class:`~aiida_oodal.engine.structures.StructureSet`.

    :param structures: the structures; their per-atom arrays and ``info`` values are kept.
    """

    class AttributesModel(ArrayData.AttributesModel):
        """What can be queried without reading an array."""

        n_structures: int = OrmMetadataField(description='Number of structures')
        n_atoms: int = OrmMetadataField(description='Atoms in all structures together')
        symbols: list[str] = OrmMetadataField(description='Elements present, by atomic number')
        properties: list[str] = OrmMetadataField(description='Per-atom arrays and per-structure values beyond geometry')

    def __init__(self, structures: StructureSet | Iterable[Atoms] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if structures is None:
            return
        content = structures if isinstance(structures, StructureSet) else StructureSet.from_atoms(structures)
        for name, array in content.to_arrays().items():
            self.set_array(name, array)
        self.base.attributes.set_many(
            {
                'n_structures': len(content),
                'n_atoms': content.n_atoms,
                'symbols': list(content.symbols),
                'properties': sorted([*content.arrays, *content.info]),
            }
        )

    @classmethod
    def from_file(cls, path: Path | str, index: str = ':') -> StructureSetData:
        """Read any file that ASE reads; energies and forces found there become ``REF_energy`` and ``REF_forces``.

        :param index: which frames, as ASE writes it.
        """
        return cls(_with_reference_names(atoms) for atoms in ase.io.iread(path, index=index))

    @classmethod
    def read(cls, path: Path | str) -> tuple[StructureSetData, list[dict[str, Any]]]:
        """Read a structure set (``.npz``) or extended XYZ, also compressed, and leave out what cannot be read.

        :return: the node, and for each structure that is left out its position, line and the reason.
        :raises OodalError: if no structure can be read.
        """
        frames, failures = [], []
        for item in StructureStream(Path(path)):
            if isinstance(item, Failure):
                failures.append(item.as_dict())
            else:
                frames.append(_with_reference_names(item.atoms))
        if not frames:
            reason = failures[0]['message'] if failures else 'it is empty'
            raise OodalError(f'{path}: no structure can be read: {reason}')
        return cls(frames), failures

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return int(self.base.attributes.get('n_structures'))

    @property
    def n_atoms(self) -> int:
        """Atoms in all structures together."""
        return int(self.base.attributes.get('n_atoms'))

    @property
    def symbols(self) -> list[str]:
        """Elements present, by atomic number."""
        return list(self.base.attributes.get('symbols'))

    def get_set(self) -> StructureSet:
        """Return the structures as flat arrays."""
        return StructureSet.from_arrays(read_arrays(self))

    def get_atoms(self, index: int) -> Atoms:
        """Return structure ``index`` with all its arrays and values."""
        return self.get_set()[index]

    def __len__(self) -> int:
        return self.n_structures

    def __iter__(self) -> Iterator[Atoms]:
        return iter(self.get_set())


def get_structures(node: StructureData | StructureSetData) -> StructureSet:
    """Return the structures of either kind of node that users have.

    :param node: a :class:`~aiida.orm.StructureData` (one structure), a cluster, or a set.
    """
    if isinstance(node, StructureSetData):
        return node.get_set()
    return StructureSet.from_atoms([node.get_atoms() if hasattr(node, 'get_atoms') else node.get_ase()])


def _with_reference_names(atoms: Atoms) -> Atoms:
    """Move what ASE's readers put on a calculator to the names that training uses."""
    results = atoms.calc.results if atoms.calc is not None else {}
    for source, target, store in (
        ('energy', 'REF_energy', atoms.info),
        ('forces', 'REF_forces', atoms.arrays),
        ('stress', 'REF_stress', atoms.info),
    ):
        if source in results:
            store.setdefault(target, results[source])
    atoms.calc = None
    return atoms
