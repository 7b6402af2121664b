"""Structures out of files of other programs: dumps and data files of LAMMPS, and whatever ASE reads."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.lammps import convert
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from ase.io.lammpsdata import read_lammps_data

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.dump import Frame, iterate_frames
from aiida_oodal.engine.md.frame import GAMMA_COLUMNS, VECTORS

from .extxyz import explain_species
from .stream import Failure, Structure, check_structure

__all__ = ('iterate_ase', 'iterate_data_file', 'iterate_dump')

#: Columns of a dump that :meth:`Frame.to_atoms` reads, or that say nothing of the structure.
_KNOWN_COLUMNS = frozenset(
    (
        *('id', 'type', 'element', 'typelabel', 'mass', 'proc', 'procp1', 'ix', 'iy', 'iz', *GAMMA_COLUMNS),
        *(name for triple in VECTORS for name in triple),
    )
)
_DATABASES = frozenset(('db', 'json', 'mysql', 'postgresql'))
_UNITS = re.compile(r'\bunits = (\w+)')
#: An element is believed to be that of a mass if they differ by less [u].
_MASS_TOLERANCE = 0.1


def iterate_dump(path: Path, elements: Sequence[str] | None = None) -> Iterator[Structure | Failure]:
    """Read a LAMMPS dump; forces are on ``atoms.calc``, columns that are none of LAMMPS's usual ones are arrays.

    :param elements: element of each LAMMPS type, for dumps without a column ``element``.
    :raises OodalError: if nothing says which elements the types are, or nothing can be read.
    """
    frames = iterate_frames(path)
    index, units = 0, 'metal'
    while True:
        try:
            frame = next(frames, None)
            if frame is None:
                break
            units = frame.units or units  # LAMMPS writes them once, before the first frame
            atoms = _from_frame(frame, elements, units, path)
        except OodalError as error:
            if index == 0:
                raise error if str(path) in str(error) else OodalError(f'{path}: {error}') from error
            yield Failure(index, None, str(error))
            return
        yield check_structure(index, None, atoms)
        index += 1
    if frames.truncated_at_line is not None:
        yield Failure(index, frames.truncated_at_line, 'the file ends inside this frame')


def _from_frame(frame: Frame, elements: Sequence[str] | None, units: str, path: Path) -> Atoms:
    has_words = any(name in frame.columns and frame.columns[name].dtype.kind == 'U' for name in ('element', 'type'))
    if elements is None and not has_words:
        types = ', '.join(map(str, np.unique(frame.columns.get('type', np.empty(0, int)))))
        raise OodalError(
            f'{path}: the dump has no column `element`, and types of LAMMPS (here {types or "none"}) are not elements: '
            "say which they are, elements=['Al', 'Cu'] for types 1 and 2, or write the dump with "
            '`dump_modify ID element Al Cu`'
        )
    if units not in ('metal', 'real'):
        raise OodalError(f'{path}: the dump is in units {units!r}; metal and real are read')
    atoms = frame.to_atoms(elements, lammps_units=units)
    for name, column in frame.columns.items():
        if name not in _KNOWN_COLUMNS:
            atoms.arrays[name] = column
    if all(name in frame.columns for name in ('fx', 'fy', 'fz')):
        forces = np.column_stack([frame.columns[name] for name in ('fx', 'fy', 'fz')])
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results['forces'] = convert(forces, 'force', units, 'ASE')
    return atoms


def iterate_data_file(path: Path, elements: Sequence[str] | None, notes: list[str]) -> Iterator[Structure | Failure]:
    """Read a LAMMPS data file.

    :param elements: element of each LAMMPS type.
    :param notes: gets a sentence where elements were found by masses.
    :raises OodalError: if nothing says which elements the types are, or the file cannot be read.
    """
    text = path.read_text(encoding='utf-8', errors='replace')
    units = match[1] if (match := _UNITS.search(text.partition('\n')[0])) else 'metal'
    given = {number: atomic_numbers.get(symbol, 0) for number, symbol in enumerate(elements or (), start=1)}
    if 0 in given.values():
        wrong = next(symbol for symbol in elements or () if symbol not in atomic_numbers)
        raise OodalError(f'{path}: elements: {wrong!r} is no chemical symbol')
    try:
        atoms = read_lammps_data(path, Z_of_type=given or None, units=units)
    except Exception as error:  # ASE's readers raise whatever they stumble over
        raise OodalError(f'{path} cannot be read as a LAMMPS data file ({type(error).__name__}: {error})') from error
    if not given and 'Atom Type Labels' not in text:
        masses = atoms.get_masses() if atoms.has('masses') else np.full(len(atoms), np.inf)
        if np.abs(masses - atomic_masses[atoms.numbers]).max(initial=0.0) > _MASS_TOLERANCE:
            raise OodalError(
                f"{path}: types of LAMMPS are not elements, and no masses say which they are: elements=['Al', 'Cu'] "
                'for types 1 and 2'
            )
        found = ', '.join(chemical_symbols[number] for number in np.unique(atoms.numbers))
        notes.append(f'elements ({found}) are those that have the masses of the file')
    yield check_structure(0, None, atoms)


def iterate_ase(path: Path, file_format: str, index: int | slice, notes: list[str]) -> Iterator[Structure | Failure]:
    """Read a file by ASE, frame by frame.

    :param file_format: name of ASE.
    :param index: which frames.
    :param notes: gets what ASE warns of, and what cannot be held.
    :raises OodalError: if nothing can be read.
    """
    frames = (
        _iterate_database(path, index)
        if file_format in _DATABASES
        else iter(ase.io.iread(path, index=index, format=file_format))
    )
    number = 0
    while True:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            try:
                atoms = next(frames, None)
            except Exception as error:  # ASE's readers raise whatever they stumble over
                reason = _explain(error)
                if number == 0:
                    raise OodalError(f'{path} cannot be read as {file_format}: {reason}') from error
                yield Failure(number, None, f'the file cannot be read from here on: {reason}')
                return
        for warning in caught:
            sentence = f'ASE warns: {" ".join(str(warning.message).split())}'
            if issubclass(warning.category, UserWarning) and sentence not in notes:
                notes.append(sentence)
        if atoms is None:
            return
        _look_at_occupancy(atoms, number, notes)
        yield check_structure(number, None, atoms)
        number += 1


def _iterate_database(path: Path, index: int | slice) -> Iterator[Atoms]:
    """Yield the rows of an ASE database with what users wrote beside the structures."""
    with ase.db.connect(path, serial=True) as database:
        rows: Any = database.select()
        if index != slice(None):
            chosen = list(rows)[index]
            rows = chosen if isinstance(index, slice) else [chosen]
        for row in rows:
            atoms = row.toatoms()
            atoms.info.update(row.key_value_pairs)
            yield atoms


def _look_at_occupancy(atoms: Atoms, number: int, notes: list[str]) -> None:
    """Say that sites are shared: a structure holds one element at each."""
    occupancy: dict[str, dict[str, float]] = atoms.info.pop('occupancy', None) or {}
    shared = [site for site in occupancy.values() if len(site) > 1 or any(share < 0.999 for share in site.values())]
    if shared:
        elements = ', '.join(f'{symbol} {share:g}' for symbol, share in shared[0].items())
        notes.append(
            f'frame {number}: sites are partly occupied ({elements}), which a structure cannot hold: ASE keeps one '
            'element for each'
        )


def _explain(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str) and len(error.args[0]) < 9:
        return explain_species(error.args[0])
    return f'{type(error).__name__}: {error}' if str(error) else type(error).__name__
