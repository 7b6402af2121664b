import subprocess
import sys

import pytest
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.train import arguments
from aiida_oodal.engine.mace.train.arguments import (
    Argument,
    check_arguments,
    known_arguments,
    read_recorded,
    to_options,
)


def test_what_is_recorded_is_what_mace_takes():
    require('mace', 'recorded_mace')
    from mace import tools

    asked = arguments.describe(tools.build_default_arg_parser())
    assert asked == read_recorded() == known_arguments()
    assert len(asked) > 150


def test_arguments_are_known_without_torch():
    code = (
        'import sys\nfrom aiida_oodal.engine.mace.train.settings import MaceTrainSettings\n'
        "print(MaceTrainSettings.check({'overrides': {'lr_factr': 1.0}}))\n"
        "print([name for name in ('torch', 'mace', 'aiida') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    sentence, modules = done.stdout.strip().splitlines()
    assert "did you mean 'lr_factor'?" in sentence
    assert modules == '[]'


def test_a_host_without_mace_reads_the_record(monkeypatch):
    monkeypatch.setattr(arguments.importlib.util, 'find_spec', lambda name: None)
    known_arguments.cache_clear()
    try:
        assert known_arguments() == read_recorded()
        assert check_arguments({'scheduler': 'ExponentialLR', 'gate': 'relu'}) == [
            "gate = 'relu' must be one of silu, tanh, abs, None"
        ]
    finally:
        known_arguments.cache_clear()


def test_kinds():
    known = read_recorded()
    assert known['max_ell'] == Argument('int')
    assert known['amsgrad'] == Argument('flag', always=True)
    assert known['clip_grad'] == Argument('float or None')
    assert known['stage_two'] == known['swa'] == Argument('flag')
    assert known['plot'] == Argument('bool')
    assert 'universal' in known['loss'].choices


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('lrr', 0.1, "'lrr' is no argument of mace_run_train; did you mean 'lr'?"),
        ('qqqqqqqq', 1, 'see `mace_run_train --help`'),
        ('lr', 'fast', "lr = 'fast' must be of type float"),
        ('num_channels', 1.5, 'must be of type int'),
        ('num_channels', True, 'must be of type int'),
        ('ema', 1, 'must be true or false'),
        ('plot', 'yes', 'must be true or false'),
        ('amsgrad', False, 'no option to switch it off'),
        ('loss', 'hubber', 'must be one of ef, weighted'),
        ('weight_decay', float('nan'), 'must be finite'),
        ('radial_MLP', 3, 'must be a text'),
        ('wandb_log_hypers', 'lr', 'must be a list of words'),
    ],
)
def test_wrong_arguments_are_explained(name, value, message):
    (problem,) = check_arguments({name: value})
    assert message in problem
    with pytest.raises(OodalError, match='MACE arguments: '):
        to_options({name: value})


def test_options_are_read_by_mace_as_they_were_meant():
    require('mace')
    from mace import tools

    given = {
        'name': 'x',
        'radial_MLP': [16, 16],
        'ema': True,
        'swa': False,
        'lr': 0.02,
        'clip_grad': 'None',
        'apply_cutoff': False,
        'wandb_log_hypers': ['lr', 'seed'],
        'max_L': None,
        'lr_params_factors': {'embedding_lr_factor': 0.5},
    }
    read = tools.build_default_arg_parser().parse_args(to_options(given))
    assert (read.radial_MLP, read.ema, read.swa, read.lr) == ('[16, 16]', True, False, 0.02)
    assert (read.clip_grad, read.apply_cutoff, read.max_L) == (None, False, None)
    assert read.wandb_log_hypers == ['lr', 'seed']
    assert read.lr_params_factors == '{"embedding_lr_factor": 0.5}'
