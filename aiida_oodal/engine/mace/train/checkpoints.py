"""The checkpoints of ``mace_run_train``: which there are, and that one is whole whenever a job is killed."""

from __future__ import annotations

import contextlib
import pickle
import re
import shutil
import warnings
from pathlib import Path

from .data import WORK_FOLDER

__all__ = ['find_checkpoint', 'keep_checkpoint', 'restore_checkpoint']

_FOLDER, _KEPT = f'{WORK_FOLDER}/checkpoints', f'{WORK_FOLDER}/kept_checkpoint'
_NAME = re.compile(r'_epoch-(\d+)(?:_swa)?\.pt$')


def find_checkpoint(folder: Path) -> int | None:
    """Return the epoch of the newest checkpoint, or None if there is none.

    :param folder: of the job.
    """
    return max((_epoch(path) for path in (folder / _FOLDER).glob('*.pt')), default=None)


def keep_checkpoint(folder: Path) -> None:
    """Give the newest checkpoint a second name, by which it stays until the next call.

    Mace-torch removes a checkpoint before it writes the next one: a job that is killed meanwhile would have none.
    """
    newest = max((folder / _FOLDER).glob('*.pt'), key=_epoch, default=None)
    kept = folder / _KEPT
    if newest is None or (kept / newest.name).exists():
        return
    kept.mkdir(exist_ok=True)
    earlier = list(kept.iterdir())
    try:
        (kept / newest.name).hardlink_to(newest)
    except OSError:  # a file system without hard links
        shutil.copyfile(newest, kept / newest.name)
    for path in earlier:
        path.unlink()


def restore_checkpoint(folder: Path) -> int | None:
    """Leave the newest checkpoint that is whole where mace-torch looks for it, and no newer one; return its epoch.

    From one that is not whole mace-torch would begin anew, and say nothing.
    """
    for path in sorted([*(folder / _FOLDER).glob('*.pt'), *(folder / _KEPT).glob('*.pt')], key=_epoch, reverse=True):
        if _is_whole(path):
            (folder / _FOLDER).mkdir(exist_ok=True)
            if path.parent.name != Path(_FOLDER).name:
                path.replace(folder / _FOLDER / path.name)
            return _epoch(path)
        path.unlink()
    return None


def _epoch(path: Path) -> int:
    match = _NAME.search(path.name)
    return -1 if match is None else int(match[1])


def _is_whole(path: Path) -> bool:
    """Tell whether torch can read a file."""
    import torch

    with warnings.catch_warnings(), contextlib.suppress(RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        warnings.simplefilter('ignore')
        torch.load(path, map_location='cpu', weights_only=False)
        return True
    return False
