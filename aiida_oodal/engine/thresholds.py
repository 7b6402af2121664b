"""The three thresholds of gamma, once for MD, carving and selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .errors import OodalError
from .options import Options, option

#: Gamma of atoms in a frame that neighbours or density show not to be physical: above every ceiling.
NOT_PHYSICAL = 1e12


@dataclass(frozen=True)
class Thresholds(Options):
    """The gamma above which an atom is worth a label, MD halts, or a frame is not physical; dimensionless, rising."""

    TITLE: ClassVar[str] = 'thresholds'

    gamma_select: float = option(
        2.0, 'Snapshots, centres and clusters with gamma above this are worth a label.', gt=0.0
    )
    gamma_break: float = option(5.0, 'MD halts when gamma of an atom is above this (uncertainty_threshold).', gt=0.0)
    gamma_ceiling: float = option(100.0, 'Frames whose largest gamma is above this are not physical.', gt=0.0)

    def __post_init__(self) -> None:
        """Refuse thresholds that do not rise."""
        if not self.gamma_select < self.gamma_break < self.gamma_ceiling:
            raise OodalError(
                f'thresholds must rise, gamma_select < gamma_break < gamma_ceiling, but are {self.gamma_select:g}, '
                f'{self.gamma_break:g}, {self.gamma_ceiling:g}'
            )
