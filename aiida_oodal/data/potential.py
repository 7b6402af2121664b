"""The base class of potentials: attributes, and what jobs need of them."""

from __future__ import annotations

from typing import Any, ClassVar

from aiida.orm import Data
from aiida.orm.pydantic import OrmMetadataField

from .caching import StoredHash


class PotentialData(Data):
    """A potential that computes gamma itself; each family is a subclass and a ``kind`` in the engine's registries."""

    _CLS_NODE_CACHING = StoredHash

    #: Key of the engine's registries, :mod:`aiida_oodal.engine.evaluator`.
    KIND: ClassVar[str]
    #: Files that the engine reads, by the word under which it looks for their names in a job.
    FILES: ClassVar[dict[str, str]]

    class AttributesModel(Data.AttributesModel):
        """What can be queried without opening a file."""

        elements: list[str] = OrmMetadataField(description='Elements in the order of the potential')
        cutoff: float = OrmMetadataField(description='Largest cutoff, angstrom')

    @property
    def elements(self) -> list[str]:
        """Elements in the order of the potential."""
        return list(self.base.attributes.get('elements'))

    @property
    def cutoff(self) -> float:
        """Largest cutoff in angstrom."""
        return float(self.base.attributes.get('cutoff'))

    def describe(self) -> dict[str, Any]:
        """Return the description of the potential in a job file; its files keep their names."""
        return {'kind': self.KIND, 'elements': self.elements, **self.FILES}

    def list_copies(self) -> list[tuple[str, str, str]]:
        """Return the files for AiiDA's ``local_copy_list``."""
        return [(self.uuid, name, name) for name in self.FILES.values()]
