"""Files for people: a table of scores, and structures to look at or to label."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.constraints import FixCartesian, FixScaled

from aiida_oodal.engine.columns import plain_names
from aiida_oodal.engine.errors import OodalError

#: Formats of structure files: how they are called on the command line, their suffix, ASE's name.
STRUCTURE_FORMATS = {'cif': ('.cif', 'cif'), 'extxyz': ('.extxyz', 'extxyz'), 'poscar': ('.vasp', 'vasp')}
TABLE_FORMATS = ('xlsx', 'csv', 'parquet')
#: Rows of one sheet of a workbook, its header included.
_SHEET_ROWS = 1_048_576
#: Widest column of a sheet, and rows whose text decides how wide a column is.
_WIDEST, _ROWS_MEASURED = 60, 200
#: Numbers smaller or larger than these are shown with a power of ten.
_FEW, _MANY = 1e-2, 1e6
#: Empty space on both sides of what is not periodic, in formats that know periodic cells only [angstrom].
_VACUUM = 10.0
#: Cosine of the angle below which cell vectors are perpendicular, times the length of the other one [angstrom].
_PERPENDICULAR = 1e-6
_NO_BLOCK_NAME = re.compile(r'[^!-~]')


def write_table(
    table: Mapping[str, Sequence[Any]], path: Path, about: Iterable[tuple[str, str]] = (), n_work: int = 0
) -> Path:
    """Write columns of equal length as ``.xlsx``, ``.csv`` or ``.parquet``, by the suffix of the path.

    :param about: what columns and words mean, a pair each; the last sheet of a workbook.
    :param n_work: so many of the first columns are what one works through: the first sheet of a workbook.
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
        '.xlsx': lambda: _write_workbook(frame, path, list(about), n_work),
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


def _write_workbook(frame: Any, path: Path, about: list[tuple[str, str]], n_work: int) -> None:
    """Write a workbook whose headers stay in sight and can be filtered by: what one works through, then everything.

    What one works through begins with the candidates, then come those that are furthest out.
    """
    import pandas

    # Excel knows no infinity; as text it still sorts apart from numbers and is not lost.
    whole = frame.replace([np.inf, -np.inf], ['inf', '-inf'])
    work = whole.iloc[:, :n_work]
    if order := [name for name in ('candidate', 'rank') if name in work]:
        work = work.sort_values(order, kind='stable')
    sheets = {'work list': work} if n_work else {}
    with pandas.ExcelWriter(path, engine='openpyxl') as writer:
        for name, part in (sheets | {'scores': whole}).items():
            part.to_excel(writer, sheet_name=name, index=False)
            _format_sheet(writer.sheets[name], part)
        pandas.DataFrame(about, columns=['word', 'meaning']).to_excel(writer, sheet_name='about', index=False)
        writer.sheets['about'].column_dimensions['A'].width = 30
        writer.sheets['about'].column_dimensions['B'].width = 120


def _format_sheet(sheet: Any, frame: Any) -> None:
    """Freeze the header and the first column, switch the filter on, and give columns a width and numbers a format."""
    from openpyxl.utils import get_column_letter

    sheet.freeze_panes = 'B2'
    sheet.auto_filter.ref = sheet.dimensions
    for index, name in enumerate(frame.columns, start=1):
        values = frame.iloc[:, index - 1]
        longest = max((len(str(value)) for value in values.head(_ROWS_MEASURED)), default=0)
        is_number = values.dtype.kind == 'f'
        width = max(len(str(name)) + 3, 9 if is_number else min(longest + 2, _WIDEST))
        sheet.column_dimensions[get_column_letter(index)].width = width
        if is_number:
            for (cell,) in sheet.iter_rows(min_row=2, min_col=index, max_col=index):
                cell.number_format = _number_format(values)


def _number_format(values: Any) -> str:
    """Return a format that shows about four digits of the numbers of a column."""
    largest = float(values.abs().max())
    if not largest > 0.0:
        return '0'
    if (values.dropna() % 1.0 == 0.0).all() and largest < _MANY:
        return '0'
    return '0.00E+00' if largest < _FEW or largest >= _MANY else '0.0000' if largest < 1.0 else '0.000'


def write_structures(
    structures: Iterable[tuple[str, Atoms]], folder: Path, formats: Sequence[str] = ('cif',)
) -> list[Path]:
    """Write each structure as a file of its own.

    Formats that know periodic cells only (CIF, POSCAR) get a box with 10 angstrom of vacuum on both sides along every
    axis that is not periodic, whatever box the structure has, and say so in their comment. A CIF carries the name and
    the numbers and texts of ``info`` (``score``, ``node``, ...) as ``_oodal_...``, a POSCAR in its first line.

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
                ase.io.write(path, _with_columns(atoms), format=ase_name)
            elif kind == 'cif':
                _write_cif(path, name, atoms)
            else:
                _write_poscar(path, name, atoms)
            paths.append(path)
    return paths


def put_in_a_box(atoms: Atoms) -> tuple[Atoms, str]:
    """Return a structure in a periodic cell, and a sentence about the vacuum that it got.

    Cell vectors along axes that are not periodic mean nothing: they are made perpendicular to the others where they are
    not, and as long as the structure and the vacuum need.

    :return: the structure with the atoms that it holds but no other arrays; the sentence is empty if all axes are
        periodic.
    """
    boxed = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    open_axes = [axis for axis in range(3) if not atoms.pbc[axis] or not atoms.cell[axis].any()]
    cell = atoms.cell.array.copy()
    for axis in open_axes:
        others = cell[[other for other in range(3) if other != axis]]
        if np.abs(others @ cell[axis]).max() > _PERPENDICULAR * np.linalg.norm(cell[axis]):
            cell[axis] = 0.0
    boxed.cell = boxed.cell.new(cell).complete()
    if open_axes:
        boxed.center(vacuum=_VACUUM, axis=open_axes)
    boxed.set_constraint(atoms.constraints)
    names = ', '.join('abc'[axis] for axis in open_axes)
    return boxed, f'{_VACUUM:g} angstrom of vacuum on both sides along {names} (not periodic)' if open_axes else ''


def _write_cif(path: Path, name: str, atoms: Atoms) -> None:
    """Write a CIF that says what it is of."""
    boxed, vacuum = put_in_a_box(atoms)
    stream = io.BytesIO()
    ase.io.write(stream, boxed, format='cif')
    _, _, rest = stream.getvalue().decode('utf-8').partition('\n')  # `data_image0` comes first
    facts = {'name': name} | {'own_name' if key == 'name' else key: value for key, value in _facts(atoms).items()}
    facts |= {'vacuum': vacuum} if vacuum else {}
    lines = [f'_oodal_{key} {_cif_value(value)}' for key, value in facts.items()]
    path.write_text('\n'.join([f'data_{_NO_BLOCK_NAME.sub("_", name)}', *lines, rest]), encoding='utf-8')


def _write_poscar(path: Path, name: str, atoms: Atoms) -> None:
    """Write a POSCAR whose first line says what it is of."""
    boxed, vacuum = put_in_a_box(atoms)
    words = [name, *(f'{key}={value}' for key, value in _facts(atoms).items()), vacuum]
    partly = [each for each in boxed.constraints if isinstance(each, FixCartesian)]
    if partly and not boxed.cell.orthorhombic:
        words.append('(atoms held along x, y or z only are free here: a POSCAR holds along cell vectors)')
    elif partly:
        along_cell = [FixScaled(each.index, mask=each.mask) for each in partly]
        boxed.set_constraint([*(each for each in boxed.constraints if each not in partly), *along_cell])
    stream = io.StringIO()
    ase.io.write(stream, boxed, format='vasp')
    _, _, rest = stream.getvalue().partition('\n')  # the elements come first, and once more below
    path.write_text(f'{" ".join(" ".join(words).split())}\n{rest}', encoding='utf-8')


def _facts(atoms: Atoms) -> dict[str, int | float | str]:
    """Return the numbers and texts of ``info``, by names that a CIF takes."""
    names = plain_names(atoms.info)
    values = {names[key]: value.item() if isinstance(value, np.generic) else value for key, value in atoms.info.items()}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}


def _cif_value(value: float | str) -> str:
    """Quote a value as CIF wants it."""
    if not isinstance(value, str):
        return str(value)
    text = ' '.join(value.split())
    return f"'{text}'" if "'" not in text else f'"{text}"' if '"' not in text else f'\n;{text}\n;'


def _with_columns(atoms: Atoms) -> Atoms:
    """Return a structure whose arrays are columns: extended XYZ has no place for a matrix for each atom."""
    matrices = [name for name, array in atoms.arrays.items() if array.ndim > 2]
    if not matrices:
        return atoms
    flat: Atoms = atoms.copy()
    for name in matrices:
        flat.arrays[name] = atoms.arrays[name].reshape(len(atoms), -1)
    return flat
