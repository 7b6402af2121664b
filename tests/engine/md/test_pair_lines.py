import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.md.pair_lines import check_arguments, check_lines, extend_lines, pair_styles, sets_masses

LINES = ['pair_style eam/alloy', 'pair_coeff * * Al.eam Al']


def test_lines_that_define_forces_pass():
    check_lines(LINES, ['Al'], ['Al.eam'])
    assert pair_styles(['pair_style hybrid/overlay eam/alloy zbl 1 2', 'pair_modify tail no']) == ['hybrid/overlay']


@pytest.mark.parametrize(
    ('lines', 'elements', 'files', 'message'),
    [
        (LINES[:1], ['Al'], [], 'no pair_coeff'),
        (LINES[1:], ['Al'], [], 'no pair_style'),
        ([*LINES, 'shell rm x'], ['Al'], [], "line 3: 'shell' does not belong here"),
        ([LINES[0] + '\nrun 5', LINES[1]], ['Al'], [], 'must be one whole command'),
        ([LINES[0] + ' &', LINES[1]], ['Al'], [], 'must be one whole command'),
        (['', *LINES], ['Al'], [], 'must be one whole command'),
        (LINES, ['Al'], ['Cu.eam'], "'Cu.eam' is given, but no pair line reads it"),
        (LINES, ['Al'], ['md.in'], "'md.in' .* is taken"),
        (LINES, ['X1'], [], "'X1' is no chemical symbol"),
        (LINES, [], [], 'elements is empty'),
    ],
)
def test_what_cannot_define_forces_is_refused(lines, elements, files, message):
    with pytest.raises(OodalError, match=message):
        check_lines(lines, elements, files)


@pytest.mark.parametrize(
    ('word', 'message'),
    [
        ('-in', "'-in' is set by the job itself"),
        ('-partition', 'leave it out'),
        ('', "'' must be a word"),
        (5, '5 must'),
    ],
)
def test_what_the_job_sets_itself_is_no_word_for_the_command_line(word, message):
    check_arguments(['-k', 'on', 'g', '1', '-sf', 'kk'])
    with pytest.raises(OodalError, match=message):
        check_arguments(['-k', word])


@pytest.mark.parametrize(
    ('line', 'extended'),
    [
        ('pair_coeff * * Al.eam Al Cu', 'pair_coeff * * Al.eam Al Cu Cu Al'),
        ('pair_coeff * * library.meam Al Cu x.meam Al Cu', 'pair_coeff * * library.meam Al Cu x.meam Al Cu Cu Al'),
        ('pair_coeff * * eam/alloy 1 Al.eam Al NULL', 'pair_coeff * * eam/alloy 1 Al.eam Al NULL NULL Al'),
        ('pair_coeff * * 0.2 2.6', 'pair_coeff * * 0.2 2.6'),
        ('pair_style lj/cut 6', 'pair_style lj/cut 6'),
    ],
)
def test_lines_are_written_for_more_types(line, extended):
    assert extend_lines([line], ['Al', 'Cu'], ['Al', 'Cu', 'Cu', 'Al']) == [extended]
    assert extend_lines([line], ['Al', 'Cu'], ['Al', 'Cu']) == [line]


@pytest.mark.parametrize('line', ['pair_coeff 1 2 0.2 2.6', 'mass 1 27'])
def test_lines_for_types_by_number_are_not(line):
    with pytest.raises(OodalError, match=f"atoms of Al have several masses.*'{line}' is for types by number"):
        extend_lines([line], ['Al'], ['Al', 'Al'])


def test_lines_that_set_masses_are_known():
    assert sets_masses([*LINES, 'mass 1 27'])
    assert not sets_masses(LINES)
