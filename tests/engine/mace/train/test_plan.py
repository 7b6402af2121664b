import ast
import json

import numpy as np
import pytest

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.train.data import Data
from aiida_oodal.engine.mace.train.labels import Part, weigh_parts
from aiida_oodal.engine.mace.train.plan import command_line, learning_rate, plan_epochs


@pytest.fixture
def data_of(cells):
    """Return a function that makes the data of a training from numbers of structures."""

    def make(n_training=20, n_replay=0, core=4, start=None):
        cores = [np.arange(4) < core] * 24
        part = Part('training.npz', (cells * 20)[:n_training], (cores * 20)[:n_training], {})
        replay = Part('replay.npz', (cells * 20)[:n_replay], [], {}) if n_replay else None
        weigh_parts([part], 'mask', 0.1)
        return Data([part], Part('v.npz', cells[:2], cores[:2], {}), {'Al': 3.28}, core < 4, start, replay)

    return make


@pytest.mark.parametrize(
    ('n_training', 'batch', 'updates', 'evaluations', 'expected'),
    [
        (20, 4, 50, 5, (5, 10, 1)),
        (21, 4, 51, 5, (5, 11, 2)),
        (23, 4, 1000, 20, (5, 208, 9)),
        (4, 4, 1, 20, (1, 1, 1)),
        (400, 2, 199, 20, (200, 1, 1)),
    ],
)
def test_updates_become_epochs(data_of, values, n_training, batch, updates, evaluations, expected):
    settings = values(batch_size=batch, updates=updates, evaluations=evaluations)
    plan = plan_epochs(data_of(n_training), settings)
    assert (plan.updates_per_epoch, plan.epochs, plan.eval_interval) == expected
    assert plan.updates >= updates
    # the last epoch is one of those that mace-torch evaluates
    assert (plan.epochs - 1) % plan.eval_interval == 0


def test_replayed_structures_count(data_of, values):
    # 40 are replayed, 4 of them to validate; 2 of 36 are less than a tenth: mace-torch takes the new ones 2 times
    assert plan_epochs(data_of(2, 40, start='s'), values(batch_size=4)).updates_per_epoch == (36 + 2 * 2) // 4
    assert plan_epochs(data_of(20, 40, start='s'), values(batch_size=4)).updates_per_epoch == (36 + 20) // 4


def test_a_batch_that_is_never_full_is_refused(data_of, values):
    with pytest.raises(OodalError, match=r'batch_size = 8 is larger than the training set \(7 structures\)'):
        plan_epochs(data_of(7), values(batch_size=8))


def options_of(data, values, **changes):
    settings = values(**changes)
    return dict(
        option.removeprefix('--').partition('=')[::2]
        for option in command_line(data, plan_epochs(data, settings), settings, 3, 'cpu')
    )


def test_the_command_line(data_of, values):
    options = options_of(data_of(), values, overrides={'weight_decay': 0.1})
    chosen = [options[name] for name in ('seed', 'model', 'max_num_epochs', 'loss')]
    assert chosen == ['3', 'MACE', '10', 'stress']
    assert float(options['lr_scheduler_gamma']) ** 9 == pytest.approx(0.05)
    assert options['weight_decay'] == '0.1'
    assert 'std' not in options
    assert 'foundation_model' not in options
    head = json.loads(options['heads'])['Default']
    assert ast.literal_eval(head['E0s']) == {13: 3.28}
    assert set(head) == {'train_file', 'valid_file', 'E0s'}


def test_masked_forces_do_not_scale_the_model(data_of, values, cells):
    data = data_of(core=2)
    options = options_of(data, values)
    kept = np.concatenate([atoms.arrays['REF_forces'][:2] for atoms in data.parts[0].frames])
    assert float(options['std']) == pytest.approx(np.sqrt(np.mean(kept**2)))
    assert json.loads(options['heads'])['Default']['arrays_keys'] == {
        'forces_atomic_weights': 'REF_forces_atomic_weights'
    }
    assert 'std' not in options_of(data, values, overrides={'scaling': 'no_scaling'})


def test_other_schedulers_keep_their_own_way(data_of, values):
    assert 'lr_scheduler_gamma' not in options_of(data_of(), values, overrides={'scheduler': 'ReduceLROnPlateau'})


def test_starting_from_a_model(data_of, values):
    options = options_of(data_of(start='start.model'), values, freeze='interactions')
    chosen = [options[name] for name in ('foundation_model', 'multiheads_finetuning', 'freeze')]
    assert chosen == ['start.model', 'False', '5']
    data = data_of(n_replay=12, start='start.model')
    options = options_of(data, values)
    assert options['multiheads_finetuning'] == 'True'
    assert json.loads(options['heads'])['pt_head'] == {'train_file': options['pt_train_file']}
    assert learning_rate(data, values()) == float(options['lr']) == 1e-4
    assert learning_rate(data, values(overrides={'force_mh_ft_lr': True})) == 0.1


def test_what_weighs_nothing_is_not_trained_on(data_of, values):
    assert data_of().trained_on == ['energy', 'forces', 'stress']
    masked = data_of(core=2)
    assert masked.trained_on == ['forces']
    assert options_of(masked, values)['loss'] == 'weighted'
