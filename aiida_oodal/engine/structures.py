"""Many structures in flat arrays: the form in which they are stored, sent to jobs and read back."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from .columns import Column, is_blank, plain_names
from .constraints import MOVE_MASK, free_mask, hold, lost_constraints
from .errors import OodalError
from .labels import FORCES, LABEL_SHAPES

_ATOMS_PREFIX = 'atoms__'
_INFO_PREFIX = 'info__'
_PRESENT_PREFIX = 'has__'
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
    :param arrays: any other per-atom arrays, shape ``(n_atoms, ...)``, e.g. ``gamma``, ``force_mask``, ``REF_forces``;
        ``move_mask`` is False where an atom is held fixed.
    :param info: per-structure values, shape ``(n_structures, ...)``, e.g. ``step``, ``REF_energy``.
    :param present: which structures have a value, shape ``(n_structures,)``, by ``atoms__NAME`` or ``info__KEY``: of
        integers and truth values that some structures lack. Missing floats are NaN, missing texts empty.
    :param notes: what was left out or renamed on the way in; not part of what is stored in files.
    """

    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    info: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
        lengths += [(name, values, n_structures) for name, values in (*self.info.items(), *self.present.items())]
        for name, array, expected in lengths:
            if len(array) != expected:
                raise OodalError(f'{name!r} has {len(array)} entries where {expected} are needed: the set is damaged')

    @classmethod
    def from_atoms(cls, structures: Iterable[Atoms]) -> StructureSet:
        """Flatten structures by the rules of :class:`SetBuilder`; ``notes`` say what was left out or renamed."""
        builder = SetBuilder()
        for atoms in structures:
            builder.add(atoms)
        return builder.build()

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
            if name == MOVE_MASK:
                hold(atoms, array[part])
            elif self._has(_ATOMS_PREFIX + name, index) and not is_blank(array[part]):
                atoms.arrays[name] = array[part].copy()
        for key, values in self.info.items():
            if self._has(_INFO_PREFIX + key, index) and not is_blank(values[index]):
                atoms.info[key] = _as_value(values[index])
        return atoms

    def _has(self, name: str, index: int) -> bool:
        """Tell whether a structure has a value that is 0 where it has none."""
        return name not in self.present or bool(self.present[name][index])

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
            present={name: values[start:stop] for name, values in self.present.items()},
        )

    def split(self, key: str, rest: str) -> dict[str, StructureSet]:
        """Return the structures by a text in their ``info``, in their order.

        :param key: of the text.
        :param rest: name of those that have none.
        """
        if key not in self.info:
            return {rest: self}
        rows: dict[str, list[int]] = {}
        for row, text in enumerate(self.info[key].tolist()):
            rows.setdefault(text or rest, []).append(row)
        return {
            text: self.part(own[0], own[-1] + 1)
            if np.all(np.diff(own) == 1)
            else StructureSet.from_atoms(self[row] for row in own)
            for text, own in rows.items()
        }

    def with_plain_names(self) -> StructureSet:
        """Return the set with names of letters, digits and underscores only, which a database takes; notes tell."""
        names = {_ATOMS_PREFIX: plain_names(self.arrays), _INFO_PREFIX: plain_names(self.info)}
        changed = [(old, new) for each in names.values() for old, new in each.items() if old != new]
        if not changed:
            return self
        flat = {prefix + old: prefix + new for prefix, each in names.items() for old, new in each.items()}
        return replace(
            self,
            arrays={names[_ATOMS_PREFIX][name]: array for name, array in self.arrays.items()},
            info={names[_INFO_PREFIX][key]: values for key, values in self.info.items()},
            present={flat[name]: each for name, each in self.present.items()},
            notes=(*self.notes, *(_renamed(old, new) for old, new in changed)),
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays under flat names, as :meth:`from_arrays` takes them."""
        core = {name: getattr(self, name) for name in _CORE}
        per_atom = {_ATOMS_PREFIX + name: array for name, array in self.arrays.items()}
        per_structure = {_INFO_PREFIX + key: values for key, values in self.info.items()}
        return core | per_atom | per_structure | {_PRESENT_PREFIX + name: each for name, each in self.present.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> StructureSet:
        """Build a set from the names that :meth:`to_arrays` gives.

        :raises OodalError: if one of the five basic arrays is missing.
        """
        missing = [name for name in _CORE if name not in arrays]
        if missing:
            raise OodalError(f'a structure set needs the arrays {", ".join(_CORE)}; missing: {", ".join(missing)}')
        groups: dict[str, dict[str, NDArray[Any]]] = {_ATOMS_PREFIX: {}, _INFO_PREFIX: {}, _PRESENT_PREFIX: {}}
        for name, array in arrays.items():
            prefix = next((each for each in groups if name.startswith(each)), None)
            if prefix is not None:
                groups[prefix][name.removeprefix(prefix)] = array
        core: dict[str, Any] = {name: arrays[name] for name in _CORE}
        return cls(
            **core,
            arrays=groups[_ATOMS_PREFIX],
            info=groups[_INFO_PREFIX],
            present=groups[_PRESENT_PREFIX],
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


class SetBuilder:
    """Take structures one after another and flatten them into a :class:`StructureSet`.

    Geometry and labels are always kept. Every other per-atom array and ``info`` value is kept if it can be
    (:class:`~aiida_oodal.engine.columns.Column`), under a name of letters, digits and underscores; the notes of the set
    say what is left out or renamed. Results of a calculator are no labels here. Atoms that are held fixed become the
    array ``move_mask``.
    """

    def __init__(self) -> None:
        self._numbers: list[NDArray[Any]] = []
        self._positions: list[NDArray[Any]] = []
        self._cells: list[NDArray[Any]] = []
        self._pbc: list[NDArray[Any]] = []
        self._places: list[str | None] = []
        self._columns: dict[tuple[bool, Any], Column] = {}
        self._masks: dict[int, NDArray[np.bool_]] = {}
        self._lost: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, atoms: Atoms, place: str | None = None) -> None:
        """Take one structure; its arrays are not copied before :meth:`build`.

        :param place: what notes call it, such as ``frame 3 (line 20)``.
        """
        owner = len(self)
        self._numbers.append(atoms.arrays['numbers'])
        self._positions.append(atoms.arrays['positions'])
        self._cells.append(atoms.cell.array)
        self._pbc.append(atoms.pbc)
        self._places.append(place)
        for name, array in atoms.arrays.items():
            if name in ('numbers', 'positions', MOVE_MASK):
                continue
            if np.shape(array)[:1] == (len(atoms),):
                # a column of a larger table would keep all of it in memory
                self._column(True, name).add(owner, np.ascontiguousarray(array))
            else:
                self._lose(owner, f'array {name!r} is dropped: it has not one row for each atom')
        for key, value in atoms.info.items():
            self._column(False, key).add(owner, value)
        if (free := free_mask(atoms)) is not None:
            self._masks[owner] = free
        for name in lost_constraints(atoms):
            self._lose(owner, f'constraint {name} is not kept: only whole atoms, or their x, y and z, can be held')
        if results := sorted(getattr(atoms.calc, 'results', {})):
            self._lose(
                owner,
                f'results of a calculator ({", ".join(results)}) are not kept: they are labels only if you say so, as '
                "info['REF_energy'], arrays['REF_forces'], info['REF_stress']",
            )

    def build(self) -> StructureSet:
        """Return the set; to be called once, as what was collected is freed on the way."""
        sizes = np.array([len(numbers) for numbers in self._numbers], dtype=np.int64)
        notes = [self._count(reason, owners) for reason, owners in self._lost.items()]
        arrays: dict[str, NDArray[Any]] = {}
        info: dict[str, NDArray[Any]] = {}
        present: dict[str, NDArray[np.bool_]] = {}
        for per_atom, into, prefix in ((True, arrays, _ATOMS_PREFIX), (False, info, _INFO_PREFIX)):
            names = plain_names((key for of_atoms, key in self._columns if of_atoms is per_atom), taken=(MOVE_MASK,))
            for key, name in names.items():
                joined = self._columns.pop((per_atom, key)).join(sizes, self._place)
                notes += [] if joined.note is None else [joined.note]
                if joined.values is None:
                    continue
                into[name] = joined.values
                if joined.present is not None:
                    present[prefix + name] = joined.present
                if name != key:
                    notes.append(_renamed(key, name))
        if self._masks:
            arrays[MOVE_MASK] = self._join_masks(sizes)
        return StructureSet(
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)]),
            numbers=np.concatenate([np.zeros(0, dtype=np.int64), *_emptied(self._numbers)]),
            positions=np.concatenate([np.zeros((0, 3)), *_emptied(self._positions)]),
            cells=np.array(_emptied(self._cells), dtype=np.float64).reshape(-1, 3, 3),
            pbc=np.array(_emptied(self._pbc), dtype=bool).reshape(-1, 3),
            arrays=arrays,
            info=info,
            present=present,
            notes=tuple(notes),
        )

    def _column(self, per_atom: bool, key: Any) -> Column:
        if (column := self._columns.get((per_atom, key))) is None:
            shape = LABEL_SHAPES.get(key) if per_atom is (key == FORCES) else None
            title = f'{"array" if per_atom else "info"} {key!r}'
            column = self._columns[per_atom, key] = Column(title, per_atom=per_atom, shape=shape)
        return column

    def _place(self, owner: int) -> str:
        return self._places[owner] or f'structure {owner}'

    def _lose(self, owner: int, reason: str) -> None:
        self._lost.setdefault(reason, []).append(owner)

    def _count(self, reason: str, owners: list[int]) -> str:
        return f'{reason} ({len(owners)} of {len(self)} structures, first in {self._place(owners[0])})'

    def _join_masks(self, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Join what is held over all structures; by x, y and z only where it has to be."""
        by_axis = any(free.ndim == 2 for free in self._masks.values())
        whole = np.ones((int(sizes.sum()), 3) if by_axis else int(sizes.sum()), dtype=bool)
        stops = np.cumsum(sizes)
        for owner, free in self._masks.items():
            part = free[:, np.newaxis] if by_axis and free.ndim == 1 else free
            whole[stops[owner] - sizes[owner] : stops[owner]] = part
        return whole


def _renamed(old: Any, new: str) -> str:
    return f'{old!r} is kept as {new!r}: names are of letters, digits and underscores'


def _emptied(parts: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the parts of a list and empty it, so that they are freed as soon as they are joined."""
    taken = list(parts)
    parts.clear()
    return taken


def _as_value(value: Any) -> Any:
    """Give scalars back as plain python values, arrays as they are."""
    return value.item() if np.ndim(value) == 0 else np.array(value)
