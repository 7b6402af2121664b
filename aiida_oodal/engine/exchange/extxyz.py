"""One frame of extended XYZ: geometry and labels come in whatever else its comment line holds."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.io.extxyz import XYZError, key_val_str_to_dict, read_xyz

from aiida_oodal.engine.constraints import MOVE_MASK, free_mask, hold, lost_constraints
from aiida_oodal.engine.errors import OodalError

__all__ = ('explain_species', 'parse_frame')

#: What ASE raises on frames that are damaged.
_BROKEN = (XYZError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError)
#: What ASE would put on a calculator: numbers only, or it refuses the frame; and a mask of which it takes words for
#: True. It gets them under other names.
_RESULTS = frozenset((*all_properties, MOVE_MASK))
_HIDDEN = '_oodal_result_'
#: ASE refuses a frame whose `stress` or `virial` has not nine numbers, and one with broken JSON.
_REFUSED = re.compile(r'(?<!\S)(?=(?:stress|virial)\s*=)')
_MARK = '\x01'
_DEFAULT_PROPERTIES = 'species:S:1:pos:R:3'


def parse_frame(lines: Sequence[str], first_line: int) -> Atoms:
    """Read one frame.

    Results of a calculator, such as ``energy``, ``free_energy``, ``forces`` and ``stress``, are on ``atoms.calc`` as
    they stand in the file: numbers, or whatever text stands in their place. ``virial`` is in ``info``: as a matrix
    (3, 3), or as it stands. A comment without ``=`` is ``info['comment']``.

    :param lines: number of atoms, comment, and a line for each atom, without line ends.
    :param first_line: number of the first of them in the file, from 1.
    :raises OodalError: if the frame cannot be read; the message says where.
    """
    found: dict[str, Any] = {}

    def parse_comment(text: str) -> dict[str, Any]:
        found.update(_parse_comment(text))
        return {_hide(key): value for key, value in found.items()} | {
            'Properties': _hide_properties(str(found.get('Properties', _DEFAULT_PROPERTIES)))
        }

    try:
        atoms: Atoms = next(read_xyz(io.StringIO('\n'.join(lines)), slice(0, 1), properties_parser=parse_comment))
    except _BROKEN as error:
        raise OodalError(_explain(error, found, lines, first_line)) from error
    results = {}
    for store in (atoms.info, atoms.arrays):
        for name in [name for name in store if isinstance(name, str) and name.startswith(_HIDDEN)]:
            results[name.removeprefix(_HIDDEN)] = store.pop(name)
    if MOVE_MASK in results:
        atoms.arrays[MOVE_MASK] = results.pop(MOVE_MASK)
        if (free := free_mask(atoms)) is not None:
            hold(atoms, free)
        if not lost_constraints(atoms):
            del atoms.arrays[MOVE_MASK]
    if results:
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results.update(results)
    return atoms


def _parse_comment(text: str) -> dict[str, Any]:
    """Read the comment line, value by value, so that one that ASE cannot read does not cost the others."""
    if '=' not in text:  # plain XYZ: its words are no keys
        return {'comment': text.strip()} if text.strip() else {}
    marked = _REFUSED.sub(_MARK, text).replace('_JSON ', f'_JSON{_MARK}')
    values: dict[str, Any] = {}
    for key, value in key_val_str_to_dict(marked).items():
        name = key.replace(_MARK, '')
        values[name] = _parse_value(value) if isinstance(value, str) else value
        if name == 'virial' and getattr(value, 'shape', None) == (9,):
            values[name] = value.reshape((3, 3), order='F')
    return values


def _parse_value(text: str) -> Any:
    if text.startswith(f'_JSON{_MARK}'):
        try:
            return json.loads(text.removeprefix(f'_JSON{_MARK}'))
        except ValueError:
            return text.replace(_MARK, ' ')
    return text.replace(f'_JSON{_MARK}', '_JSON ').replace(_MARK, '')


def _hide(name: str) -> str:
    return _HIDDEN + name if name in _RESULTS else name


def _hide_properties(text: str) -> str:
    """Rename the columns that ASE takes for results; it calls a column ``charge`` ``charges``."""
    words = text.split(':')
    for place in range(0, len(words), 3):
        words[place] = _hide({'charge': 'charges'}.get(words[place], words[place]))
    return ':'.join(words)


def _explain(error: Exception, comment: dict[str, Any], lines: Sequence[str], first_line: int) -> str:
    """Say what is wrong with a frame, and where."""
    head = f'the frame of {len(lines) - 2} atoms cannot be read'
    words = str(comment.get('Properties', _DEFAULT_PROPERTIES)).split(':')
    names, widths = words[::3], [int(width) if width.isdecimal() else 1 for width in words[2::3]]
    if 'species' in names and 'Z' not in names:
        column = sum(widths[: names.index('species')])
        for number, line in enumerate(lines[2:], start=first_line + 2):
            row = line.split()
            if len(row) > column and row[column].capitalize() not in atomic_numbers:
                return f'{head}: line {number}: {explain_species(row[column])}'
    expected = sum(widths)
    for number, line in enumerate(lines[2:], start=first_line + 2):
        if len(line.split()) < expected:
            return f'{head}: line {number} has {len(line.split())} values, where {expected} belong ({":".join(words)})'
    return f'{head}: {type(error).__name__}: {error}' if isinstance(error, KeyError) else f'{head}: {error}'


def explain_species(word: str) -> str:
    """Say what is expected in the place of a word that is no chemical symbol."""
    if word in ('D', 'T', 'd', 't'):
        mass = {'D': 2.014, 'T': 3.016}[word.upper()]
        return f'species {word!r} is an isotope: write H, and its mass ({mass}) in a column masses:R:1'
    if word.lstrip('-').isdecimal():
        return (
            f'species {word!r} is a number: write the chemical symbol. If it is an atomic number, name the column '
            'Z:I:1; if it is a type of LAMMPS, only you know its element (dump_modify ID element Al Cu ...)'
        )
    symbol = re.match(r'[A-Za-z]+', word)
    letters = symbol[0].capitalize() if symbol else ''
    guess = next((letters[:size] for size in (2, 1) if letters[:size] in atomic_numbers), None)
    return f'species {word!r} is no chemical symbol' + (f': write {guess}, if that is meant' if guess else '')
