"""The sentences and tables of a campaign's page, for campaigns that are told by hand."""

from aiida_oodal.report.campaign.about import MOST_TRAININGS, list_errors
from aiida_oodal.report.campaign.figures import draw_errors
from aiida_oodal.report.campaign.history import CampaignHistory, Round, WalkerRun
from aiida_oodal.report.campaign.page import summarise


def make_round(number, error):
    walkers = (WalkerRun('hot', 'UNCERTAIN', '', last_step=10 * number, max_gamma=6.0),)
    return Round(number, None, error, None, walkers)


def make_history(errors, **training):
    rounds = tuple(make_round(number, error) for number, error in enumerate(errors, start=1))
    return CampaignHistory(1, 'uuid', 'running', rounds, (training,))


def test_an_error_that_was_larger_in_between_is_told():
    assert 'went from 30 to 27 meV/Å, and was 48 in round 2.' in summarise(make_history([30.0, 48.0, 27.0]))
    assert 'went from 30 to 27 meV/Å.' in summarise(make_history([30.0, 28.0, 27.0]))


def test_without_a_validation_set_no_error_is_told():
    assert 'force error' not in summarise(make_history([None, None]))


def test_the_learning_curve_has_an_axis_of_errors_only_with_a_validation_set():
    training = {'training': {'n_atoms': 40}}
    assert [trace.name for trace in draw_errors(make_history([None], **training)).data] == ['labelled atoms']
    judged = draw_errors(make_history([30.0], **training, validation={'force_rmse': 30.0}))
    assert [trace.name for trace in judged.data] == ['labelled atoms', 'force RMSE']


def part(al, cu=None, **more):
    by_element = {'Al': {'force_rmse': al}} | ({} if cu is None else {'Cu': {'force_rmse': cu}})
    return {'n_structures': 3, 'force_rmse': al, 'by_element': by_element, **more}


def test_errors_by_element_and_by_set():
    parts = {'start': part(5.0, 11.0, role='training'), 'round_1': part(7.0, role='training')}
    elements, shown, rows = list_errors(
        make_history([30.0], parts=parts, validation=part(9.0, 39.0, role='validation'))
    )
    assert elements == ['Al', 'Cu']
    assert shown == [0]
    assert [(row['name'], row['role'], row['by_element']) for row in rows] == [
        ('start', 'training', [5.0, 11.0]),
        ('round_1', 'training', [7.0, None]),
        ('validation', 'validation', [9.0, 39.0]),
    ]


def test_a_trainer_that_tells_no_errors_has_no_table():
    assert list_errors(make_history([30.0])) == ([], [0], [])
    assert list_errors(CampaignHistory(1, 'uuid', 'running', (), ())) == ([], [], [])


def test_errors_of_many_trainings_stand_side_by_side():
    trainings = tuple(
        {'parts': {'start': part(float(number)), 'late': part(9.0)} if number == 40 else {'start': part(float(number))}}
        for number in range(41)
    )
    _, shown, rows = list_errors(CampaignHistory(1, 'uuid', 'running', (), trainings))
    assert (shown[0], shown[-1], len(shown)) == (0, 40, MOST_TRAININGS)
    start, late = rows
    assert start['by_training'] == [float(number) for number in shown]
    assert late['by_training'] == [None] * (MOST_TRAININGS - 1) + [9.0]
