"""Blocks of lines as columns of numbers and words."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection
from typing import cast

import numpy as np
from numpy.typing import NDArray

from aiida_oodal.engine.md.lines import LINE_END, DamagedError, Lines

__all__ = ('parse_rows',)

_SMALL = 1 << 18  # bytes: less is left to numpy
_LARGE = 1 << 21  # bytes: more is worth the start of polars


def parse_rows(
    lines: Lines, n_rows: int, n_columns: int, text_columns: set[int]
) -> tuple[dict[int, NDArray[np.float64]], dict[int, NDArray[np.str_]]]:
    """Read lines of numbers, and of words in some columns.

    :param lines: where to read.
    :param n_rows: number of lines.
    :param n_columns: number of values in each line.
    :param text_columns: columns that may hold words; whether they do shows in the first line.
    :returns: the columns of numbers, and those of words, by index, each ``(n_rows,)``.
    :raises CutError: if the stream ends before the last line does.
    :raises DamagedError: if a line has another number of values, or a word among its numbers.
    """
    words: dict[int, list[NDArray[np.str_]]] = {}
    values = np.empty((0, n_columns))
    done = 0
    while done < n_rows:
        whole = lines.block(n_rows - done, shortest=2 * n_columns)
        if done == 0:
            first = bytes(whole[: whole.index(LINE_END)]).split()
            words = {j: [] for j in text_columns if j < len(first) and not _is_number(first[j])}
            values = _reserve(n_rows, n_columns - len(words), lines.number)
        table = _parse_table(whole, n_columns, words) if len(whole) >= _LARGE else None
        numbers, columns = table or _parse_plain(whole, n_columns, words, lines.number + 1)
        n_lines = len(numbers)
        values[done : done + n_lines] = numbers
        for j, column in columns.items():
            words[j].append(column)
        done += n_lines
        lines.number += n_lines
    numeric = [j for j in range(n_columns) if j not in words]
    return {j: values[:, k] for k, j in enumerate(numeric)}, {j: np.concatenate(found) for j, found in words.items()}


_Columns = tuple[NDArray[np.float64], dict[int, NDArray[np.str_]]]


def _parse_table(block: bytearray, n_columns: int, words: Collection[int]) -> _Columns | None:
    """Read a large block by polars, which is several times faster than what numpy and scipy have, and as exact.

    :param words: the columns that hold words.
    :returns: numbers, shape (n_lines, n_columns less those of words), and words by column; None where polars is not
        installed, or the block is anything but plain rows: then the reader that finds the line at fault has a look.
    """
    try:
        import polars
    except ModuleNotFoundError:
        return None
    if len(block[: block.index(LINE_END)].split()) != n_columns:
        return None
    try:
        table = polars.read_csv(
            bytes(block),
            separator=' ',
            has_header=False,
            quote_char=None,
            schema={f'c{j}': polars.String if j in words else polars.Float64 for j in range(n_columns)},
        )
    except polars.exceptions.PolarsError:
        return None
    if any(column.null_count() for column in table):  # a short row, a blank line, or two blanks in a row
        return None
    numbers = [j for j in range(n_columns) if j not in words]
    values = np.empty((len(table), len(numbers)), order='F')
    for k, j in enumerate(numbers):
        values[:, k] = table[f'c{j}'].to_numpy()
    found: dict[int, NDArray[np.str_]] = {}
    for j in words:
        distinct = table[f'c{j}'].unique().to_list()
        found[j] = np.empty(len(table), f'U{max(map(len, distinct))}')
        for word in distinct:  # one by one they would become a million Python strings
            found[j][(table[f'c{j}'] == word).to_numpy()] = word
    return values, found


def _parse_plain(whole: bytearray, n_columns: int, words: Collection[int], first_line: int) -> _Columns:
    """Read a block as :func:`_parse_table` does, or refuse it with the number of the line at fault."""
    block = np.frombuffer(whole, np.uint8)
    stops, lengths = _find_words(block, first_line, n_columns)
    found = {j: _cut_out(block, stops[:, j], lengths[:, j]) for j in words}
    return _parse_numbers(block, len(stops), n_columns - len(found), first_line), found


def _reserve(n_rows: int, n_columns: int, line: int) -> NDArray[np.float64]:
    try:
        return np.empty((n_rows, n_columns), order='F')  # columns are what is handed out
    except (MemoryError, ValueError):
        raise DamagedError(line, f'{n_rows} lines of {n_columns} numbers do not fit into memory') from None


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
