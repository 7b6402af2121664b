"""What of a budget is spent."""

from aiida_oodal.engine.trust.budget import Budget


def test_limits_that_are_reached_are_named_and_what_is_not_known_is_not():
    budget = Budget.load({'labels': 30, 'core_hours': 2.5, 'hours': 10.0, 'failures': 3})
    assert budget.limits() == {'labels', 'core_hours', 'hours', 'failures'}
    spent = {'labels': 31, 'hours': 9.99, 'failures': 3, 'labelled_atoms': 10**6}
    assert budget.find_spent(spent) == ['31 of 30 labels', '3 of 3 failures']
    assert Budget.load({}).find_spent(spent) == []
    large = Budget.load({'labelled_atoms': 2_000_000, 'core_hours': 12000})
    assert large.find_spent({'labelled_atoms': 2_345_678, 'core_hours': 12345.678}) == [
        '2345678 of 2000000 labelled atoms',
        '12345.7 of 12000.0 core hours',
    ]


def test_a_budget_of_nothing_is_refused():
    assert 'labels = 0' in Budget.check({'labels': 0})
