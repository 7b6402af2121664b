"""Tests of the log reader on real logs, whole and cut."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.log import Halt, LammpsLog, join_tables, read_log

DATA = Path(__file__).parents[2] / 'data' / 'lammps'
WHOLE_LOGS = sorted(path for path in DATA.glob('*/log.*')) + sorted(
    path for path in DATA.glob('wheel/*.log') if not path.stem.startswith('thermo_')
)


def read_text(tmp_path: Path, text: str | bytes) -> LammpsLog:
    path = tmp_path / 'log.lammps'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_log(path)


def table(header: str, *rows: str, end: str = 'Loop time of 1 on 1 procs for 20 steps with 4 atoms\n') -> str:
    lines = ['Per MPI rank memory allocation (min/avg/max) = 3 | 3 | 3 Mbytes', f'   {header}  ', *rows]
    return '\n'.join(lines) + '\n' + end


def test_soft_halt() -> None:
    log = read_log(DATA / 'halt_soft' / 'log.lammps')
    assert log.version == '22 Jul 2025 - Update 4'
    assert log.n_atoms == 108
    assert log.halt == Halt('fh', 2860, 5.367534585567043, 'v_max_gamma', 166)
    assert log.halt_fixes == {'fh': 'v_max_gamma'}
    assert [(len(t), t.finished, t.loop_steps, t.atoms, t.last_step) for t in log.tables] == [
        (5, True, 200, (108, 108), 200),
        (54, True, 2660, (108, 108), 2860),
    ]
    assert log.last_step == 2860
    assert log.total_wall_time == '0:00:26'
    assert (log.error, log.lost_atoms, log.walltime_reached, log.truncated_at_line) == (None, None, False, None)
    series = log.series()
    assert list(series) == ['Step', 'Temp', 'PotEng', 'TotEng', 'Press', 'v_max_gamma']
    np.testing.assert_array_equal(series['Step'], np.arange(0, 2851, 50))
    assert series['Temp'][0] == 600
    assert series['v_max_gamma'][-1] == 2.4603779


def test_hard_halt_is_an_error_and_a_halt() -> None:
    log = read_log(DATA / 'halt_hard' / 'log.lammps')
    assert log.halt == Halt('fh', 2860, 5.367534585567043, 'v_max_gamma', 166)
    assert log.error == (
        'Fix halt condition for fix-id fh met on step 2860 with value 5.367534585567043 (src/src/fix_halt.cpp:313) '
        'Last input line: run 4000'
    )
    assert not log.tables[-1].finished
    assert log.total_wall_time is None


@pytest.mark.parametrize(
    'message',
    [
        'Fix halt condition for fix-id fh met on step 1830 with value 5.35707160772472',
        'Fix halt condition for fix-id fh met on step 1830 with value 5.35707160772472 (src/src/fix_halt.cpp:240)',
        'Fix halt condition for fix-id fh met on step 1830 with\nvalue 5.35707160772472 (../fix_halt.cpp:240)',
        'Fix halt condition for fix-id fh met on\n step 1830 with value\n 5.35707160772472',
        'WARNING: Fix halt condition for fix-id fh met on step 1830 with value 5.35707160772472',
        'ERROR: Fix halt condition for fix-id fh met on step 1830 with value 5.35707160772472\n (src/fix_halt.cpp:3)',
        'Fix halt fh condition met on step 1830 with value 5.35707160772472',
    ],
)
def test_spellings_of_a_halt(tmp_path: Path, message: str) -> None:
    log = read_text(tmp_path, table('Step Temp', ' 0 300', end=f'{message}\n'))
    assert log.halt is not None
    assert (log.halt.fix_id, log.halt.step, log.halt.value) == ('fh', 1830, 5.35707160772472)
    assert log.halt.attribute is None


def test_halt_line_that_was_cut_is_not_read(tmp_path: Path) -> None:
    text = (DATA / 'halt_soft' / 'log.lammps').read_text()
    line_end = text.index('\n', text.index('Fix halt condition'))
    assert read_text(tmp_path, text[: line_end - 1]).halt is None
    assert read_text(tmp_path, text[: line_end + 1]).halt is not None


def test_lost_atoms() -> None:
    log = read_log(DATA / 'lost_error' / 'log.lammps')
    assert log.lost_atoms == (550, 548)
    assert log.error is not None
    assert log.error.startswith('Lost atoms: original 550 current 548 For more information')
    assert log.n_atoms == 550
    assert [table.steps.tolist() for table in log.tables] == [[0]]


def test_warning_inside_a_table() -> None:
    log = read_log(DATA / 'wheel' / 'lost_warn.log')
    assert log.warnings == ('Lost atoms: original 40 current 3',)
    assert log.lost_atoms == (40, 3)
    assert log.tables[0].steps.tolist() == [0, 10, 20, 30, 40, 50]


def test_atoms_that_vanish_without_a_word() -> None:
    log = read_log(DATA / 'wheel' / 'lost_ignore.log')
    assert log.warnings == ()
    assert log.tables[0].atoms is not None
    assert log.tables[0].atoms[0] == 40 > log.tables[0].atoms[1]


def test_time_limit() -> None:
    log = read_log(DATA / 'wheel' / 'timeout.log')
    assert log.walltime_reached
    assert log.warnings == ('Wall time limit reached',)
    assert log.last_step == log.tables[0].loop_steps
    assert log.last_step is not None
    assert log.last_step > 0


def test_numbers_that_are_not_finite() -> None:
    columns = read_log(DATA / 'wheel' / 'nan.log').tables[0].columns
    assert columns['PotEng'][0] == np.inf
    assert np.isnan(columns['Temp'][1:]).all()


def test_error_in_the_input() -> None:
    log = read_log(DATA / 'wheel' / 'bad_input.log')
    assert log.tables == ()
    assert log.last_step is None
    assert log.error is not None
    assert 'Incorrect args for pair coefficients' in log.error
    assert 'Last input line: pair_coeff 1 1 0.4' in log.error


def test_killed_in_mid_line() -> None:
    log = read_log(DATA / 'sigkill' / 'log.no')
    assert log.truncated_at_line == 385
    assert log.last_step == 320
    assert not log.tables[0].finished
    assert log.total_wall_time is None


def test_several_runs_count_every_step_once() -> None:
    log = read_log(DATA / 'wheel' / 'runs.log')
    assert [table.steps.tolist() for table in log.tables] == [
        [0, 1],  # minimisation
        [0, 5, 10],
        [10, 15],  # pre no: a header without a line about memory
        [15, 20, 25],  # with output of fix print in between
        [25, 27],
        [27, 29],
    ]
    assert all(table.finished for table in log.tables)
    series = log.series()
    assert series['Step'].tolist() == [0, 5, 10, 15, 20, 25, 27, 29]
    assert np.isnan(series['Volume'][:3]).all()
    assert np.isfinite(series['Volume'][3:]).all()
    assert np.isfinite(series['Temp']).all()


def test_later_run_wins_from_its_first_step_on() -> None:
    first = {'Step': np.array([0.0, 10.0, 20.0, 30.0]), 'a': np.array([1.0, 2.0, 3.0, 4.0])}
    second = {'Step': np.array([15.0, 25.0]), 'b': np.array([7.0, 8.0])}
    joined = join_tables([first, {'Step': np.empty(0)}, second])
    assert joined['Step'].tolist() == [0, 10, 15, 25]
    np.testing.assert_array_equal(joined['a'], [1, 2, np.nan, np.nan])
    np.testing.assert_array_equal(joined['b'], [np.nan, np.nan, 7, 8])
    assert join_tables([]) == {}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=5))
def test_joined_steps_rise_and_end_with_the_last_run(runs: list[tuple[int, int]]) -> None:
    tables = [
        {'Step': np.arange(start, start + n, dtype=float), 'run': np.full(n, i)} for i, (start, n) in enumerate(runs)
    ]
    joined = join_tables(tables)
    assert (np.diff(joined['Step']) > 0).all()
    last_start, last_n = runs[-1]
    np.testing.assert_array_equal(joined['Step'][-last_n:], tables[-1]['Step'])
    assert (joined['Step'][:-last_n] < last_start).all()


@pytest.mark.parametrize('style', ['multi', 'yaml'])
def test_other_thermo_styles_are_refused_with_their_line(style: str) -> None:
    with pytest.raises(OodalError, match=rf'thermo_{style}\.log, line 35: .* multi or yaml style'):
        read_log(DATA / 'wheel' / f'thermo_{style}.log')


def test_foreign_lines_in_a_table_are_no_rows(tmp_path: Path) -> None:
    rows = [
        ' 0 300 1',
        'SHAKE stats on step 10',
        '4 1.1',
        ' 5 1.1 7',
        '10 three 1',
        '3 1 1',
        '',
        ' 20 -nan inf',
        'x' * 9,
    ]
    log = read_text(tmp_path, table('Step Temp v_x', *rows))
    assert log.tables[0].steps.tolist() == [0, 5, 20]
    np.testing.assert_array_equal(log.tables[0].columns['v_x'], [1, 7, np.inf])


def test_table_without_steps_and_table_without_rows(tmp_path: Path) -> None:
    log = read_text(tmp_path, table('Temp Press', '300 1', '200 2') + table('Step Temp', end=''))
    assert [len(t) for t in log.tables] == [2, 0]
    assert log.tables[0].columns['Press'].tolist() == [1, 2]
    assert len(log.tables[0].steps) == len(log.tables[1].steps) == 0
    assert log.last_step is None
    assert log.series() == {}


def test_old_spellings(tmp_path: Path) -> None:
    log = read_text(
        tmp_path,
        'LAMMPS (5 Jun 2019)\nCreated 3 atoms\nCreated 2 atoms\nMemory usage per processor = 2.4 Mbytes\n'
        'Step Temp E_pair \n       0          600   -1 \nERROR on proc 0: Out of memory (src/memory.cpp:66)\n',
    )
    assert log.version == '5 Jun 2019'
    assert log.n_atoms == 5
    assert log.tables[0].columns['E_pair'].tolist() == [-1]
    assert log.error == 'Out of memory (src/memory.cpp:66)'


def test_empty_log(tmp_path: Path) -> None:
    log = read_text(tmp_path, '')
    assert (log.tables, log.last_step, log.truncated_at_line, log.series()) == ((), None, None, {})


def test_missing_log(tmp_path: Path) -> None:
    with pytest.raises(OodalError, match='cannot be read: No such file'):
        read_log(tmp_path / 'log.lammps')


def test_rubbish_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(OodalError, match='line 2: not text'):
        read_text(tmp_path, b'LAMMPS (1 Jan 2024)\n\x00\x01\x02\nStep\n')


def test_zeros_that_a_dead_node_left_are_a_cut(tmp_path: Path) -> None:
    log = read_text(tmp_path, (DATA / 'sigkill' / 'log.no').read_bytes() + b'\0' * 100)
    assert log.truncated_at_line == 385
    assert log.last_step == 320


@settings(deadline=None)
@given(data=st.data())
def test_any_cut_gives_a_prefix_or_a_clear_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = data.draw(st.sampled_from(WHOLE_LOGS))
    raw = source.read_bytes()
    whole = read_log(source)
    path = tmp_path_factory.mktemp('cut') / 'log.lammps'
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    cut = read_log(path)
    assert len(cut.tables) <= len(whole.tables)
    assert cut.halt in (None, whole.halt)
    assert cut.lost_atoms in (None, whole.lost_atoms)
    for part, full in zip(cut.tables, whole.tables, strict=False):
        assert list(part.columns) == list(full.columns)
        assert not part.finished or full.finished
        for name in full.columns:
            np.testing.assert_array_equal(part.columns[name], full.columns[name][: len(part)])


@settings(deadline=None)
@given(rubbish=st.binary(max_size=300), after_header=st.booleans())
def test_rubbish_never_ends_in_a_traceback(
    rubbish: bytes, after_header: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp('rubbish') / 'log.lammps'
    path.write_bytes((table('Step Temp', ' 0 300', end='').encode() if after_header else b'') + rubbish)
    message = ''
    try:
        read_log(path).series()
    except OodalError as error:
        message = str(error)
    assert not message or message.startswith(f'{path}, line ')
