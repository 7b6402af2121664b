"""The command that prints settings: all there are, with the values of the protocol, in the words of the classes."""

import pytest
import yaml
from click.testing import CliRunner

from aiida_oodal.cli import main
from aiida_oodal.operations.campaign.settings import SECTIONS, list_settings
from aiida_oodal.workchains import protocols

#: Overrides of a campaign that are no section: values that stand alone, and what belongs to labeller and trainer.
ALONE = {'max_rounds', 'mix_levels', 'schedule', 'label', 'train'}


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, ['settings', *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_all_that_can_be_overridden_is_there():
    content = yaml.safe_load((protocols.files(protocols.__package__) / 'campaign.yaml').read_text())
    assert set(content['default_inputs']) - ALONE == set(SECTIONS) - {'train_ace', 'train_mace'}
    assert {line.split()[0] for line in invoke().splitlines()} >= set(SECTIONS)


@pytest.mark.parametrize(
    ('section', 'protocol', 'name', 'value'),
    [
        ('thresholds', 'careful', 'gamma_break', '3.0'),
        ('thresholds', 'balanced', 'gamma_break', '5.0'),
        ('md', 'quick', 'timestep_ps', '0.003'),
        ('md', None, 'temperature', None),
        ('train_ace', 'balanced', 'max_functions', '300'),
        ('train_ace', None, 'repulsion', "'zbl'"),
        ('train_mace', 'quick', 'updates', '1200'),
        ('budget', None, 'labels', 'None'),
    ],
)
def test_values_are_those_of_the_protocol_or_else_the_defaults(section, protocol, name, value):
    found = {row.name: row.value for row in list_settings(section, protocol)}
    assert found[name] == value


@pytest.mark.parametrize('section', SECTIONS)
@pytest.mark.parametrize('width', ['80', '120'])
def test_every_setting_is_printed_with_what_it_is_and_fits(section, width, monkeypatch):
    monkeypatch.setenv('COLUMNS', width)
    said = invoke(section, '--protocol', 'quick')
    assert max(map(len, said.splitlines())) <= int(width)
    words = ' '.join(said.split())
    for row in list_settings(section, 'quick'):
        value = 'must be given' if row.value is None else f'= {row.value}'
        assert f'{row.name} {value} ({row.allowed}) {row.description}' in words
        assert row.description


def test_thresholds_are_told_once():
    assert not {row.name for row in list_settings('md')} & {row.name for row in list_settings('thresholds')}


def test_names_that_are_not_there_are_refused():
    assert "there are no settings 'crave'; did you mean 'carve'?" in invoke('crave', code=1)
    assert 'settings of trainers are train_ace and train_mace' in invoke('train', code=1)
    assert 'settings of labellers are in docs/labels.md' in invoke('label', code=1)
    assert "there is no protocol 'fast' of campaign" in invoke('carve', '--protocol', 'fast', code=1)
