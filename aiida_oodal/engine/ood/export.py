"""Files for people: a table of scores, and structures to look at or to label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from aiida_oodal.engine.errors import OodalError

#: Formats of structure files: how they are called on the command line, their suffix, ASE's name.
STRUCTURE_FORMATS = {'cif': ('.cif', 'cif'), 'extxyz': ('.extxyz', 'extxyz'), 'poscar': ('.vasp', 'vasp')}
TABLE_FORMATS = ('xlsx', 'csv', 'parquet')
#: Rows of one sheet of a workbook, its header included.
_SHEET_ROWS = 1_048_576
#: Empty space around a molecule in formats that know periodic cells only [angstrom].
_VACUUM = 10.0


def write_table(table: Mapping[str, Sequence[Any]], path: Path, about: Iterable[tuple[str, str]] = ()) -> Path:
    """Write columns of equal length as ``.xlsx``, ``.csv`` or ``.parquet``, by the suffix of the path.

    :param about: what columns and words mean, a pair each; the second sheet of a workbook.
    :raises OodalError: for another suffix, too many rows for a sheet, or a library that is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise OodalError("tables need pandas: pip install 'aiida-oodal[analysis]'") from error
    frame = pandas.DataFrame(dict(table))
    writers: dict[str, Callable[[], None]] = {
        '.csv': lambda: frame.to_csv(path, index=False),
        '.parquet': lambda: frame.to_parquet(path, index=False),
        '.xlsx': lambda: _write_workbook(frame, path, list(about)),
    }
    if path.suffix not in writers:
        raise OodalError(f'{path}: tables are written as {", ".join(TABLE_FORMATS)}')
    if path.suffix == '.xlsx' and len(frame) >= _SHEET_ROWS:
        raise OodalError(f'{path}: {len(frame)} rows do not fit a sheet (limit {_SHEET_ROWS - 1}): use csv or parquet')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        writers[path.suffix]()
    except ImportError as error:
        raise OodalError(f"{path}: {error}. pip install 'aiida-oodal[analysis]' brings it") from error
    return path


def _write_workbook(frame: Any, path: Path, about: list[tuple[str, str]]) -> None:
    """Write a workbook whose header stays in sight and can be filtered by."""
    import pandas
    from openpyxl.utils import get_column_letter

    with pandas.ExcelWriter(path, engine='openpyxl') as writer:
        # Excel knows no infinity; as text it still sorts apart from numbers and is not lost.
        frame.replace([np.inf, -np.inf], ['inf', '-inf']).to_excel(writer, sheet_name='scores', index=False)
        sheet = writer.sheets['scores']
        sheet.freeze_panes = 'B2'
        sheet.auto_filter.ref = sheet.dimensions
        for index, name in enumerate(frame.columns, start=1):
            sheet.column_dimensions[get_column_letter(index)].width = max(10, len(str(name)) + 2)
        pandas.DataFrame(about, columns=['word', 'meaning']).to_excel(writer, sheet_name='about', index=False)
        writer.sheets['about'].column_dimensions['A'].width = 30
        writer.sheets['about'].column_dimensions['B'].width = 120


def write_structures(
    structures: Iterable[tuple[str, Atoms]], folder: Path, formats: Sequence[str] = ('cif',)
) -> list[Path]:
    """Write each structure as a file of its own.

    Formats that know periodic cells only (CIF, POSCAR) get a box with 10 angstrom of vacuum along open axes.

    :param structures: name and structure.
    :param formats: names of :data:`STRUCTURE_FORMATS`.
    :raises OodalError: for an unknown format.
    """
    if unknown := [name for name in formats if name not in STRUCTURE_FORMATS]:
        raise OodalError(f'structures cannot be written as {unknown[0]!r}; there is {", ".join(STRUCTURE_FORMATS)}')
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, atoms in structures:
        for kind in formats:
            suffix, ase_name = STRUCTURE_FORMATS[kind]
            path = folder / f'{name}{suffix}'
            if kind == 'extxyz':
                ase.io.write(path, atoms, format=ase_name)
            else:
                ase.io.write(path, _in_a_cell(atoms), format=ase_name)
            paths.append(path)
    return paths


def _in_a_cell(atoms: Atoms) -> Atoms:
    """Return a structure with three cell vectors and nothing that a crystallographic format cannot say."""
    boxed = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    open_axes = [axis for axis in range(3) if not boxed.cell[axis].any()]
    if open_axes:
        boxed.center(vacuum=_VACUUM, axis=open_axes)
    return boxed
