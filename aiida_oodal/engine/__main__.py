"""Run one engine command in the current folder: ``python -m aiida_oodal.engine COMMAND JOB.json``."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from .errors import OodalError
from .files import ERROR_FILE

#: Where each command lives. Modules are imported when their command runs, so that a node needs only what it uses.
COMMANDS = {
    'carve': 'aiida_oodal.engine.carve.job',
    'fit-reference': 'aiida_oodal.engine.ood.fit_job',
    'grade': 'aiida_oodal.engine.md.segments',
    'judge': 'aiida_oodal.engine.trust.judge',
    'label': 'aiida_oodal.engine.label.job',
    'latents': 'aiida_oodal.engine.mace.latents_job',
    'md': 'aiida_oodal.engine.md.embedded',
    'reference-md': 'aiida_oodal.engine.label.reference_md',
    'score': 'aiida_oodal.engine.ood.score_job',
    'select': 'aiida_oodal.engine.carve.select_job',
    'train-ace': 'aiida_oodal.engine.ace.train',
    'train-mace': 'aiida_oodal.engine.mace.train.job',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 with the reason in :data:`ERROR_FILE` and on stderr."""
    parser = argparse.ArgumentParser(prog='python -m aiida_oodal.engine', description=__doc__)
    parser.add_argument('command', choices=sorted(COMMANDS))
    parser.add_argument('job', type=Path, help='JSON file that names the input files of the job')
    arguments = parser.parse_args(argv)
    folder = arguments.job.resolve().parent
    try:
        job = json.loads(arguments.job.read_text(encoding='utf-8'))
        _load(COMMANDS[arguments.command]).run_job(job, folder)
    except OodalError as error:
        (folder / ERROR_FILE).write_text(json.dumps({'message': str(error)}), encoding='utf-8')
        print(f'{arguments.command}: {error}', file=sys.stderr)
        return 1
    return 0


def _load(module: str) -> ModuleType:
    """Import what a command needs, with the garbage collector off: a short job is mostly imports."""
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def run() -> NoReturn:
    """Run the command of this program's arguments, and end."""
    status = main()
    gc.freeze()  # else the garbage collector goes through everything once more
    sys.exit(status)


if __name__ == '__main__':
    run()
