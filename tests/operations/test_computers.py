"""Computers of this machine: nothing is stored of one that is refused."""

import sys
import uuid

import pytest
from aiida.orm import Computer, QueryBuilder

from aiida_oodal.calculations.job.options import PROPERTY
from aiida_oodal.engine.errors import OodalError
from aiida_oodal.operations.codes import describe_python
from aiida_oodal.operations.computers import find_computer, find_computers, make_computer, run_as_job, run_on
from aiida_oodal.operations.presets import ComputerSettings


@pytest.fixture
def settings(aiida_profile, tmp_path):
    """Return a factory of settings with a label of their own."""
    label = f'machine-{uuid.uuid4()}'

    def make(**changes):
        return ComputerSettings(**{'label': label, 'work_dir': str(tmp_path / 'run'), 'venv': sys.prefix, **changes})

    return make


def labels():
    return set(QueryBuilder().append(Computer, project='label').all(flat=True))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'venv': '/nowhere'}, r'would not get their environment: .*/nowhere/bin/activate.*Correct --module, --conda'),
        ({'conda': 'nowhere'}, r'would not get their environment: .*conda'),
        ({'modules': ('nowhere/1.0',)}, r'would not get their environment: .*module'),
        ({'work_dir': '/proc/oodal'}, 'mkdir -p /proc/oodal'),
        ({'work_dir': '/sys/kernel'}, r'nothing can be written into /sys/kernel, where jobs would run: .*mktemp'),
    ],
)
def test_one_that_is_refused_is_not_left_behind(settings, changes, message):
    before = labels()
    with pytest.raises(OodalError, match=message):
        make_computer('local', settings(**changes), print)
    assert labels() == before


def test_one_that_is_refused_changes_nothing_in_the_one_that_is_there(settings):
    computer = make_computer('local', settings(), print)
    text, facts = computer.get_prepend_text(), computer.get_property(PROPERTY)
    with pytest.raises(OodalError, match='/nowhere/bin/activate'):
        make_computer('local', settings(venv='/nowhere', work_dir='/tmp'), print)
    again = find_computer(computer.label)
    assert (again.get_prepend_text(), again.get_property(PROPERTY)) == (text, facts)
    assert again.get_workdir() == computer.get_workdir() != '/tmp'
    assert again.is_configured


def test_a_host_that_does_not_answer_is_told_with_what_to_try(settings):
    before = labels()
    with pytest.raises(OodalError, match=r'nowhere\.invalid does not answer: .* Try `ssh nowhere.invalid true`'):
        make_computer('a100-slurm', settings(host='nowhere.invalid'), print)
    assert labels() == before


def test_jobs_do_not_get_the_pythonpath_of_the_daemon(settings, monkeypatch, tmp_path):
    (tmp_path / 'mace').mkdir()
    (tmp_path / 'mace' / '__init__.py').touch()
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setenv('PYTHONHOME', '/nowhere')
    computer = make_computer('local', settings(), print)
    assert run_on(computer, 'echo $PYTHONPATH $PYTHONHOME').split() == [str(tmp_path), '/nowhere']
    assert run_as_job(computer, 'echo "<$PYTHONPATH$PYTHONHOME>"').strip() == '<>'
    assert sys.executable in describe_python(computer)[0]
    where = run_as_job(computer, 'python3 -c "import importlib.util as u; print(u.find_spec(\'mace\').origin)"')
    assert str(tmp_path) not in where


def test_who_asks_for_a_computer_that_is_not_there_is_told_which_are(settings):
    made = make_computer('local', settings(), print)
    with pytest.raises(OodalError, match=f"no computer 'nowhere' that is configured .*{made.label}.*setup computer"):
        find_computer('nowhere')
    assert made.label in [computer.label for computer in find_computers()]
