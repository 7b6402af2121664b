import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.train.arguments import check_arguments, known_arguments
from aiida_oodal.engine.mace.train.settings import _OWN, PROTOCOLS, MaceTrainSettings


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_protocols_are_whole_and_known_to_mace(protocol):
    values = MaceTrainSettings.load({'protocol': protocol}).to_values()
    assert check_arguments(values['arguments']) == []
    assert values['arguments']['model'] == 'MACE'
    assert not set(values['arguments']) & set(_OWN)
    assert values['updates'] == PROTOCOLS[protocol]['updates']
    assert not {'protocol', 'overrides'} & set(values)


def test_every_argument_is_open_or_named_with_what_to_use():
    assert set(_OWN) <= {*known_arguments(), 'config'}
    for name in known_arguments():
        sentence = MaceTrainSettings.check({'overrides': {name: None}})
        assert (sentence is None) == (name not in _OWN), name


def test_what_is_given_wins_over_the_protocol():
    given = {'updates': 7, 'batch_size': None, 'overrides': {'r_max': 5.5, 'ema': False, 'max_ell': None}}
    values = MaceTrainSettings.load({'protocol': 'quick', **given}).to_values()
    assert (values['updates'], values['batch_size']) == (7, PROTOCOLS['quick']['batch_size'])
    assert [values['arguments'][name] for name in ('r_max', 'ema', 'max_ell')] == [5.5, False, None]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'protocol': 'fast'}, "protocol = 'fast': Input should be 'quick', 'balanced' or 'careful'"),
        ({'updates': 0}, 'updates = 0'),
        ({'update': 10}, "'update' is not a setting; did you mean 'updates'?"),
        ({'learning_rate': 2.0}, 'learning_rate = 2.0'),
        ({'E0s': 'average'}, 'a least-squares fit of the composition puts the cohesive energy into E0s'),
        ({'E0s': 'estimated'}, 'Compute one free atom of each element'),
        ({'E0s': {'Xq': 1.0}}, 'Xq is no element'),
        ({'overrides': {'model': 'ScaleShiftMACE'}}, 'evaporates what it should not. Use MACE'),
        ({'overrides': {'model': 'PolarMACE'}}, 'only MACE is trained here'),
        ({'overrides': {'loss': 'huber'}}, "loss = 'huber': use weighted, stress, universal"),
        ({'overrides': {'lr': 0.1}}, 'lr: use the setting learning_rate'),
        (
            {'overrides': {'hidden_irreps': '8x0e', 'max_L': 0}},
            'hidden_irreps and max_L say the same: give one of them',
        ),
        ({'overrides': {'seed': 9}}, '`seeds`, beside `settings`'),
        ({'E0s': {29: -0.1}}, '29 is an atomic number: give energies by symbol, such as'),
        ({'overrides': {'max_num_epochs': 9}}, 'max_num_epochs: training is counted in updates'),
        ({'overrides': {'patience': 9}}, 'goes on all the same'),
        ({'overrides': {'max_el': 9}}, "'max_el' is no argument of mace_run_train; did you mean 'max_ell'?"),
        ({'overrides': {'swa': True}, 'weights': 'mask'}, "swa and weights = 'mask' exclude each other"),
    ],
)
def test_wrong_settings_are_explained(given, message):
    sentence = MaceTrainSettings.check(given)
    assert sentence is not None
    assert sentence.startswith('MACE training settings: ')
    assert message in sentence
    with pytest.raises(OodalError):
        MaceTrainSettings.load(given)


def test_all_problems_of_overrides_are_told_at_once():
    sentence = MaceTrainSettings.check({'overrides': {'lr': 1, 'max_el': 2, 'loss': 'ef'}})
    assert all(word in sentence for word in ('learning_rate', 'max_ell', "loss = 'ef'"))


def test_the_shape_that_is_given_as_irreps_is_not_that_of_the_protocol():
    arguments = MaceTrainSettings.load({'overrides': {'hidden_irreps': '8x0e + 8x1o'}}).to_values()['arguments']
    assert arguments['hidden_irreps'] == '8x0e + 8x1o'
    assert arguments['num_channels'] is arguments['max_L'] is None
