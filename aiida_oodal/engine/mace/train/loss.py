"""The loss of ``mace_run_train`` with a weight for each atom; it ends a training whose loss is no number."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiida_oodal.engine.errors import OodalError

from .arguments import mace_version

__all__ = ['BATCH_KEY', 'DivergedError', 'UpdateCounter', 'knows_atom_weights', 'require_mace', 'weighted_loss']

#: Under which name a batch of mace-torch carries the weights of atoms.
BATCH_KEY = 'forces_atomic_weights'


class DivergedError(OodalError):
    """The loss is not finite: all weights of the model are lost, and every later update is in vain."""


def require_mace() -> None:
    """Refuse a mace-torch that is not there, or is older than 0.3.15: weights of atoms do not reach its batches."""
    installed = mace_version()
    if installed is None:
        raise OodalError('mace-torch is not installed on this node: install 0.3.15 or later there')
    if tuple(int(part) for part in re.findall(r'\d+', installed)[:3]) < (0, 3, 15):
        raise OodalError(f'mace-torch {installed} is installed on this node: training needs 0.3.15 or later')


class UpdateCounter:
    """Count the updates of a training."""

    def __init__(self) -> None:
        self.n_updates = 0


def knows_atom_weights() -> bool:
    """Tell whether the installed mace-torch weighs atoms itself (ACEsuit/mace, pull request 1542)."""
    from mace.tools.default_keys import DefaultKeys

    return hasattr(DefaultKeys, BATCH_KEY.upper())


@contextmanager
def weighted_loss(counter: UpdateCounter) -> Iterator[None]:
    """Let ``mace_run_train`` use :func:`weigh_atoms` of the loss that it would use, within a ``with`` block.

    It is the only function of mace-torch that is replaced.

    :raises OodalError: if the installed mace-torch has no such function.
    """
    run_train: Any = importlib.import_module('mace.cli.run_train')
    original = getattr(run_train, 'get_loss_fn', None)
    if original is None:
        raise OodalError(
            f'mace-torch {mace_version()} has no mace.cli.run_train.get_loss_fn, through which atoms get their '
            'weights: install 0.3.16 on this node'
        )

    def get_loss_fn(*arguments: Any, **options: Any) -> Any:
        return weigh_atoms(original(*arguments, **options), counter)

    run_train.get_loss_fn = get_loss_fn
    try:
        yield
    finally:
        run_train.get_loss_fn = original


def weigh_atoms(loss: Any, counter: UpdateCounter) -> Any:
    """Return a loss that weighs the forces on each atom, with all else as in the loss of mace-torch.

    The error of the force on an atom of weight w is multiplied by sqrt(w) before mace-torch sees it: a squared loss is
    then weighted by w, and an atom of weight 0 has no part in any loss. Mace-torch that weighs atoms itself is left to
    do it.

    :param loss: ``torch.nn.Module`` of mace-torch, called with a batch and the predictions for it.
    """
    import torch

    weighs_itself = knows_atom_weights()

    class AtomWeightedLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = loss

        def forward(self, ref: Any, pred: dict[str, Any], ddp: bool | None = None) -> Any:
            forces = pred['forces']
            # forces of an evaluation come without the graph that a gradient of the loss needs
            is_update = bool(forces.requires_grad)
            if not weighs_itself and BATCH_KEY in ref.keys:
                root = ref[BATCH_KEY].view(-1, 1).sqrt()
                pred = {**pred, 'forces': ref['forces'] + root * (forces - ref['forces'])}
            value = self.loss(ref=ref, pred=pred, ddp=ddp)
            if is_update:
                if not torch.isfinite(value):
                    raise DivergedError(f'the loss became {float(value.detach())} at update {counter.n_updates + 1}')
                counter.n_updates += 1
            return value

        def __repr__(self) -> str:
            return repr(self.loss)

    return AtomWeightedLoss()
