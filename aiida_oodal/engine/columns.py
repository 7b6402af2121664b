"""Values of one key, structure by structure, joined into one array; what does not fit is left out and said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .labels import LABEL_SHAPES

__all__ = ('Column', 'Joined', 'is_blank', 'plain_names')

#: Words that programs write where a number is missing.
_MISSING = frozenset(('', 'none', 'null', 'nan', 'n/a', 'na', '-', '--'))
#: Kinds of numpy types that a file of arrays holds: numbers, and text.
_NUMBERS, _TEXT = 'biufc', 'U'
#: Python types of which numpy makes the right array at once.
_PLAIN = (float, int, bool, str, np.float64, np.int64)
_NOT_PLAIN = re.compile(r'[^0-9A-Za-z_]')


class _UnstorableError(Exception):
    """A value that no array holds; the message says what it is."""


@dataclass(frozen=True)
class Joined:
    """One key over all structures.

    :param values: shape ``(n_structures, ...)`` or ``(n_atoms, ...)``; None if nothing could be kept. Where a structure
        has no value they are NaN (floats), an empty text, or 0 (integers and truth values; see ``present``).
    :param present: which structures have a value, shape ``(n_structures,)``, where the values themselves cannot say;
        else None.
    :param note: what was left out, where and why; None if everything was kept.
    """

    values: NDArray[Any] | None
    present: NDArray[np.bool_] | None = None
    note: str | None = None


class Column:
    """Collect the values of one key.

    :param title: what messages call it.
    :param per_atom: whether values have a row for each atom.
    :param shape: of a label (without the axis of the atoms): values that are no numbers of this shape are left out.
    """

    def __init__(self, title: str, *, per_atom: bool = False, shape: tuple[int, ...] | None = None) -> None:
        self._title, self._per_atom, self._shape = title, per_atom, shape
        self._owners: list[int] = []
        self._values: list[Any] = []
        self._dropped: dict[str, list[int]] = {}
        self._turned: list[int] = []

    def add(self, owner: int, value: Any) -> None:
        """Take the value of a structure; owners rise. ``None`` is no value."""
        if value is not None:
            self._owners.append(owner)
            self._values.append(value)

    def join(self, sizes: NDArray[np.int64], place: Callable[[int], str]) -> Joined:
        """Join the values, and forget them.

        Kept is the kind of value, number or text, that most structures have; numbers are kept as text where text wins,
        a text that is no number is left out where numbers do, and where it is a label. Of several shapes the most
        frequent one is kept.

        :param sizes: number of atoms of each structure.
        :param place: what messages call a structure.
        """
        values, owners = self._take(len(sizes))
        note = self._note(len(sizes), place)
        if values is None:
            return Joined(None, note=note)
        if len(owners) == len(sizes):
            if isinstance(values, list):
                values = np.concatenate(values) if self._per_atom else np.stack(values)
            return Joined(values, note=note)
        return self._fill(values, owners, sizes, note)

    def _take(self, total: int) -> tuple[NDArray[Any] | list[NDArray[Any]] | None, list[int]]:
        """Return what can be kept, and the structures that have it."""
        values, owners = self._values, self._owners
        self._values, self._owners = [], []
        plain = not self._per_atom and self._shape is None and len(owners) == total
        if plain and len(kinds := set(map(type, values))) == 1 and kinds <= set(_PLAIN):
            array = np.array(values)
            if array.dtype.kind in _NUMBERS + _TEXT:  # not so where an integer is too large
                return array, owners
        kept: list[tuple[int, NDArray[Any]]] = []
        for owner, value in zip(owners, values, strict=True):
            try:
                if (array_or_none := _as_stored(value)) is not None:
                    kept.append((owner, array_or_none))
            except _UnstorableError as reason:
                self._drop(owner, str(reason))
        kept = self._of_one_shape(self._of_one_kind(kept))
        return ([value for _, value in kept] or None), [owner for owner, _ in kept]

    def _drop(self, owner: int, reason: str) -> None:
        self._dropped.setdefault(reason, []).append(owner)

    def _of_one_kind(self, kept: list[tuple[int, NDArray[Any]]]) -> list[tuple[int, NDArray[Any]]]:
        """Make all values numbers, or all text."""
        texts = sum(value.dtype.kind == _TEXT for _, value in kept)
        if texts == 0 and self._shape is None:
            return kept
        real = sum(value.dtype.kind == _TEXT and not _is_missing(value) for _, value in kept)
        if self._shape is None and real > len(kept) - texts:
            self._turned = [owner for owner, value in kept if value.dtype.kind != _TEXT]
            return [(owner, value.astype(str)) for owner, value in kept]
        if self._shape is None and texts == len(kept):  # nothing but words for nothing: text as any other
            return kept
        numbers = []
        for owner, value in kept:
            found = _as_numbers(value)
            if found is not None and (self._shape is None or found.dtype.kind in 'iuf'):
                numbers.append((owner, found if self._shape is None else found.astype(np.float64, copy=False)))
            elif not _is_missing(value):
                what = value.item() if value.ndim == 0 else value.tolist()
                self._drop(owner, f'{_shorten(what)} is no number')
            else:
                self._drop(owner, f'{_shorten(value.tolist())} stands for a missing number')
        return numbers

    def _of_one_shape(self, kept: list[tuple[int, NDArray[Any]]]) -> list[tuple[int, NDArray[Any]]]:
        """Keep the values of the shape that is asked for, or that most have."""
        skip = 1 if self._per_atom else 0
        if self._shape is not None:
            kept = [(owner, _to_label_shape(value, self._shape, skip)) for owner, value in kept]
        shapes = Counter(value.shape[skip:] for _, value in kept)
        if self._shape is None and len(shapes) < 2:
            return kept
        wanted = self._shape if self._shape is not None else shapes.most_common(1)[0][0]
        for owner, value in kept:
            if value.shape[skip:] != wanted:
                self._drop(owner, f'its shape is {value.shape[skip:]}, not {wanted}')
        return [(owner, value) for owner, value in kept if value.shape[skip:] == wanted]

    def _note(self, total: int, place: Callable[[int], str]) -> str | None:
        """Say what was left out, in one sentence."""
        if self._turned:
            return (
                f'{self._title} is a text in most structures, and kept as text in {len(self._turned)} of {total} where '
                f'it is a number (first in {place(self._turned[0])})'
            )
        if not self._dropped:
            return None
        reason, owners = next(iter(self._dropped.items()))
        count = sum(map(len, self._dropped.values()))
        first = f'{place(owners[0])}: {reason}'
        others = len(self._dropped) - 1
        more = f', and {others} other reason{"s" if others > 1 else ""}' if others else ''
        return f'{self._title} is dropped in {count} of {total} structures ({first}{more})'

    def _fill(
        self, values: NDArray[Any] | list[NDArray[Any]], owners: list[int], sizes: NDArray[np.int64], note: str | None
    ) -> Joined:
        """Join values that some structures lack."""
        kind = np.result_type(*values)
        blank: Any = np.nan if kind.kind in 'fc' else '' if kind.kind == _TEXT else 0
        shape = (int(sizes.sum()), *values[0].shape[1:]) if self._per_atom else (len(sizes), *values[0].shape)
        whole = np.full(shape, blank, dtype=kind)
        stops = np.cumsum(sizes)
        for owner, value in zip(owners, values, strict=True):
            whole[slice(stops[owner] - sizes[owner], stops[owner]) if self._per_atom else owner] = value
        present = None
        if kind.kind in 'biu':
            present = np.zeros(len(sizes), dtype=bool)
            present[owners] = True
        return Joined(whole, present, note)


def is_blank(values: NDArray[Any]) -> bool:
    """Tell what :meth:`Column.join` gives to structures without a value from a value: all NaN, or all empty text."""
    array = np.asarray(values)
    if array.size == 0:
        return False
    if array.dtype.kind in 'fc':
        return bool(np.isnan(array).all())
    return array.dtype.kind == _TEXT and bool((array == '').all())


def plain_names(names: Iterable[Any], taken: Iterable[str] = ()) -> dict[Any, str]:
    """Give each key a name of letters, digits and underscores, which is what a database takes.

    Keys that are such names stay as they are. A key that would get the name of another, or of a label, gets a number.

    :param names: keys as they were found; text or anything else.
    :param taken: names that no changed key may have.
    """
    given = list(names)
    plain = {name: name for name in given if isinstance(name, str) and name and not _NOT_PLAIN.search(name)}
    used = {*plain.values(), *LABEL_SHAPES, *taken}
    for name in given:
        if name in plain:
            continue
        base = _NOT_PLAIN.sub('_', str(name)).strip('_') or 'key'
        new, number = base, 2
        while new in used:
            new, number = f'{base}_{number}', number + 1
        plain[name] = new
        used.add(new)
    return plain


def _as_stored(value: Any) -> NDArray[Any] | None:
    """Turn one value into an array of numbers or text; None if it is no value.

    :raises _UnstorableError: if it is neither.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        raise _UnstorableError(f'{_shorten(value)} is no array') from None
    if array.dtype.kind == 'O':
        array = _from_objects(array, value)
    if array.dtype.kind not in _NUMBERS + _TEXT:
        raise _UnstorableError(f'{_shorten(value)} is neither a number, a text nor an array of these')
    if array.size == 0 and array.ndim == 1:  # `key=` without a value
        return None
    return array.astype(np.float64) if array.dtype == np.longdouble else array


def _from_objects(array: NDArray[Any], value: Any) -> NDArray[Any]:
    """Turn an array of Python objects, such as words or numbers with ``None`` among them, into a plain one."""
    items = array.ravel().tolist()
    if items and all(isinstance(item, str) for item in items):
        return array.astype(str)
    if items and all(item is None or isinstance(item, (int, float)) for item in items):
        with suppress(OverflowError):  # an integer that is too large for either
            return array.astype(np.float64)
    raise _UnstorableError(f'{_shorten(value)} is neither a number, a text nor an array of these')


def _is_missing(value: NDArray[Any]) -> bool:
    """Tell words for a missing number from text."""
    return value.dtype.kind == _TEXT and all(word.strip().lower() in _MISSING for word in value.ravel().tolist())


def _as_numbers(value: NDArray[Any]) -> NDArray[Any] | None:
    """Return numbers, also of text that is one; None where there are none."""
    if value.dtype.kind != _TEXT:
        return value
    if _is_missing(value):
        return None
    try:
        return value.astype(np.float64)
    except ValueError:
        return None


def _to_label_shape(value: NDArray[Any], shape: tuple[int, ...], skip: int) -> NDArray[Any]:
    """Bring a label into its shape where only the writing differs: an energy as an array of one, a full stress."""
    if shape == () and value.size == 1 and not skip:
        return value.reshape(())
    if shape == (6,) and value.shape in ((3, 3), (9,)):
        full = value.reshape(3, 3)
        full = 0.5 * (full + full.T)
        return np.asarray(full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])
    return value


def _shorten(value: Any) -> str:
    """Return what a message shows of a value: its beginning, and the type of what is no text and no list."""
    text = ' '.join((value if isinstance(value, str) else repr(value)).split())
    text = text if len(text) <= 40 else f'{text[:37]}...'
    if isinstance(value, str):
        return repr(text)
    return text if isinstance(value, (list, tuple, int, float)) else f'{text} ({type(value).__name__})'
