"""Engine command ``train-mace``: labelled sets in, one MACE model out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.files import MODEL_FILE, RESULTS_FILE
from aiida_oodal.engine.mace.memory import is_out_of_memory
from aiida_oodal.engine.mace.models import open_model, pick_device

from .checkpoints import find_checkpoint, keep_checkpoint, restore_checkpoint
from .data import Data, prepare_data
from .judge import compare, isolated_below_e0, summarise
from .loss import require_mace
from .mace_run import Ending, read_evaluations, remember_inputs, run_mace
from .plan import STAGE_TWO_FILE, Plan, command_line, learning_rate, plan_epochs

#: Exit status of a training that came to nothing; why stands in the results.
EXIT_FAILED = 2


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Train one MACE model on ``job['training']``, keep the one that is best on ``job['validation']``, and judge it.

    The job: ``training``, names of labelled structure sets; ``validation``, one such name; ``seed``; ``settings``,
    ``MaceTrainSettings(...).to_values()``; and, if wanted, ``start``, a model to start from, ``replay``, a labelled set
    of that model's own (multihead fine-tuning), ``threads`` (1). If an earlier job of the same inputs was ended from
    outside and its :data:`~.data.WORK_FOLDER` lies in ``folder``, the training goes on from its checkpoint, the best
    model so far; kept is the best of what follows.

    Writes :data:`MODEL_FILE` and :data:`RESULTS_FILE`; ``complete`` is false in what a job leaves that is ended from
    outside, and ``outcome`` says how the training ended: ``completed``, ``no_improvement`` (a model is there, but the
    validation loss never fell), ``diverged``, ``out_of_memory`` or ``failed``.

    :raises OodalError: if a file, a label, an energy of an isolated atom or a setting is missing or wrong.
    :raises SystemExit: with :data:`EXIT_FAILED` if the training came to nothing.
    """
    require_mace()
    _require(job)
    folder, started = folder.resolve(), time.monotonic()
    values, seed = job['settings'], int(job['seed'])
    device = pick_device(values['device'])
    _set_threads(int(job.get('threads', 1)))
    data = prepare_data(job, folder)
    plan = plan_epochs(data, values)
    options = command_line(data, plan, values, seed, device)
    resumed = restore_checkpoint(folder) if remember_inputs(folder, options, data.files) else None
    report = _Report(folder, plan, started, _describe_inputs(job, data, plan, options, device, resumed))
    print(_announce(data, plan, resumed), flush=True)
    again = [] if resumed is None else ['--restart_latest']
    ending = run_mace([*options, *again], folder, plan, lambda line: print(line, flush=True), report.save)
    if ending.outcome == 'completed':
        ending = _take_model(folder) or ending
    if ending.outcome == 'completed':
        try:
            report.finish(_judge(folder, data, values, device), ending)
            return
        except OodalError as error:
            ending = Ending('diverged', str(error), ending.n_updates)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            ending = Ending('out_of_memory', str(error), ending.n_updates)
    report.give_up(ending)


def _require(job: Mapping[str, Any]) -> None:
    """Refuse a job that is not complete: defaults belong to ``MaceTrainSettings`` on the host."""
    for key in ('training', 'validation', 'seed', 'settings'):
        if job.get(key) in (None, [], {}):
            raise OodalError(f'the train-mace job lacks {key!r}: it needs training, validation, seed and settings')
    names = job['training']
    if isinstance(names, str) or len(set(names)) != len(names):
        raise OodalError(f'"training" must be a list of different files, got {names!r}')
    if missing := {'updates', 'batch_size', 'arguments', 'weights', 'E0s', 'device'} - set(job['settings']):
        raise OodalError(
            f'settings of the train-mace job lack {", ".join(sorted(missing))}: '
            'write what MaceTrainSettings(...).to_values() gives'
        )


def _set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(max(1, count))


def _describe_inputs(
    job: Mapping[str, Any], data: Data, plan: Plan, options: list[str], device: str, resumed: int | None
) -> dict[str, Any]:
    """Return what the results say of a training before it begins."""
    return {
        'seed': int(job['seed']),
        'settings': dict(job['settings']),
        'options': options,
        'E0s': dict(data.isolated),
        'trained_on': data.trained_on,
        'learning_rate': learning_rate(data, job['settings']),
        'target_updates': plan.updates,
        'updates_per_epoch': plan.updates_per_epoch,
        'epochs': plan.epochs,
        'resumed_at_epoch': resumed,
        'device': device,
        'versions': {name: version(name) for name in ('mace-torch', 'torch', 'e3nn')},
    }


def _announce(data: Data, plan: Plan, resumed: int | None) -> str:
    """Say in one line what is going to be done."""
    words = [
        f'{data.n_training} structures',
        f'{plan.updates} updates in {plan.epochs} epochs',
        f'from the model {data.start}' if data.start else 'from scratch',
    ]
    if data.replay:
        words.append(f'{len(data.replay.frames)} structures replayed')
    if resumed is not None:
        words.append(f'going on after epoch {resumed + 1}')
    return ', '.join(words)


def _take_model(folder: Path) -> Ending | None:
    """Take the model of stage two if there is one; return what went wrong if there is no model at all."""
    model, stage_two = folder / MODEL_FILE, folder / STAGE_TWO_FILE
    if stage_two.is_file():
        stage_two.replace(model)
    return None if model.is_file() else Ending('failed', 'mace_run_train ended without a model', 0)


def _judge(folder: Path, data: Data, values: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Evaluate the model that was written, whatever mace-torch said of it.

    :raises OodalError: if what it predicts is not finite.
    """
    model, batch_size = folder / MODEL_FILE, int(values['arguments'].get('valid_batch_size') or 10)
    info = open_model(model, device='cpu').info
    compared = [compare(model, part, batch_size=batch_size, device=device) for part in data.parts]
    return {
        'model': asdict(info),
        'elements': list(info.elements),
        'cutoff': info.cutoff,
        'isolated_below_E0': isolated_below_e0(model),
        'training': summarise([each for part in compared for each in part]),
        'training_parts': [
            {'file': part.name} | summarise(own) for part, own in zip(data.parts, compared, strict=True)
        ],
        'validation': summarise(compare(model, data.validation, batch_size=batch_size, device=device)),
    }


class _Report:
    """Write the results: after each evaluation, and in the end.

    :param inputs: what is known before the training begins.
    """

    def __init__(self, folder: Path, plan: Plan, started: float, inputs: Mapping[str, Any]) -> None:
        self._folder, self._plan, self._started, self._inputs = folder, plan, started, inputs

    def save(self, epochs: int) -> None:
        """Write how far the training is: all that is left of a job that is ended from outside."""
        keep_checkpoint(self._folder)
        self._write({'complete': False, 'outcome': None, 'updates': epochs * self._plan.updates_per_epoch})

    def finish(self, judged: Mapping[str, Any], ending: Ending) -> None:
        """Write how good the model is."""
        losses = {each.epoch: each.loss for each in read_evaluations(self._folder)}
        epoch = find_checkpoint(self._folder)
        first, kept = losses.get(None, math.inf), losses.get(epoch, math.nan)
        best = min((loss for epoch, loss in losses.items() if epoch is not None), default=math.nan)
        improved = best < first
        outcome = 'completed' if improved else 'no_improvement'
        message = '' if improved else f'the validation loss was {first:.6g} before training and {best:.6g} at best'
        self._write(
            {
                'complete': True,
                'outcome': outcome,
                'message': message,
                'updates': self._plan.updates,
                'updates_here': ending.n_updates,
                'kept_epoch': epoch,
                'initial_loss': _number(first),
                'kept_loss': _number(kept),
                **judged,
            }
        )
        errors = judged['validation']
        core, everything = (each.get('force_rmse', math.nan) for each in (errors['core'], errors))
        print(
            f'{outcome} after {self._plan.updates} updates in {time.monotonic() - self._started:.0f} s: validation '
            f'force RMSE {core:.1f} meV/angstrom on core atoms, {everything:.1f} on all; {message}'.rstrip('; '),
            flush=True,
        )

    def give_up(self, ending: Ending) -> None:
        """Write why there is no model.

        :raises SystemExit: always.
        """
        outcome = {'complete': True, 'outcome': ending.outcome, 'message': ending.message}
        self._write({**outcome, 'updates_here': ending.n_updates})
        print(f'{ending.outcome}: {ending.message}', flush=True)
        raise SystemExit(EXIT_FAILED)

    def _history(self) -> list[tuple[int, float | None]]:
        """Return updates and validation loss of each evaluation; a loss that is no number is None."""
        return [
            (0 if each.epoch is None else (each.epoch + 1) * self._plan.updates_per_epoch, _number(each.loss))
            for each in read_evaluations(self._folder)
        ]

    def _write(self, results: Mapping[str, Any]) -> None:
        """Write under a temporary name first, so that no reader sees half a file."""
        common = {'history': self._history(), 'seconds': time.monotonic() - self._started}
        partial = self._folder / f'partial_{RESULTS_FILE}'
        partial.write_text(json.dumps({**self._inputs, **common, **results}, indent=1, allow_nan=False), 'utf-8')
        partial.replace(self._folder / RESULTS_FILE)


def _number(value: float) -> float | None:
    """Return None for what JSON and databases have no word for: nan and infinities."""
    return value if math.isfinite(value) else None
