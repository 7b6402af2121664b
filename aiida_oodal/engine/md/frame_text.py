"""The text of one frame of a LAMMPS dump: its head, its cell, its columns."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.md.frame import VECTORS, Frame
from aiida_oodal.engine.md.lines import DamagedError, Lines
from aiida_oodal.engine.md.rows import parse_rows

__all__ = ('FRAME_TITLE', 'parse_frame')

FloatArray = NDArray[np.float64]

#: How the first line of a frame begins.
FRAME_TITLE = b'ITEM: TIMESTEP'
_TEXT_COLUMNS = frozenset(('element', 'type', 'typelabel'))
_INTEGER_COLUMNS = frozenset(('id', 'type', 'mol', 'proc', 'ix', 'iy', 'iz'))
_INTEGER = re.compile(rb'\s*(-?\d{1,18})\s*')


def parse_frame(lines: Lines) -> Frame | None:
    """Read the next frame; None where the file ends between two frames.

    :raises CutError: if the file ends inside the frame.
    :raises DamagedError: if a line does not fit the format.
    """
    if lines.at_end():
        return None
    step = n_atoms = box = None
    while True:
        title = lines.next(expected=b'ITEM: ')
        name = title[len(b'ITEM: ') :].strip()
        if name == b'TIMESTEP' and step is None:
            step = _integer(lines)
        elif name == b'NUMBER OF ATOMS':
            n_atoms = _integer(lines)
        elif name.startswith(b'BOX BOUNDS'):
            box = _box(lines, name.decode('ascii', 'replace').split()[2:])
        elif name in (b'UNITS', b'TIME'):
            lines.next()
        elif name.startswith(b'ATOMS ') and step is not None and n_atoms is not None and box is not None:
            names = name.decode('ascii', 'replace').split()[1:]
            columns, vectors = _columns(lines, names, n_atoms)
            return Frame(step, *box, columns=columns, vectors=vectors)
        else:
            raise DamagedError(lines.number, f'{title[:60]!r} does not belong here in a dump of atoms')


def _integer(lines: Lines) -> int:
    line = lines.next()
    match = _INTEGER.fullmatch(line)
    if match is None or int(match[1]) < 0:
        raise DamagedError(lines.number, f'{line[:40]!r} is not a number of steps or atoms')
    return int(match[1])


def _box(lines: Lines, words: list[str]) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return cell ``(3, 3)``, origin ``(3,)`` and periodicity ``(3,)``.

    The three formats are those of the LAMMPS manual, "dump" command: orthogonal, restricted triclinic (the bounds are
    those of the bounding box, page "Howto triclinic") and general triclinic (``abc origin``).
    """
    kind = ' '.join(words[: len(words) - 3] if len(words) > 3 else [])
    widths = {'': 2, 'xy xz yz': 3, 'abc origin': 4}
    if kind not in widths:
        raise DamagedError(lines.number, f'cell of unknown kind {" ".join(words)!r}')
    rows = []
    for _ in range(3):
        line = lines.next()
        try:
            rows.append([float(word) for word in line.split()])
        except ValueError:
            raise DamagedError(lines.number, f'{line[:80]!r} is not a line of numbers') from None
        if len(rows[-1]) != widths[kind]:
            raise DamagedError(
                lines.number, f'the cell has {len(rows[-1])} numbers in this line instead of {widths[kind]}'
            )
    box = np.array(rows)
    # Dumps older than 2010 do not name the boundaries; periodic is LAMMPS's default.
    pbc = np.array([word == 'pp' for word in words[-3:]] or [True] * 3)
    if kind == 'abc origin':
        return box[:, :3], box[:, 3], pbc
    xy, xz, yz = box[:, 2] if kind else (0.0, 0.0, 0.0)
    low = box[:, 0] - (min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0)
    high = box[:, 1] - (max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0)
    cell = np.diag(high - low)
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return cell, low, pbc


def _columns(lines: Lines, names: list[str], n_atoms: int) -> tuple[dict[str, NDArray[Any]], dict[str, FloatArray]]:
    """Read the lines of the atoms into columns and vectors, sorted by atom id."""
    first_of_three = {names.index(triple[0]): triple[0] for triple in VECTORS if _contains(names, triple)}
    found, triples = parse_rows(
        lines,
        n_atoms,
        len(names),
        text=[j for j, name in enumerate(names) if name in _TEXT_COLUMNS],
        whole={j: name for j, name in enumerate(names) if name in _INTEGER_COLUMNS},
        vectors=first_of_three,
    )
    if n_atoms == 0:  # there was no word to tell
        found |= {j: np.empty(0, 'U1') for j, name in enumerate(names) if name == 'element'}
    ids = next((found[j] for j, name in enumerate(names) if name == 'id'), None)
    if ids is not None and not (ids[1:] > ids[:-1]).all():
        order = np.argsort(ids, kind='stable')
        twice = np.flatnonzero(np.diff(ids[order]) == 0)
        if len(twice):
            raise DamagedError(
                lines.number, f'in the frame that ends here, atom id {ids[order][twice[0]]} is there twice'
            )
        triples = {j: triple[order] for j, triple in triples.items()}
        inside = {j + k: triple[:, k] for j, triple in triples.items() for k in range(3)}
        found = {j: column[order] for j, column in found.items() if j not in inside} | inside
    return (
        {name: found[j] for j, name in enumerate(names)},
        {name: triples[j] for j, name in first_of_three.items()},
    )


def _contains(names: list[str], triple: tuple[str, str, str]) -> bool:
    """Return whether three columns stand side by side, each of them once."""
    if any(names.count(name) != 1 for name in triple):
        return False
    start = names.index(triple[0])
    return tuple(names[start : start + 3]) == triple
