import inspect
import warnings

import numpy as np
import pytest
from machine import require

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.train import loss as room
from aiida_oodal.engine.mace.train.loss import BATCH_KEY, DivergedError, UpdateCounter, weigh_atoms, weighted_loss

require('mace')

with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # within mace-torch and e3nn
    import torch
    from mace.cli import run_train
    from mace.modules.loss import UniversalLoss, WeightedEnergyForcesStressLoss
    from mace.tools import build_default_arg_parser


class Batch(dict):
    """What a loss reads of a batch of mace-torch: two structures of two and of three atoms."""

    def __init__(self, weights=None):
        random = torch.Generator().manual_seed(0)
        super().__init__(
            energy=torch.randn(2, generator=random),
            forces=torch.randn(5, 3, generator=random),
            stress=torch.randn(2, 3, 3, generator=random),
            weight=torch.ones(2),
            energy_weight=torch.tensor([1.0, 0.0]),
            forces_weight=torch.tensor([1.0, 2.0]),
            stress_weight=torch.ones(2),
            ptr=torch.tensor([0, 2, 5]),
        )
        if weights is not None:
            self[BATCH_KEY] = torch.tensor(weights).reshape(-1, 1)
        self.keys = list(super().keys())

    def __getattr__(self, name):
        return self[name]


def predict(seed=1):
    random = torch.Generator().manual_seed(seed)
    shapes = {'energy': (2,), 'forces': (5, 3), 'stress': (2, 3, 3)}
    return {name: torch.randn(shape, generator=random).requires_grad_() for name, shape in shapes.items()}


WEIGHTS = [2.5, 0.0, 1.5, 0.0, 1.0]


def test_a_squared_loss_is_weighted_by_atom():
    batch, predicted = Batch(WEIGHTS), predict()
    value = weigh_atoms(WeightedEnergyForcesStressLoss(7.0, 11.0, 13.0), UpdateCounter())(ref=batch, pred=predicted)
    deviation = {name: (predicted[name] - batch[name]).detach().numpy() for name in ('energy', 'forces', 'stress')}
    per_atom = np.array(WEIGHTS) * [1, 1, 2, 2, 2]
    expected = (
        7.0 * np.mean([deviation['energy'][0] ** 2 / 4, 0.0])
        + 11.0 * np.mean(per_atom[:, None] * deviation['forces'] ** 2)
        + 13.0 * np.mean(deviation['stress'] ** 2)
    )
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    value.backward()
    gradient = predicted['forces'].grad.numpy()
    np.testing.assert_allclose(gradient, 11.0 * per_atom[:, None] * 2 * deviation['forces'] / 15, rtol=1e-4, atol=1e-7)


def test_masked_atoms_have_no_part_in_any_loss():
    masked = torch.tensor(WEIGHTS) == 0.0
    for loss in (UniversalLoss(1.0, 10.0, 1.0), WeightedEnergyForcesStressLoss(1.0, 10.0, 1.0)):
        values = []
        for spoilt in (0.0, 100.0):
            batch, predicted = Batch(WEIGHTS), predict()
            batch['forces'][masked] += spoilt
            value = weigh_atoms(loss, UpdateCounter())(ref=batch, pred=predicted)
            value.backward()
            assert not predicted['forces'].grad[masked].any()
            values.append(float(value.detach()))
        assert values[0] == values[1]


def test_without_weights_the_loss_is_that_of_mace():
    loss = WeightedEnergyForcesStressLoss(1.0, 10.0, 1.0)
    assert torch.equal(weigh_atoms(loss, UpdateCounter())(Batch(), predict()), loss(Batch(), predict()))


def test_a_mace_that_weighs_atoms_itself_is_left_to_do_it(monkeypatch):
    assert not room.knows_atom_weights(), 'this mace-torch weighs atoms itself: weigh_atoms can go'
    monkeypatch.setattr(room, 'knows_atom_weights', lambda: True)
    loss = WeightedEnergyForcesStressLoss(1.0, 10.0, 1.0)
    assert torch.equal(weigh_atoms(loss, UpdateCounter())(Batch(WEIGHTS), predict()), loss(Batch(), predict()))


def test_updates_are_counted_and_end_with_a_loss_that_is_no_number():
    counter = UpdateCounter()
    loss = weigh_atoms(WeightedEnergyForcesStressLoss(1.0, 10.0, 1.0), counter)
    loss(Batch(), predict())
    loss(Batch(), predict())
    evaluated = {name: value.detach() for name, value in predict().items()}
    loss(Batch(), evaluated)
    assert counter.n_updates == 2
    evaluated['forces'][0] = torch.nan
    assert not torch.isfinite(loss(Batch(), evaluated))
    with pytest.raises(DivergedError, match='the loss became nan at update 3'):
        loss(Batch(), {**predict(), 'energy': torch.full((2,), torch.nan)})


def test_one_function_of_mace_is_replaced_and_put_back():
    original = run_train.get_loss_fn
    assert list(inspect.signature(original).parameters) == ['args', 'dipole_only', 'compute_dipole']
    assert 'get_loss_fn(args, dipole_only, args.compute_dipole)' in inspect.getsource(run_train.run)
    arguments = build_default_arg_parser().parse_args(['--name=x', '--loss=stress', '--stress_weight=5'])
    with weighted_loss(UpdateCounter()):
        made = run_train.get_loss_fn(arguments, False, False)
        assert 'stress_weight=5.000' in repr(made)
        assert type(made) is not type(original(arguments, False, False))
    assert run_train.get_loss_fn is original


def test_the_versions_of_mace_in_which_it_exists(monkeypatch):
    # get_loss_fn is in 0.3.13 to 0.3.16; weights reach a batch from 0.3.15 on
    room.require_mace()
    monkeypatch.delattr(run_train, 'get_loss_fn')
    with pytest.raises(OodalError, match=r'has no mace\.cli\.run_train\.get_loss_fn'), weighted_loss(UpdateCounter()):
        pass
    for installed, message in (('0.3.14', 'mace-torch 0.3.14 is installed'), (None, 'mace-torch is not installed')):
        monkeypatch.setattr(room, 'mace_version', lambda installed=installed: installed)
        with pytest.raises(OodalError, match=message):
            room.require_mace()
