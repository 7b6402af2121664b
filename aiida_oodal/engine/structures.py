"""Many structures in flat arrays: the form in which they are stored, sent to jobs and read back."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from .errors import OodalError

_ATOMS_PREFIX = 'atoms__'
_INFO_PREFIX = 'info__'
#: What numpy and zipfile raise on files that are cut, damaged or of another kind.
_UNREADABLE = (ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
_CORE = ('offsets', 'numbers', 'positions', 'cells', 'pbc')


@dataclass(frozen=True, eq=False)
class StructureSet:
    """Ordered structures as flat arrays; structure ``i`` owns atoms ``offsets[i]:offsets[i + 1]``.

    :param offsets: shape ``(n_structures + 1,)``, starts at 0 and ends at ``n_atoms``.
    :param numbers: atomic numbers, shape ``(n_atoms,)``.
    :param positions: shape ``(n_atoms, 3)``, angstrom.
    :param cells: cell vectors in rows, shape ``(n_structures, 3, 3)``, angstrom.
    :param pbc: periodic axes, shape ``(n_structures, 3)``.
    :param arrays: any other per-atom arrays, shape ``(n_atoms, ...)``, e.g. ``gamma``, ``force_mask``, ``REF_forces``.
    :param info: per-structure values, shape ``(n_structures, ...)``, e.g. ``step``, ``REF_energy``.
    """

    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    info: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays whose lengths contradict each other."""
        n_structures, n_atoms = len(self.offsets) - 1, len(self.numbers)
        steps = np.diff(self.offsets)
        if n_structures < 0 or self.offsets[0] != 0 or self.offsets[-1] != n_atoms or np.any(steps < 0):
            raise OodalError(
                f'offsets must rise from 0 to the number of atoms ({n_atoms}), got {self.offsets!r}: the set is damaged'
            )
        lengths: list[tuple[str, NDArray[Any], int]] = [
            ('positions', self.positions, n_atoms),
            ('cells', self.cells, n_structures),
        ]
        lengths += [('pbc', self.pbc, n_structures), *((name, array, n_atoms) for name, array in self.arrays.items())]
        lengths += [(name, values, n_structures) for name, values in self.info.items()]
        for name, array, expected in lengths:
            if len(array) != expected:
                raise OodalError(f'{name!r} has {len(array)} entries where {expected} are needed: the set is damaged')

    @classmethod
    def from_atoms(cls, structures: Iterable[Atoms]) -> StructureSet:
        """Flatten structures; every per-atom array and every ``info`` value is kept.

        Floats that only some structures have are NaN for the others, text is empty.

        :raises OodalError: if an array cannot be joined (missing integers, different shapes, python objects).
        """
        frames = list(structures)
        sizes = np.array([len(atoms) for atoms in frames], dtype=np.int64)
        names = dict.fromkeys(name for atoms in frames for name in atoms.arrays if name not in {'numbers', 'positions'})
        keys = dict.fromkeys(key for atoms in frames for key in atoms.info)
        return cls(
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)]),
            numbers=np.concatenate([np.zeros(0, dtype=np.int64), *(atoms.numbers for atoms in frames)]),
            positions=np.concatenate([np.zeros((0, 3)), *(atoms.positions for atoms in frames)]),
            cells=np.array([np.array(atoms.cell) for atoms in frames], dtype=np.float64).reshape(-1, 3, 3),
            pbc=np.array([atoms.pbc for atoms in frames], dtype=bool).reshape(-1, 3),
            arrays={
                name: np.concatenate(_fill([atoms.arrays.get(name) for atoms in frames], name, sizes)) for name in names
            },
            info={key: np.stack(_fill([_as_array(atoms.info.get(key), key) for atoms in frames], key)) for key in keys},
        )

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Elements present, by atomic number."""
        return tuple(chemical_symbols[number] for number in np.unique(self.numbers))

    @property
    def n_atoms(self) -> int:
        """Atoms in all structures together."""
        return len(self.numbers)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Atoms:
        if not -len(self) <= index < len(self):
            raise IndexError(f'structure {index} was asked for; the set holds {len(self)}')
        index %= len(self)
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        atoms = Atoms(
            numbers=self.numbers[part], positions=self.positions[part], cell=self.cells[index], pbc=self.pbc[index]
        )
        for name, array in self.arrays.items():
            if not _is_missing(array[part]):
                atoms.arrays[name] = array[part].copy()
        atoms.info.update(
            {key: _as_value(values[index]) for key, values in self.info.items() if not _is_missing(values[index])}
        )
        return atoms

    def __iter__(self) -> Iterator[Atoms]:
        return (self[index] for index in range(len(self)))

    def part(self, start: int, stop: int | None = None) -> StructureSet:
        """Return the structures ``start <= index < stop``, of which there may be none; arrays are views.

        :param stop: ``None`` for all that follow.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        stop = max(start, stop)
        atoms = slice(int(self.offsets[start]), int(self.offsets[stop]))
        return StructureSet(
            offsets=self.offsets[start : stop + 1] - self.offsets[start],
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            cells=self.cells[start:stop],
            pbc=self.pbc[start:stop],
            arrays={name: array[atoms] for name, array in self.arrays.items()},
            info={key: values[start:stop] for key, values in self.info.items()},
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays under flat names, as :meth:`from_arrays` takes them."""
        core = {name: getattr(self, name) for name in _CORE}
        per_atom = {_ATOMS_PREFIX + name: array for name, array in self.arrays.items()}
        return core | per_atom | {_INFO_PREFIX + key: values for key, values in self.info.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> StructureSet:
        """Build a set from the names that :meth:`to_arrays` gives.

        :raises OodalError: if one of the five basic arrays is missing.
        """
        missing = [name for name in _CORE if name not in arrays]
        if missing:
            raise OodalError(f'a structure set needs the arrays {", ".join(_CORE)}; missing: {", ".join(missing)}')
        return cls(
            **{name: arrays[name] for name in _CORE},
            arrays={k.removeprefix(_ATOMS_PREFIX): v for k, v in arrays.items() if k.startswith(_ATOMS_PREFIX)},
            info={k.removeprefix(_INFO_PREFIX): v for k, v in arrays.items() if k.startswith(_INFO_PREFIX)},
        )

    def save(self, path: Path | str) -> None:
        """Write an ``.npz`` whose bytes depend on the content only."""
        np.savez(path, allow_pickle=False, **self.to_arrays())

    @classmethod
    def load(cls, path: Path | str) -> StructureSet:
        """Read what :meth:`save` wrote; nothing is unpickled.

        :raises OodalError: if the file is missing, cut, or not a structure set.
        """
        try:
            with Path(path).open('rb') as handle, np.load(handle, allow_pickle=False) as archive:
                return cls.from_arrays({name: archive[name] for name in archive.files})
        except OodalError as error:
            raise OodalError(f'{path}: {error}') from error
        except (*_UNREADABLE, OSError) as error:
            raise OodalError(f'{path} cannot be read as a structure set ({error}); was the job cut short?') from error


def _as_array(value: Any, key: str) -> NDArray[Any] | None:
    """Turn one ``info`` value into an array, or say that it cannot be stored."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype == object:
        raise OodalError(f'info[{key!r}] = {value!r} is neither a number, a text nor an array: remove or convert it')
    return array


def _fill(parts: list[NDArray[Any] | None], name: str, sizes: NDArray[np.int64] | None = None) -> list[NDArray[Any]]:
    """Give structures that lack a value a NaN (floats) or an empty text; ``sizes`` for per-atom arrays."""
    present = [part for part in parts if part is not None]
    skip = 0 if sizes is None else 1
    shapes = {part.shape[skip:] for part in present}
    if len(shapes) > 1:
        raise OodalError(f'{name!r} has different shapes in different structures: {sorted(shapes)}')
    if len(present) == len(parts):
        return present
    kind = np.result_type(*present)
    if kind.kind not in 'fU':
        index = next(i for i, part in enumerate(parts) if part is None)
        raise OodalError(f'{name!r} ({kind}) is missing in structure {index}: add it, or remove it from the others')
    blank: Any = np.nan if kind.kind == 'f' else ''
    shape = shapes.pop()
    filled: list[NDArray[Any]] = []
    for index, part in enumerate(parts):
        size = () if sizes is None else (int(sizes[index]),)
        filled.append(np.full((*size, *shape), blank, dtype=kind) if part is None else part)
    return filled


def _is_missing(values: NDArray[Any]) -> bool:
    """Tell the filling of :func:`_fill` from data."""
    array = np.asarray(values)
    if array.dtype.kind == 'f':
        return array.size > 0 and bool(np.all(np.isnan(array)))
    return array.dtype.kind == 'U' and array.size > 0 and bool(np.all(array == ''))


def _as_value(value: Any) -> Any:
    """Give scalars back as plain python values, arrays as they are."""
    return value.item() if np.ndim(value) == 0 else np.array(value)
