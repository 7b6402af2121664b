"""The one way in for structures from files, with one policy for all formats (``docs/structures.md``)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from ase.io.formats import UnknownFileTypeError, filetype
from ase.utils import string2index

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.labels import LABEL_SHAPES
from aiida_oodal.engine.md.frame import FRAME_TITLE
from aiida_oodal.engine.structures import SetBuilder, StructureSet

from .foreign import iterate_ase, iterate_data_file, iterate_dump
from .labels import LabelTaker
from .stream import OPENERS, Failure, Structure, StructureStream, check_structure

__all__ = ('Reading', 'iterate_structures', 'name_place', 'read_structures')

_Items = Iterator[Structure | Failure]
#: Names for the formats that are read without ASE.
_SET, _DUMP, _TEXT = 'npz', 'lammps-dump-text', 'extxyz'
_LAMMPS = (_DUMP, 'lammps-data')
#: How many bytes are looked at to know a format, and how a data file of LAMMPS begins, after its title.
_PEEK = 2000
_DATA_FILE = re.compile(rb'\A[^\n]*\n(?:[ \t\r]*\n|[^\n#]*#[^\n]*\n)*[ \t]*\d+[ \t]+atoms\b')


@dataclass(frozen=True)
class Reading:
    """What a file holds.

    :param structures: those that could be read; their ``notes`` say what was left out, renamed or taken for what, and
        name the file.
    :param failures: the others, and why.
    """

    structures: StructureSet
    failures: list[Failure]


def read_structures(
    path: Path | str,
    *,
    index: str = ':',
    labels: Mapping[str, str] | None = None,
    elements: Sequence[str] | None = None,
) -> Reading:
    """Read structures from a file of any format.

    Read are structure sets (``.npz``) and extended XYZ, plain or compressed (``.gz``, ``.xz``, ``.bz2``); dumps and
    data files of LAMMPS; and whatever ASE reads. Geometry and labels are kept whatever stands beside them; the rest is
    kept where it can be, else dropped with a note.

    :param index: which frames, as ASE writes it: ``:``, ``-1``, ``10:20``.
    :param labels: what labels are called in the file: ``energy``, ``forces``, ``stress`` or ``virial`` -> key. Without
        it they are ``REF_energy``, ``REF_forces`` and ``REF_stress`` or, in formats that carry labels
        (:data:`.LABEL_FORMATS`), what the file says of energies and forces.
    :param elements: element of each LAMMPS type, for files of LAMMPS that do not say it.
    :raises OodalError: if the file is missing or of no kind that can be read, no structure can be read, a label that is
        named is nowhere, or nothing says which elements types are.
    """
    path = Path(path)
    file_format = _find_format(path)
    if elements is not None and file_format not in _LAMMPS:
        raise OodalError(f'{path}: elements are for files of LAMMPS; this one ({file_format}) names its own')
    chosen = _parse_index(index)
    notes: list[str] = []
    taker = LabelTaker(labels, file_format)
    if file_format == _SET and labels is None and chosen == slice(None):
        content = StructureSet.load(path)
        if _is_sound(content):
            return Reading(replace(content, notes=()), [])
    structures, failures = _collect(_iterate(path, file_format, chosen, elements, notes), taker)
    if not len(structures):
        nothing = f'it holds none, read as {file_format}' if chosen == slice(None) else f'it has none at index {index}'
        raise OodalError(f'{path}: no structure can be read: {failures[0].describe() if failures else nothing}')
    try:
        own = (*taker.notes(), *notes, *structures.notes)
    except OodalError as error:
        raise OodalError(f'{path}: {error}') from error
    return Reading(replace(structures, notes=tuple(f'{path}: {note}' for note in own)), failures)


def iterate_structures(path: Path | str) -> Iterator[Structure | Failure]:
    """Go through the structures of a file of any format, each by itself, and those that cannot be read.

    Labels are those that :func:`read_structures` takes; all else that the file says of a structure is left with it.

    :raises OodalError: if the file is missing, or of no kind that can be read.
    """
    path = Path(path)
    file_format = _find_format(path)
    taker = LabelTaker(None, file_format)
    for item in _iterate(path, file_format, slice(None), None, []):
        if isinstance(item, Structure):
            taker.take(item.atoms, name_place(item))
        yield item


def name_place(item: Structure | Failure) -> str:
    """Return where in its file a structure is: its frame and, where that is known, its line."""
    return f'frame {item.index}' if item.line is None else f'frame {item.index} (line {item.line})'


def _iterate(
    path: Path, file_format: str, chosen: int | slice, elements: Sequence[str] | None, notes: list[str]
) -> _Items:
    """Return the structures of a file as they stand in it."""
    if file_format == _SET:
        return _choose(_of_set(StructureSet.load(path)), chosen)
    if file_format == _TEXT:
        return _choose(iter(StructureStream(path)), chosen)
    if file_format == _DUMP:
        return _choose(iterate_dump(path, elements), chosen)
    if file_format == 'lammps-data':
        return _choose(iterate_data_file(path, elements, notes), chosen)
    return iterate_ase(path, file_format, chosen, notes)


def _collect(items: _Items, taker: LabelTaker) -> tuple[StructureSet, list[Failure]]:
    builder, failures = SetBuilder(), []
    for item in items:
        if isinstance(item, Failure):
            failures.append(item)
            continue
        taker.take(item.atoms, name_place(item))
        builder.add(item.atoms, name_place(item))
    return builder.build(), failures


def _find_format(path: Path) -> str:
    """Return the name of a format: what the first bytes say counts more than the name of the file."""
    if not path.exists():
        raise OodalError(f'{path} does not exist')
    if path.is_dir():
        return str(filetype(str(path)))
    try:
        with cast(IO[bytes], OPENERS.get(path.suffix, open)(path, 'rb')) as stream:
            start = stream.read(_PEEK)
    except (OSError, EOFError) as error:
        raise OodalError(f'{path} cannot be read ({type(error).__name__}: {error})') from error
    if path.suffix == '.npz':
        return _SET
    if start.startswith(FRAME_TITLE):
        return _DUMP
    if start.split(b'\n', 1)[0].strip().isdigit() or _stem(path).suffix in ('.xyz', '.extxyz'):
        return _TEXT
    if _DATA_FILE.match(start):
        return 'lammps-data'
    try:
        found = str(filetype(str(path)))
    except UnknownFileTypeError as error:
        raise OodalError(f'{path}: ASE does not know what kind of file this is ({error})') from error
    if found in ('lammps-dump-binary', 'netcdftrajectory'):  # ASE takes their types for atomic numbers
        raise OodalError(f'{path}: {found} is not read: write a text dump (`dump custom`, or `binary2txt` of LAMMPS)')
    return _TEXT if found == 'xyz' else found


def _stem(path: Path) -> Path:
    """Return a path without the suffix of its compression."""
    return path.with_suffix('') if path.suffix in OPENERS else path


def _parse_index(text: str) -> int | slice:
    """Read an index as ASE writes it.

    :raises OodalError: if it is none.
    """
    try:
        index = string2index(text)
    except ValueError:
        index = text
    if not isinstance(index, (int, slice)):
        raise OodalError(f'index = {text!r} is none: write `:`, `0`, `-1` or `10:20:2`')
    return index


def _choose(items: _Items, index: int | slice) -> _Items:
    """Yield the items that an index means; those that are counted from the end are looked for in memory."""
    if isinstance(index, int):
        if index >= 0:
            return _between(items, index, index + 1, 1)
        last = deque(items, maxlen=-index)
        return iter([last[0]] if len(last) == -index else [])
    start, stop, step = index.start or 0, index.stop, index.step or 1
    if start >= 0 and step > 0 and (stop is None or stop >= 0):
        return _between(items, start, stop, step)
    return iter(list(items)[index])


def _between(items: _Items, start: int, stop: int | None, step: int) -> _Items:
    for item in items:
        if stop is not None and item.index >= stop:
            return
        if item.index >= start and (item.index - start) % step == 0:
            yield item


def _is_sound(content: StructureSet) -> bool:
    """Tell whether nothing in a set needs a look: most sets were written by this package."""
    labels = {**content.info, **content.arrays}
    return bool(
        np.all(np.diff(content.offsets) > 0)
        and np.isfinite(content.positions).all()
        and content.numbers.all()
        and all(
            labels[name].dtype.kind == 'f' and labels[name].shape[1:] == shape
            for name, shape in LABEL_SHAPES.items()
            if name in labels
        )
    )


def _of_set(content: Iterable[Any]) -> _Items:
    return (check_structure(index, None, atoms) for index, atoms in enumerate(content))
