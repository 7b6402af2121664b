"""Ordered structures with any per-atom arrays: training sets, MD snapshots, labelled sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiida.orm import ArrayData, StructureData
from aiida.orm.pydantic import OrmMetadataField
from ase import Atoms
from ase.data import atomic_masses

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.exchange.read import read_structures
from aiida_oodal.engine.structures import StructureSet

from .arrays import read_arrays
from .caching import StoredHash


class StructureSetData(ArrayData):
    """Structures as flat arrays with offsets, a ``.npy`` each: a :class:`~aiida_oodal.engine.structures.StructureSet`.

    :param structures: the structures; their per-atom arrays, ``info`` values and the atoms that they hold fixed are
        kept as :class:`~aiida_oodal.engine.structures.SetBuilder` keeps them, and ``notes`` say what is not.
    """

    _CLS_NODE_CACHING = StoredHash

    #: Notes name the file that the structures came from: the same structures are the same.
    _hash_ignored_attributes = ('notes',)

    class AttributesModel(ArrayData.AttributesModel):
        """What can be queried without reading an array."""

        n_structures: int = OrmMetadataField(description='Number of structures')
        n_atoms: int = OrmMetadataField(description='Atoms in all structures together')
        symbols: list[str] = OrmMetadataField(description='Elements present, by atomic number')
        properties: list[str] = OrmMetadataField(description='Per-atom arrays and per-structure values beyond geometry')
        notes: list[str] | None = OrmMetadataField(
            None, description='What was left out, renamed or taken for a label when the structures came in'
        )

    def __init__(self, structures: StructureSet | Iterable[Atoms] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if structures is None:
            return
        content = structures if isinstance(structures, StructureSet) else StructureSet.from_atoms(structures)
        content = content.with_plain_names()
        for name, array in content.to_arrays().items():
            self.set_array(name, array)
        self.base.attributes.set_many(
            {
                'n_structures': len(content),
                'n_atoms': content.n_atoms,
                'symbols': list(content.symbols),
                'properties': sorted([*content.arrays, *content.info]),
                'notes': list(content.notes),
            }
        )

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        index: str = ':',
        *,
        labels: Mapping[str, str] | None = None,
        elements: Sequence[str] | None = None,
    ) -> StructureSetData:
        """Read structures from a file of any format (:func:`~aiida_oodal.engine.exchange.read.read_structures`).

        :param index: which frames, as ASE writes it.
        :param labels: what labels are called in the file, e.g. ``{'energy': 'dft_energy', 'forces': 'dft_forces'}``.
        :param elements: element of each LAMMPS type, for files of LAMMPS that do not say it.
        :raises OodalError: if a frame cannot be read; :meth:`read` leaves such frames out.
        """
        reading = read_structures(path, index=index, labels=labels, elements=elements)
        if reading.failures:
            raise OodalError(
                f'{path}: {reading.failures[0].describe()} ({len(reading.failures)} such frames; StructureSetData.read '
                'leaves them out)'
            )
        return cls(reading.structures)

    @classmethod
    def read(
        cls,
        path: Path | str,
        *,
        labels: Mapping[str, str] | None = None,
        elements: Sequence[str] | None = None,
    ) -> tuple[StructureSetData, list[dict[str, Any]]]:
        """Read structures from a file as :meth:`from_file` does, and leave out what cannot be read.

        :return: the node, and for each structure that is left out its position, line and the reason.
        :raises OodalError: if no structure can be read.
        """
        reading = read_structures(path, labels=labels, elements=elements)
        return cls(reading.structures), [failure.as_dict() for failure in reading.failures]

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

    @property
    def notes(self) -> list[str]:
        """What was left out, renamed or taken for a label when the structures came in."""
        return list(self.base.attributes.get('notes', None) or [])

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
    return StructureSet.from_atoms([node.get_atoms() if hasattr(node, 'get_atoms') else _from_structure_data(node)])


def _from_structure_data(node: StructureData) -> Atoms:
    """Return a structure without the masses of its kinds, if these are those of the elements."""
    atoms: Atoms = node.get_ase()
    if np.allclose(atoms.get_masses(), atomic_masses[atoms.numbers], rtol=1e-4):
        atoms.arrays.pop('masses', None)
    return atoms
