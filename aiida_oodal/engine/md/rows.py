"""Blocks of lines as columns of numbers and words."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .lines import LINE_END, DamagedError, Lines

__all__ = ('parse_rows',)

_SMALL = 1 << 18  # bytes: less is left to numpy
_LARGE = 1 << 21  # bytes: more is worth the start of polars
_LONGEST_EXACT = 2.0**53  # above, not every whole number is a float

_Columns = dict[int, NDArray[Any]]


def parse_rows(
    lines: Lines,
    n_rows: int,
    n_columns: int,
    *,
    text: Collection[int] = (),
    whole: Mapping[int, str] | None = None,
    vectors: Iterable[int] = (),
) -> tuple[_Columns, _Columns]:
    """Read lines of numbers, and of words in some columns.

    :param lines: where to read.
    :param n_rows: number of lines.
    :param n_columns: number of values in each line.
    :param text: columns that may hold words; whether they do shows in the first line.
    :param whole: columns of whole numbers, and what messages call them.
    :param vectors: columns that are the first of three of a vector.
    :returns: the columns by index, each ``(n_rows,)``: text, int64 or float64; and the vectors by their first column,
        float64 ``(n_rows, 3)``, of which these columns are views: nothing has to be copied to have either.
    :raises CutError: if the stream ends before the last line does.
    :raises DamagedError: if a line has another number of values, or a word among its numbers.
    """
    whole = whole or {}
    columns, triples = _reserve(n_rows, n_columns, whole, vectors, lines.number)
    words: list[int] = []
    done = 0
    while done < n_rows:
        block = lines.block(n_rows - done, shortest=2 * n_columns)
        if done == 0:
            first = block[: block.index(LINE_END)].split()
            words = [j for j in text if j < len(first) and not _is_number(first[j])]
            columns |= {j: np.empty(n_rows, 'U1') for j in words}
        parts = _parse_table(block, n_columns, words, whole) if len(block) >= _LARGE else None
        parts = parts or _parse_plain(block, n_columns, words, whole, lines.number + 1)
        n_lines = len(parts[0])
        for j, part in parts.items():
            if part.dtype.kind == 'U' and part.dtype.itemsize > columns[j].dtype.itemsize:
                columns[j] = columns[j].astype(part.dtype)  # the longest word so far
            columns[j][done : done + n_lines] = part
        done += n_lines
        lines.number += n_lines
    return columns, triples


def _reserve(
    n_rows: int, n_columns: int, whole: Collection[int], vectors: Iterable[int], line: int
) -> tuple[_Columns, _Columns]:
    try:
        triples: _Columns = {j: np.empty((n_rows, 3)) for j in vectors}
        columns: _Columns = {j + k: triple[:, k] for j, triple in triples.items() for k in range(3)}
        for j in set(range(n_columns)) - set(columns):
            columns[j] = np.empty(n_rows, np.int64 if j in whole else np.float64)
    except (MemoryError, ValueError):
        raise DamagedError(line, f'{n_rows} lines of {n_columns} numbers do not fit into memory') from None
    return columns, triples


def _parse_table(block: bytes, n_columns: int, words: Collection[int], whole: Collection[int]) -> _Columns | None:
    """Read a large block by polars, which is several times faster than what numpy and scipy have, and as exact.

    :param words: the columns that hold words.
    :returns: the columns; None where polars is not installed, or the block is anything but plain rows: then the reader
        that finds the line at fault has a look.
    """
    try:
        import polars
    except ModuleNotFoundError:
        return None
    if len(block[: block.index(LINE_END)].split()) != n_columns:
        return None
    kinds = [polars.String if j in words else polars.Int64 if j in whole else polars.Float64 for j in range(n_columns)]
    try:
        table = polars.read_csv(
            block,
            separator=' ',
            has_header=False,
            quote_char=None,
            schema={f'c{j}': kind for j, kind in enumerate(kinds)},
        )
    except polars.exceptions.PolarsError:
        return None
    if any(column.null_count() for column in table):  # a short row, a blank line, or two blanks in a row
        return None
    columns: _Columns = {}
    for j, column in enumerate(table):
        if j not in words:
            columns[j] = column.to_numpy()
            continue
        distinct = column[:1] if (column == column[0]).all() else column.unique()
        columns[j] = np.empty(len(table), f'U{max(map(len, distinct))}')
        for word in distinct:  # one by one they would become a million Python strings
            columns[j][(column == word).to_numpy()] = word
    return columns


def _parse_plain(
    text: bytes, n_columns: int, words: Collection[int], whole: Mapping[int, str], first_line: int
) -> _Columns:
    """Read a block as :func:`_parse_table` does, or refuse it with the number of the line at fault."""
    block = np.frombuffer(bytearray(text), np.uint8)
    stops, lengths = _find_words(block, first_line, n_columns)
    columns: _Columns = {j: _cut_out(block, stops[:, j], lengths[:, j]) for j in words}
    numeric = [j for j in range(n_columns) if j not in columns]
    values = _parse_numbers(block, len(stops), len(numeric), first_line)
    for k, j in enumerate(numeric):
        columns[j] = values[:, k]
        if j in whole:
            bad = np.flatnonzero(~(np.abs(values[:, k]) < _LONGEST_EXACT) | (values[:, k] != np.rint(values[:, k])))
            if bad.size:
                value = values[bad[0], k]
                raise DamagedError(
                    first_line + int(bad[0]), f'column {whole[j]} holds whole numbers, but here {value:.17g}'
                )
    return columns


def _find_words(block: NDArray[np.uint8], first_line: int, n_columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where words end, and their lengths, each ``(n_lines, n_columns)``; put a line end for every blank."""
    blanks = np.flatnonzero(block <= ord(' '))
    line_ends = blanks[block[blanks] == LINE_END]
    block[blanks] = LINE_END
    lengths = np.diff(blanks, prepend=-1) - 1
    if not lengths.all():  # several blanks, or one before the line end, as older versions of LAMMPS write
        blanks, lengths = blanks[lengths > 0], lengths[lengths > 0]
    if blanks.size == line_ends.size * n_columns:
        stops = blanks.reshape(-1, n_columns)
        if (stops[:, -1] <= line_ends).all() and (stops[1:, 0] > line_ends[:-1]).all():
            return stops, lengths.reshape(-1, n_columns)
    counts = np.diff(np.searchsorted(blanks, line_ends, side='right'), prepend=0)
    wrong = int(np.flatnonzero(counts != n_columns)[0])
    raise DamagedError(first_line + wrong, f'{counts[wrong]} values in a frame of {n_columns} columns')


def _cut_out(block: NDArray[np.uint8], stops: NDArray[np.intp], lengths: NDArray[np.intp]) -> NDArray[np.str_]:
    """Return words and leave line ends in their place."""
    starts, shortest, longest = stops - lengths, int(lengths.min()), int(lengths.max())
    letters = np.zeros((len(starts), longest), np.uint32)  # a character of a numpy string is a 32-bit number
    for k in range(longest):
        rows = slice(None) if k < shortest else np.flatnonzero(lengths > k)
        at = starts[rows] + k
        letters[rows, k] = block[at]
        block[at] = LINE_END
    return letters.view(f'U{longest}')[:, 0]


def _parse_numbers(block: NDArray[np.uint8], n_rows: int, n_columns: int, first_line: int) -> NDArray[np.float64]:
    """Return the numbers of a block of one word a line, float64 ``(n_rows, n_columns)``.

    One number a line is the body of a Matrix Market file, and scipy's reader of those is several times faster than any
    that numpy has. It starts threads, so a small block is left to numpy. It also takes a word up to where it stops to
    be a number, so a block with other letters than those of exponents is left to numpy, too.

    What this lets pass is a large block with a word of digits, points and signs that is no number (``1.2.3``): no cut
    makes such a word, only a damaged disk does, which may as well change a digit.
    """
    text = block.tobytes()
    is_plain = np.count_nonzero(block > ord('9')) == np.count_nonzero(block == ord('e'))
    try:
        large = is_plain and len(text) >= _SMALL
        values = _parse_large(text, n_rows * n_columns) if large else _parse_small(text)
    except ValueError:
        values = np.empty(0)  # the word that is at fault is found below
    if values.size == n_rows * n_columns:
        return values.reshape(n_rows, n_columns)
    for k, word in enumerate(text.split()):
        if not _is_number(word):
            raise DamagedError(first_line + k // n_columns, f'{word[:40]!r} is not a number')
    raise DamagedError(first_line, 'the numbers from here on cannot be told apart')


def _parse_large(text: bytes, n_values: int) -> NDArray[np.float64]:
    from scipy.io import mmread

    header = b'%%%%MatrixMarket matrix array real general\n%d 1\n' % n_values
    return cast('NDArray[np.float64]', mmread(io.BytesIO(header + text)))


def _parse_small(text: bytes) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # numpy stops at text that is no number and warns; it says that it will raise ValueError some day.
        warnings.simplefilter('ignore', DeprecationWarning)
        return np.fromstring(text, sep='\n')


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
