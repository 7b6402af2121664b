"""Run ``mace_run_train`` in this process, say how far it is, and find out how it ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.mace.memory import is_out_of_memory

from .arguments import mace_version
from .data import WORK_FOLDER
from .loss import DivergedError, UpdateCounter, weighted_loss
from .plan import HEAD, NAME, Plan

__all__ = ['Ending', 'Evaluation', 'read_evaluations', 'remember_inputs', 'run_mace']

_FINGERPRINT = 'inputs.sha256'
#: A line of mace-torch's log after each evaluation of the validation set.
_EPOCH = re.compile(rf'Epoch (\d+): head: {HEAD}, (.*)')


@dataclass(frozen=True)
class Evaluation:
    """The validation set at one moment of a training.

    :param epoch: None for before the first.
    :param loss: as mace-torch computes it, with weights; may be nan.
    """

    epoch: int | None
    loss: float


@dataclass(frozen=True)
class Ending:
    """How a training ended.

    :param outcome: ``completed``, ``diverged``, ``out_of_memory`` or ``failed``.
    :param message: what was wrong.
    :param n_updates: made by this job.
    """

    outcome: str
    message: str
    n_updates: int


def remember_inputs(folder: Path, options: Sequence[str], files: Sequence[str]) -> bool:
    """Note what a training is made of, and tell whether an earlier job of the same training left its work here.

    :param files: whose content counts, relative to ``folder``.
    :raises OodalError: if what lies here belongs to another training: mace-torch would go on from its checkpoint, or
        begin anew, and say nothing.
    """
    # training on another kind of GPU, or on none, is the same training
    kept = [option for option in options if not option.startswith('--device=')]
    digest = hashlib.sha256(json.dumps([mace_version(), *kept]).encode())
    for name in files:
        digest.update((folder / name).read_bytes())
    path = folder / WORK_FOLDER / _FINGERPRINT
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        path.write_text(digest.hexdigest(), encoding='utf-8')
        return False
    if path.read_text(encoding='utf-8') != digest.hexdigest():
        raise OodalError(
            'the earlier job was another training: its data, seed, settings or mace-torch differ. Give parent_folder '
            'with the very inputs of that job, or leave it out and begin anew (start takes over a finished model)'
        )
    return True


def run_mace(
    options: Sequence[str],
    folder: Path,
    plan: Plan,
    report: Callable[[str], None],
    save: Callable[[int], None],
) -> Ending:
    """Train.

    :param options: of ``mace_run_train``.
    :param folder: of the job; file names in the options are relative to it.
    :param report: takes a line of text after each evaluation.
    :param save: takes the number of epochs that are done after each evaluation.
    """
    counter = UpdateCounter()
    outcome, message = 'completed', ''
    try:
        with contextlib.chdir(folder), _as_before(), _progress(plan, report, save), weighted_loss(counter):
            from mace.cli import run_train
            from mace.tools import build_default_arg_parser

            run_train.run(build_default_arg_parser().parse_args(list(options)))
    except DivergedError as error:
        outcome, message = 'diverged', str(error)
    except OodalError:
        raise
    # mace-torch asserts and raises as it comes; whatever it is, it belongs into the report
    except Exception as error:
        traceback.print_exc()
        outcome = 'out_of_memory' if is_out_of_memory(error) else 'failed'
        message = f'{type(error).__name__}: {error}'
    return Ending(outcome, message, counter.n_updates)


def read_evaluations(folder: Path) -> list[Evaluation]:
    """Return all evaluations of the validation set, those of earlier jobs of the same training first."""
    evaluations: list[Evaluation] = []
    for path in sorted((folder / WORK_FOLDER / 'results').glob(f'{NAME}_run-*_train.txt')):
        for line in path.read_text(encoding='utf-8').splitlines():
            # a job that was killed leaves half a line
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                # a job that goes on evaluates before its first epoch, too
                is_first = not evaluations or entry.get('epoch') is not None
                if entry.get('mode') == 'eval' and entry.get('head') == HEAD and is_first:
                    evaluations.append(Evaluation(entry['epoch'], float(entry['loss'])))
    return evaluations


class _Progress(logging.Handler):
    """Turn what mace-torch logs after each evaluation into a line for the user."""

    def __init__(self, plan: Plan, report: Callable[[str], None], save: Callable[[int], None]) -> None:
        super().__init__(logging.INFO)
        self._plan, self._report, self._save = plan, report, save

    def emit(self, record: logging.LogRecord) -> None:
        """Report an evaluation, ignore all else."""
        if match := _EPOCH.match(record.getMessage()):
            epochs = int(match[1]) + 1
            done, plan = epochs * self._plan.updates_per_epoch, self._plan
            words = ' '.join(match[2].split())
            self._report(f'update {done} of {plan.updates} (epoch {epochs} of {plan.epochs}): validation {words}')
            self._save(epochs)


@contextlib.contextmanager
def _progress(plan: Plan, report: Callable[[str], None], save: Callable[[int], None]) -> Iterator[None]:
    """Listen to mace-torch's log, and leave the root logger as it was."""
    root = logging.getLogger()
    level, handlers, filters = root.level, root.handlers[:], root.filters[:]
    root.addHandler(_Progress(plan, report, save))
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        root.filters[:] = filters


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Hold back warnings within mace-torch, and put back the floating point type that it sets for all of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import torch

        dtype: Any = torch.get_default_dtype()
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
