"""A linear ACE potential with the active set that makes it know its limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiida.orm import Data
from aiida.orm.pydantic import OrmMetadataField

from aiida_oodal.engine.learn.ace_files import check_active_set, read_ace_header


class AcePotentialData(Data):
    """B-basis, active set and, where wanted, the tabulated form of one potential.

    :param basis: the ``.yaml`` B-basis that ``pair_style pace/extrapolation`` and pyace read.
    :param active_set: the ``.asi`` inverse active set that belongs to it.
    :param tabulated: the ``.yace`` form for plain ``pair_style pace``.
    :raises OodalError: if a file is not what its name says, or the active set belongs to another basis.
    """

    BASIS = 'potential.yaml'
    ACTIVE_SET = 'active_set.asi'
    TABULATED = 'potential.yace'

    class AttributesModel(Data.AttributesModel):
        """What can be queried without opening a file."""

        elements: list[str] = OrmMetadataField(description='Elements in the order of the potential')
        cutoff: float = OrmMetadataField(description='Largest cutoff, angstrom')
        n_functions: int = OrmMetadataField(description='Basis functions of all elements together')

    def __init__(
        self,
        basis: Path | str | None = None,
        active_set: Path | str | None = None,
        tabulated: Path | str | None = None,
        **kwargs: Any,
    ) -> None:
        if basis is None or active_set is None:
            super().__init__(**kwargs)
            return
        header = read_ace_header(Path(basis))
        check_active_set(Path(active_set), header)
        super().__init__(**kwargs)
        for name, path in ((self.BASIS, basis), (self.ACTIVE_SET, active_set), (self.TABULATED, tabulated)):
            if path is not None:
                self.base.repository.put_object_from_file(str(path), name)
        self.base.attributes.set_many(
            {
                'elements': list(header.elements),
                'cutoff': float(header.cutoff),
                'n_functions': int(sum(header.number_of_functions.values())),
            }
        )

    @property
    def elements(self) -> list[str]:
        """Elements in the order of the potential."""
        return list(self.base.attributes.get('elements'))

    @property
    def cutoff(self) -> float:
        """Largest cutoff in angstrom."""
        return float(self.base.attributes.get('cutoff'))

    @property
    def n_functions(self) -> int:
        """Basis functions of all elements together."""
        return int(self.base.attributes.get('n_functions'))

    @contextmanager
    def as_files(self) -> Iterator[tuple[Path, Path]]:
        """Give the B-basis and the active set as files, for the time of a ``with`` block."""
        with TemporaryDirectory() as folder:
            for name in (self.BASIS, self.ACTIVE_SET):
                (Path(folder) / name).write_bytes(self.base.repository.get_object_content(name, mode='rb'))
            yield Path(folder) / self.BASIS, Path(folder) / self.ACTIVE_SET
