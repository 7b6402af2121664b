"""How many epochs a number of updates is, and the command line of ``mace_run_train``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ase.data import atomic_numbers

from aiida_oodal.engine.errors import OodalError

from .arguments import to_options
from .data import WORK_FOLDER, Data
from .labels import ATOM_WEIGHTS
from .loss import BATCH_KEY

__all__ = ['HEAD', 'NAME', 'STAGE_TWO_FILE', 'Plan', 'command_line', 'learning_rate', 'plan_epochs']

#: ``--name`` of the training, and of the head that learns the labels.
NAME, HEAD = 'mace', 'Default'
#: What mace-torch writes beside the model if there is a stage two.
STAGE_TWO_FILE = f'{NAME}_stagetwo.model'
#: Layers that stay as they are, as ``--freeze`` counts them.
_FREEZE = {'nothing': None, 'embedding': 1, 'interactions': 5, 'products': 6}
#: Share of the replay set that mace-torch evaluates and does not train on (its own default), and the ratio of new to
#: replayed structures below which it repeats the new ones (``--real_pt_data_ratio_threshold``).
_REPLAY_VALIDATION, _REPLAY_RATIO = 0.1, 0.1
#: What mace-torch sets with replay, beside an ema_decay of 0.99999, unless ``force_mh_ft_lr`` is given.
_REPLAY_LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Plan:
    """How long to train.

    :param updates_per_epoch: mace-torch drops the last batch if it is not full.
    :param eval_interval: epochs from one evaluation to the next; the last epoch is evaluated.
    """

    updates_per_epoch: int
    epochs: int
    eval_interval: int

    @property
    def updates(self) -> int:
        """Updates in all."""
        return self.updates_per_epoch * self.epochs


def plan_epochs(data: Data, values: Mapping[str, Any]) -> Plan:
    """Turn updates into epochs.

    :raises OodalError: if not even one batch is full.
    """
    batch, n_structures = values['batch_size'], data.n_training
    if data.replay is not None:
        n_replay = len(data.replay.frames)
        n_replay = min(n_replay - int(_REPLAY_VALIDATION * n_replay), n_replay - 1)
        ratio = n_structures / n_replay
        threshold = values['arguments'].get('real_pt_data_ratio_threshold') or _REPLAY_RATIO
        n_structures = n_replay + n_structures * (1 + (int(threshold / ratio) if ratio < threshold else 0))
    per_epoch = n_structures // batch
    if per_epoch == 0:
        raise OodalError(
            f'batch_size = {batch} is larger than the training set ({n_structures} structures): mace-torch drops a '
            f'batch that is not full, and nothing would be trained; set batch_size to at most {n_structures}'
        )
    epochs = math.ceil(values['updates'] / per_epoch)
    interval = max(1, (epochs - 1) // values['evaluations'])
    # evaluated are epochs 0, interval, 2 interval, ...: the last one must be among them
    return Plan(per_epoch, 1 + interval * math.ceil((epochs - 1) / interval), interval)


def learning_rate(data: Data, values: Mapping[str, Any]) -> float:
    """Return the learning rate of the first epoch: with replay mace-torch takes its own unless it is forced."""
    forced = data.replay is None or values['arguments'].get('force_mh_ft_lr')
    return float(values['learning_rate']) if forced else _REPLAY_LEARNING_RATE


def command_line(data: Data, plan: Plan, values: Mapping[str, Any], seed: int, device: str) -> list[str]:
    """Return the options of ``mace_run_train``.

    :raises OodalError: if the installed mace-torch does not take one of them.
    """
    given = dict(values['arguments'])
    arguments: dict[str, Any] = {
        'name': NAME,
        'seed': seed,
        'work_dir': WORK_FOLDER,
        'model_dir': '.',
        'log_level': 'ERROR',
        'device': device,
        'default_dtype': values['precision'],
        'loss': 'stress' if 'stress' in data.trained_on else 'weighted',
        'batch_size': values['batch_size'],
        'lr': learning_rate(data, values),
        'max_num_epochs': plan.epochs,
        'eval_interval': plan.eval_interval,
        'plot': False,
        'save_cpu': True,
        'freeze': _FREEZE[values['freeze']],
        # what it is good for is found by our own evaluation, which knows core and buffer
        'skip_evaluate_heads': f'{HEAD},pt_head',
    }
    if given.get('scheduler', 'ExponentialLR') == 'ExponentialLR':
        arguments['lr_scheduler_gamma'] = values['final_learning_rate'] ** (1.0 / max(1, plan.epochs - 1))
    scaled = data.start is None and given.get('scaling', 'rms_forces_scaling') == 'rms_forces_scaling'
    if scaled and data.is_weighted:
        # mace-torch would take it over all forces, those that weigh nothing included
        arguments['std'] = data.force_rms
    energies = {atomic_numbers[element]: energy for element, energy in data.isolated.items()}
    keys = {'arrays_keys': {BATCH_KEY: ATOM_WEIGHTS}} if data.is_weighted else {}
    heads: dict[str, Any] = {
        HEAD: {
            'train_file': data.training_file,
            'valid_file': data.validation_file,
            'E0s': str(energies),
            **keys,
        }
    }
    if data.start is not None:
        arguments |= {'foundation_model': data.start, 'multiheads_finetuning': data.replay is not None}
    if data.replay is not None:
        arguments['pt_train_file'] = data.replay_file
        heads['pt_head'] = {'train_file': data.replay_file, **keys}
    return to_options({**arguments, **given, 'heads': json.dumps(heads)})
