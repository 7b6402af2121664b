"""Whether a potential forgot: compare its errors with those of the one before, for each labelled set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from aiida_oodal.engine.options import Options, option

_MILLI = 1000.0
#: What the labels of anchors begin with, and the label of the validation set.
ANCHOR, VALIDATION = 'anchor_', 'validation'


@dataclass(frozen=True)
class GuardSettings(Options):
    """When a new potential or ensemble counts as worse than the one before, and what happens then."""

    TITLE: ClassVar[str] = 'guard'

    tolerance: float = option(
        1.2,
        'A labelled set got worse if its force error is larger than this times the error of the training before.',
        ge=1.0,
        le=100.0,
    )
    floor: float = option(0.01, 'Force errors up to this never count as worse, eV/angstrom.', ge=0.0, le=10.0)
    min_atoms: int = option(
        20, 'Elements with fewer atoms than this in a labelled set are not compared separately.', ge=1, le=10**9
    )
    action: Literal['keep_anchors', 'refuse', 'tell'] = option(
        'keep_anchors',
        'What happens if a set got worse. tell: the report says so, and the walkers use the new potential. refuse: the '
        'training is repeated once with other weights, and if that does not help, the walkers go on with the potential '
        'before; a potential that is too small for its training data may never be promoted again. keep_anchors: refuse '
        'if it is an anchor or the validation set, and tell if it is a set that the potential is trained on.',
    )


@dataclass(frozen=True)
class Worsening:
    """A labelled set, or an element in it, on which the force error rose beyond the tolerance.

    :param part: label of the labelled set.
    :param element: None for all atoms of the set.
    :param before: force RMSE of the training before, eV/angstrom.
    :param after: force RMSE of the new training, eV/angstrom.
    """

    part: str
    element: str | None
    before: float
    after: float

    def __str__(self) -> str:
        name = self.part if self.element is None else f'{self.part}, {self.element}'
        return f'{name}: {_MILLI * self.before:.1f} -> {_MILLI * self.after:.1f} meV/angstrom'

    def plain(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return asdict(self)


def find_worsened(
    before: Mapping[str, Any], after: Mapping[str, Any], settings: GuardSettings | None = None
) -> list[Worsening]:
    """Return the sets and elements that got worse, the largest factor first; only those that both trainings report.

    :param before: results of a training: force errors in meV/angstrom for each of its ``parts``, in ``by_element`` for
        the elements of a part; for clusters the errors of their ``core`` count. Without ``parts`` the errors on
        ``validation`` are taken.
    :param after: those of the next one.
    """
    limits = settings or GuardSettings()
    old, new = (_read_errors(results, limits.min_atoms) for results in (before, after))
    worse = [
        Worsening(part, element, old[part, element], error)
        for (part, element), error in new.items()
        if (part, element) in old and error > max(limits.floor, limits.tolerance * old[part, element])
    ]
    return sorted(worse, key=lambda each: each.before / each.after)


def find_forbidden(worse: Sequence[Worsening], settings: GuardSettings) -> list[Worsening]:
    """Return those for which a training is not promoted."""
    if settings.action == 'keep_anchors':
        return [each for each in worse if each.part == VALIDATION or each.part.startswith(ANCHOR)]
    return list(worse) if settings.action == 'refuse' else []


def factors_by_part(worse: Sequence[Worsening]) -> dict[str, float]:
    """Return the largest factor by which each set got worse; infinite if its error was 0 before."""
    factors: dict[str, float] = {}
    for each in worse:
        factor = each.after / each.before if each.before > 0.0 else float('inf')
        factors[each.part] = max(factor, factors.get(each.part, 0.0))
    return factors


def _read_errors(results: Mapping[str, Any], min_atoms: int) -> dict[tuple[str, str | None], float]:
    """Return force errors by part and element (None: all atoms), eV/angstrom."""
    parts = results.get('parts') or {VALIDATION: results.get('validation')}
    errors: dict[tuple[str, str | None], float] = {}
    for name, part in parts.items():
        if not part:
            continue
        whole = part.get('core') or part
        if 'force_rmse' in whole:
            errors[name, None] = whole['force_rmse'] / _MILLI
        if 'core' in part:
            continue  # those by element count buffer atoms, too
        for element, own in part.get('by_element', {}).items():
            if own.get('n_atoms', 0) >= min_atoms and 'force_rmse' in own:
                errors[name, element] = own['force_rmse'] / _MILLI
    return errors
