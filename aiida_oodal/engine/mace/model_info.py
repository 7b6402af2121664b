"""Elements, cutoff and layers of a MACE model, and whether several models make an ensemble; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aiida_oodal.engine.errors import OodalError

__all__ = ['ModelInfo', 'check_ensemble']


@dataclass(frozen=True)
class ModelInfo:
    """What a MACE model says about itself; plain values, so that it goes into ``results.json`` as it is.

    :param elements: symbols the model knows, in its own order.
    :param cutoff: angstrom.
    :param layout: irreps of the node features of each layer, e.g. ``('128x0e+128x1o', '128x0e')``.
    :param invariants: number of invariant features of each layer.
    :param dtype: floating point type of the parameters in the file.
    """

    label: str
    file: str
    sha256: str
    kind: str
    elements: tuple[str, ...]
    cutoff: float
    layout: tuple[str, ...]
    invariants: tuple[int, ...]
    dtype: str
    heads: tuple[str, ...]
    n_parameters: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def check_ensemble(infos: Mapping[str, ModelInfo]) -> None:
    """Refuse models that do not differ in their seed only.

    :raises OodalError: naming the two models, what differs and both values.
    """
    if not infos:
        raise OodalError('an ensemble needs at least one model; give two or more for scores')
    first, *others = infos.values()
    for other in others:
        for what, unit in (('cutoff', ' angstrom'), ('elements', ''), ('layout', '')):
            mine, theirs = getattr(first, what), getattr(other, what)
            same = set(mine) == set(theirs) if what == 'elements' else mine == theirs
            if not same:
                raise OodalError(
                    f'models {first.label} and {other.label} are no ensemble: {what} {_text(mine)}{unit} and '
                    f'{_text(theirs)}{unit}; use models that differ in their seed only'
                )


def _text(value: Any) -> str:
    return ' '.join(value) if isinstance(value, tuple) else str(value)
