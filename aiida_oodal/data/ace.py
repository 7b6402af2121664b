"""A linear ACE potential with the active set from which gamma is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from aiida.orm.pydantic import OrmMetadataField

from aiida_oodal.engine.ace.files import check_active_set, read_ace_header
from aiida_oodal.engine.files import ACTIVE_SET_FILE, BASIS_FILE, TABULATED_FILE

from .potential import PotentialData


class AcePotentialData(PotentialData):
    """B-basis, active set and, where wanted, the tabulated form of one potential.

    :param basis: the ``.yaml`` B-basis that ``pair_style pace/extrapolation`` and pyace read.
    :param active_set: the ``.asi`` inverse active set that belongs to it.
    :param tabulated: the ``.yace`` form for plain ``pair_style pace``.
    :raises OodalError: if a file is not what its name says, or the active set belongs to another basis.
    """

    BASIS = BASIS_FILE
    ACTIVE_SET = ACTIVE_SET_FILE
    TABULATED = TABULATED_FILE
    KIND = 'ace'
    FILES: ClassVar[dict[str, str]] = {'yaml': BASIS, 'active_set': ACTIVE_SET}

    class AttributesModel(PotentialData.AttributesModel):
        """What can be queried without opening a file."""

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
    def n_functions(self) -> int:
        """Basis functions of all elements together."""
        return int(self.base.attributes.get('n_functions'))
